"""Files of runs with any shape: read, or refused in one line that names the file; nothing else is touched.

Every kind of file that a script reads back is taken from a run of an earlier version and changed: JSON whose parts are
missing or something else, tables with rows and cells that are not due, arrays of other shapes, and damaged bytes.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from scripts import report
from tests.processes import ROOT
from tests.reliability.fuzzing import try_inputs
from tests.reliability.test_fuzz_checkpoints import changed_parts, packed
from tests.reliability.test_fuzz_files import mutated, time_limit
from ttc.evaluation.heads import load_heads
from ttc.evaluation.predictions import DecisionRule, read_predictions
from ttc.models.description import Description
from ttc.results import collect, ledger_lines
from ttc.results.clinic.matched import load_predictions
from ttc.results.clinic.model_card import model_card
from ttc.results.table_parts.columns import WANTED
from ttc.run import checkpoint, ledger, manifest
from ttc.run.folder import RunFolder, logged_curve, truncate_jsonl
from ttc.run.npz import read_embeddings

FINISHED = ROOT / "tests" / "upgrade" / "93a57da" / "finished"
SIZES = [pytest.param(8, id="short"), pytest.param(1000, id="long", marks=pytest.mark.slow)]

DEEP = "[" * 100_000
STRANGE = st.sampled_from(
    (None, True, 0, -1, 9, 2.5, 10**400, 10**18, "", "x", "1", "\x1b[31m\n", "<script>", [], [1], [None], {}, {"a": 1})
)
LITERALS = ("NaN", "Infinity", "-Infinity", "1e400", DEEP, '"' + "x" * 200_000 + '"', '"\\ud800"')
"""What JSON readers take, or choke on, that no JSON writer of ours writes."""


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    keys = list(value) if isinstance(value, dict) else range(min(3, len(value))) if isinstance(value, list) else []
    inner = [place for key in keys for place in places(value[key], (*path, key))]  # type: ignore[index]  # its keys
    return [path, *inner]


@st.composite
def reshaped(draw: st.DrawFn, value: object) -> bytes:
    """Draw JSON in which up to three parts are missing or are something else."""
    changed, literal = copy.deepcopy(value), draw(st.sampled_from(LITERALS))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(changed)))
        new = draw(st.one_of(*[STRANGE] * 4, st.just("LITERAL")))
        if not path:
            changed = new if draw(st.integers(0, 3)) == 0 else changed
            continue
        inner = changed
        for key in path[:-1]:
            inner = inner[key]  # type: ignore[index]  # a path of this value
        if draw(st.integers(0, 2)) == 0:
            del inner[path[-1]]  # type: ignore[attr-defined]  # a dict or list
        else:
            inner[path[-1]] = new  # type: ignore[index]  # a dict or list
    return json.dumps(changed).replace('"LITERAL"', literal).encode()


@st.composite
def resheeted(draw: st.DrawFn, text: str) -> bytes:
    """Draw a table in which cells, rows and columns are missing, doubled or something else."""
    rows = [list(row) for row in csv.reader(io.StringIO(text))][: draw(st.integers(1, 30))]
    strange = st.sampled_from(
        ("", "nan", "inf", "-1", "9", "0.5", "x", "1e400", "9" * 400, "=1+1", "a\nb", "\x1b[2J", "z" * 2**18, "\0", "Ü")
    )
    for _ in range(draw(st.integers(1, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        place = draw(st.integers(0, max(0, len(row) - 1)))
        match draw(st.sampled_from(("cell", "cell", "cell", "drop", "add", "row", "double"))):
            case "cell" if row:
                row[place] = draw(strange)
            case "drop":
                del row[place:]
            case "add":
                row.insert(place, draw(strange))
            case "row":
                rows.remove(row)
            case "double":
                rows.append(row)
        if not rows:
            break
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


EMBEDDINGS = {
    "embeddings": np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32),
    "labels": np.arange(9) % 2,
    "class_names": np.array(["healthy", "ill"]),
    "prototypes": np.eye(2, 4, dtype=np.float32),
}


@st.composite
def rearranged(draw: st.DrawFn) -> bytes:
    """Draw embeddings in which arrays are missing or have other shapes, types and numbers."""
    arrays = dict(EMBEDDINGS)
    others = (np.zeros(0), np.zeros((2, 3)), np.full((2, 9, 4), np.nan, np.float32), np.array(["x"]), np.arange(9))
    for name in draw(st.lists(st.sampled_from(sorted(arrays)), max_size=2, unique=True)):
        if draw(st.booleans()):
            del arrays[name]
        else:
            arrays[name] = draw(st.sampled_from(others))
    packed_arrays = io.BytesIO()
    np.savez(packed_arrays, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
    return packed_arrays.getvalue()


def tabulate(run: Path) -> None:
    collect.lines_of([collect.read_run(run)[0]], WANTED, also=["encoder/all/*"])


def card(run: Path) -> None:
    state = checkpoint.load(FINISHED / "checkpoints" / "last.pt", "pretrain")
    model_card(run, Description.from_dict(state["description"]), 32)


def repeat(run: Path) -> None:
    """Ask for the run with the same command again."""
    entries = json.loads((FINISHED / "args.json").read_text())
    RunFolder(run)._compare(run / "args.json", ledger.given_arguments(entries))


def all_of(*uses: Callable[[], object]) -> None:
    """Call all, even after an error of one; raise the first."""
    errors = []
    for use in uses:
        try:
            use()
        except ValueError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def status(results: Path) -> None:
    cell = manifest.Line("a", "a", {"pretrain": ("--lr", "0.1")})
    manifest.status(cell, results, list)


def predictions_of(run: Path, threshold: str) -> object:
    return load_predictions(str(run / "linear_eval"), "all", DecisionRule(threshold, None, "any"), None)


KINDS: dict[str, Callable[[Path], object]] = {
    "args.json": lambda run: all_of(lambda: tabulate(run), lambda: card(run), lambda: repeat(run)),
    "linear_eval/args.json": tabulate,
    "env.json": lambda run: all_of(lambda: report.facts([collect.read_run(run)[0]], NO_LINES), lambda: card(run)),
    "result.json": lambda run: all_of(lambda: tabulate(run), lambda: card(run), RunFolder(run).result_text),
    "linear_eval/result.json": lambda run: all_of(
        lambda: tabulate(run), lambda: card(run), lambda: predictions_of(run, "half")
    ),
    "metrics/metrics.json": lambda run: all_of(lambda: tabulate(run), lambda: card(run)),
    "metrics.jsonl": lambda run: all_of(
        lambda: logged_curve(run / "metrics.jsonl", "train/loss"), lambda: truncate_jsonl(run / "metrics.jsonl", 20)
    ),
    "split.csv": card,
    "linear_eval/predictions.csv": lambda run: all_of(
        lambda: read_predictions(run / "linear_eval" / "predictions.csv", "all", 1, within=run),
        lambda: predictions_of(run, "youden"),
    ),
    "linear_eval/heads.pt": lambda run: load_heads(run / "linear_eval" / "heads.pt", run),
    "metrics/embeddings.npz": lambda run: read_embeddings(run / "metrics" / "embeddings.npz", run),
    "ledger.csv": lambda run: ledger_lines.from_csv(run / "ledger.csv"),
    "manifest.csv": lambda run: manifest.read_manifest(run / "manifest.csv"),
    "cells/a.json": status,
}
"""File -> what reads it."""

NO_LINES = ledger_lines.from_rows([])


def inputs(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    match Path(name).suffix:
        case ".json":
            changed = reshaped(json.loads(content))
        case ".jsonl":
            lines = content.decode().splitlines()
            entry = reshaped(json.loads(lines[1]))
            changed = entry.map(lambda line: "\n".join([lines[0], line.decode(), *lines[2:]]).encode())
        case ".csv":
            changed = resheeted(content.decode())
        case ".pt":
            state = torch.load(io.BytesIO(content), weights_only=True)
            changed = changed_parts(state).map(packed)
        case _:
            changed = rearranged()
    return st.one_of(changed, changed, changed, mutated([content]))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run with one file of each kind."""
    run = tmp_path_factory.mktemp("shapes") / "run"
    shutil.copytree(FINISHED, run)
    lines = collect.lines_of([collect.read_run(run)[0]], WANTED, also=["encoder/all/*"])
    (run / "ledger.csv").write_text(ledger_lines.to_csv(lines))
    cell = manifest.Line("a", "a", {"pretrain": ("--lr", "0.1"), "linear_eval": ()})
    (run / "manifest.csv").write_text(manifest.write_manifest([cell], "made by a test"))
    (run / "cells").mkdir()
    np.savez(run / "metrics" / "embeddings.npz", **EMBEDDINGS)  # type: ignore[arg-type]  # no array is allow_pickle
    entry = manifest.Entry(words=["--lr", "0.1"], state="failed", seconds=1.0, message="error: x")
    manifest.write_record(cell, run, {"pretrain": entry})
    return run


def digest(folder: Path, but: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != but:
            total.update(str(path).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.filterwarnings("error", "ignore::hypothesis.errors.HypothesisWarning")
def test_any_shape_is_read_or_refused_by_name(cases: int, name: str, original: Path, tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "thesis.tex"
    shutil.copytree(original, run)
    outside.write_text("important")
    path, content = run / name, (original / name).read_bytes()
    path.with_name(path.name + ".sha256").unlink(missing_ok=True)
    before = digest(tmp_path, but=path)

    def check(changed: object) -> str:
        assert isinstance(changed, bytes)
        path.write_bytes(changed)
        reason = None
        with time_limit():
            try:
                KINDS[name](run)
            except ValueError as error:
                reason = str(error)
        if reason is not None:
            assert str(run) in reason
            assert len(reason) < 1000
            assert ";" in reason or " must " in reason, "what to do is said"
        return "accepted" if reason is None else "refused"

    assert check(content) == "accepted"
    try_inputs(f"shapes of {' '.join(Path(name).parts)}", cases, inputs(name, content), check)
    assert digest(tmp_path, but=path) == before


@pytest.mark.parametrize("name", KINDS)
def test_a_pipe_in_place_of_a_file_is_refused(name: str, original: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(original, run)
    (run / name).unlink()
    os.mkfifo(run / name)
    with time_limit(10):
        try:
            KINDS[name](run)
        except ValueError as error:
            assert str(run) in str(error)  # noqa: PT017  # a file that nobody needs may count as missing
