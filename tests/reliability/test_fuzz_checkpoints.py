"""Checkpoints that were damaged, foreign, hostile or emptied are refused in one line, and nothing in them runs."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from tests.processes import run
from tests.reliability.figures import record
from tests.reliability.fuzzing import SIZES, try_inputs, verdict
from tests.reliability.test_fuzz_files import mutated, time_limit
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.pretrained import load_pretrained
from ttc.models.weights import load_weights
from ttc.run import checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def original(pretrained_run: Path) -> checkpoint.State:
    return checkpoint.load(pretrained_run / "checkpoints" / "last.pt", "pretrain")


def packed(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "no digest"])
@pytest.mark.parametrize("cases", SIZES)
def test_changed_files(cases: int, digest: bool, pretrained_run: Path, tmp_path: Path) -> None:
    """With its digest no change is ever accepted; without, it is read or refused."""
    source, path = pretrained_run / "checkpoints" / "last.pt", tmp_path / "last.pt"
    content = source.read_bytes()
    if digest:
        (tmp_path / "last.pt.sha256").write_text(source.with_name("last.pt.sha256").read_text())

    def check(changed: object) -> str:
        assert isinstance(changed, bytes)
        path.write_bytes(changed)
        with time_limit():
            outcome = verdict(lambda: checkpoint.load(path, "pretrain"))
        assert not digest or outcome == ("accepted" if changed == content else "refused")
        return outcome

    try_inputs(f"checkpoint bytes, {'with' if digest else 'without'} digest", cases, mutated([content]), check)


def places(state: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """List the keys at any depth."""
    keys = list(state) if isinstance(state, dict) else range(len(state)) if isinstance(state, list) else []
    found: list[tuple[object, ...]] = []
    for key in keys:
        found += [(*path, key), *places(state[key], (*path, key))]  # type: ignore[index]  # a dict or list
    return found


VALUES = (None, 0, -1, 10**30, 1e308, float("nan"), "", "x", [], {}, [[]], torch.zeros(0), torch.zeros(3, 3), True)


@st.composite
def changed_parts(draw: st.DrawFn, state: checkpoint.State) -> checkpoint.State:
    """Draw a checkpoint in which parts are missing or are something else."""
    changed = copy.deepcopy(state)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(changed)))
        inner = changed
        for key in path:
            inner = inner[key]  # type: ignore[index]  # a path of this state
        if draw(st.booleans()) and isinstance(inner, dict):
            del inner[last]  # type: ignore[arg-type]  # a key
        else:
            inner[last] = draw(st.sampled_from(VALUES))  # type: ignore[index]  # a key
        if not changed:
            break
    return changed


@pytest.mark.parametrize("cases", SIZES)
def test_changed_parts(cases: int, original: checkpoint.State, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"

    def check(state: object) -> str:
        path.write_bytes(packed(state))
        with time_limit():
            return verdict(lambda: load_pretrained(str(path), None, 0, CPU))

    path.write_bytes(packed(original))
    assert verdict(lambda: load_pretrained(str(path), None, 0, CPU)) == "accepted"
    try_inputs("checkpoint parts", cases, changed_parts(original), check)


@pytest.mark.parametrize(
    ("part", "value"), [("class_names", []), ("class_counts", [1]), ("minority_class", 7), ("class_names", ["a", "b"])]
)
def test_classes_that_are_not_those_of_the_data_are_refused(
    part: str, value: object, original: checkpoint.State, tmp_path: Path
) -> None:
    state = copy.deepcopy(original)
    state["description"][part] = value
    (tmp_path / "x.pt").write_bytes(packed(state))
    with pytest.raises(ValueError, match="describes other classes than its data have"):
        load_pretrained(str(tmp_path / "x.pt"), None, 0, CPU)


@pytest.mark.parametrize("cases", SIZES)
def test_weights_files(cases: int, original: checkpoint.State, tmp_path: Path) -> None:
    spec = EncoderSpec("convnet-w8", 1, 8, "auto")
    path = tmp_path / "w.pt"

    def check(state: object) -> str:
        path.write_bytes(packed(state))
        with time_limit():
            return verdict(lambda: load_weights(build_encoder(spec), spec, str(path)))

    parts = st.one_of(changed_parts(original), changed_parts({"encoder": original["encoder"]}), st.sampled_from(VALUES))
    try_inputs("weights", cases, parts, check)


@pytest.mark.parametrize("cases", [pytest.param(4, id="short"), pytest.param(60, id="long", marks=pytest.mark.slow)])
def test_processes(cases: int, original: checkpoint.State, tmp_path: Path) -> None:
    """Whole commands meet a changed checkpoint: to continue from, to start from, and to evaluate."""
    chance, refused = random.Random(3), 0
    commands = (
        ("pretrain", "--method", "supproto", "--epochs", 2, "--resume"),
        ("pretrain", "--epochs", 0, "--weights"),
        ("linear_eval", "--bootstrap", 0, "--checkpoint"),
        ("compute_metrics", "--peu-draws", 0, "--checkpoint"),
    )
    for number in range(cases):
        folder, state = tmp_path / str(number), copy.deepcopy(original)
        folder.mkdir()
        *path, last = chance.choice([place for place in places(state) if len(place) < 3])
        inner = state
        for key in path:
            inner = inner[key]  # type: ignore[index]  # a path of this state
        inner[last] = copy.deepcopy(chance.choice(VALUES))  # type: ignore[index]  # a key
        content = packed(state)
        (folder / "x.pt").write_bytes(content)
        done = run(*commands[number % 4], "x.pt", "--output", "out", folder=folder)  # type: ignore[arg-type]  # words
        told = f"{commands[number % 4]} with {(*path, last)} = {inner[last]!r}: {done.stderr}"  # type: ignore[index]
        assert done.code in (0, 1), told
        lines = done.stderr.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == (lines[-1:] if done.code else []), told
        assert "Traceback" not in done.stderr, told
        assert (folder / "x.pt").read_bytes() == content
        refused += done.code
    if cases >= 60:
        figures = {"accepted": cases - refused, "refused": refused}
        record("inputs: checkpoints given to whole commands", "bash scripts/test.sh --all tests/reliability", figures)


class Evil:
    """Runs a call when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def hostile(mark: Path) -> dict[str, bytes]:
    """Return files that would make the folder `mark`, or fill the memory, if they were obeyed."""
    calls = {
        "system": Evil(os.system, f"mkdir {mark}"),
        "mkdir": Evil(os.mkdir, str(mark)),
        "eval": Evil(eval, f"__import__('os').mkdir({str(mark)!r})"),
        "getattr": Evil(getattr, mark, "mkdir"),
        "apply": Evil(map, os.mkdir, [str(mark)]),
    }
    made = {
        f"{name}, torch": packed({"format": checkpoint.FORMAT, "kind": "pretrain", "x": call})
        for name, call in calls.items()
    }
    made |= {
        f"{name}, pickle {protocol}": pickle.dumps(call, protocol)
        for name, call in calls.items()
        for protocol in (0, 2, 5)
    }
    traversal = io.BytesIO(packed({"format": checkpoint.FORMAT, "kind": "other"}))
    with zipfile.ZipFile(traversal, "a") as archive:
        archive.writestr(f"../../../../../../../..{mark}/x", b"x")
        archive.writestr(f"{mark}/x", b"x")
    made["paths"] = traversal.getvalue()
    swapped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed({"x": 1}))) as old, zipfile.ZipFile(swapped, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(calls["mkdir"]) if name.endswith("data.pkl") else old.read(name))
    made["pickle in place of the data"] = swapped.getvalue()
    made["endless opcodes"] = b"\x80\x02" + b"]" * 100_000 + b"."
    made["deep"] = b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."
    made["huge string"] = b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x."
    return made


NAMES = list(hostile(Path("/nowhere")))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_do_nothing(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "x.pt"
    path.write_bytes(hostile(mark)[name])
    with time_limit():
        assert verdict(lambda: checkpoint.load(path, "pretrain")) == "refused"
        spec = EncoderSpec("convnet-w8", 1, 8, "auto")
        assert verdict(lambda: load_weights(build_encoder(spec), spec, str(path))) == "refused"
    assert not mark.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["x.pt"]
