"""Checkpoints: what survives crashes, full disks, bit flips and foreign files."""

from __future__ import annotations

import logging
import os
import pathlib
import pickle
import resource
import sys
import tempfile
from pathlib import Path
from types import FrameType

import pytest
import torch

from tests.processes import call
from ttc.run import checkpoint, files

KIND = "test"


def state(step: int) -> checkpoint.State:
    return {
        "step": step,
        "weights": {"a": torch.full((300,), float(step)), "b": torch.arange(step, dtype=torch.int64)},
        "args": {"lr": 0.1, "name": "x", "classes": [["0", "1"], ["2"]], "none": None, "flag": True},
        "rng": [torch.get_rng_state()],
    }


def save(folder: Path, step: int) -> None:
    checkpoint.save(folder / "last.pt", KIND, state(step), keep_previous=folder / "previous.pt")


def latest_step(folder: Path) -> int:
    found = checkpoint.load_latest(folder, KIND)
    assert found is not None
    return int(found[0]["step"])


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new" / "last.pt", KIND, state(7))
    found = checkpoint.load(tmp_path / "new" / "last.pt", KIND)
    assert found["format"] == checkpoint.FORMAT
    assert found["args"] == state(7)["args"]
    for name, value in state(7)["weights"].items():
        assert torch.equal(found["weights"][name], value)
        assert found["weights"][name].dtype == value.dtype
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["last.pt", "last.pt.sha256"]


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    import hashlib

    for step in (1, 2):
        save(tmp_path, step)
    for name in ("last.pt", "previous.pt"):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert (tmp_path / f"{name}.sha256").read_text() == f"{digest}  {name}\n"


def test_previous_is_the_one_before(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path, KIND) is None
    assert checkpoint.load_latest(tmp_path / "missing", KIND) is None
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert latest_step(tmp_path) == 3
    assert checkpoint.load(tmp_path / "previous.pt", KIND)["step"] == 2


# Crashes.

OPERATIONS = {"open", "read", "write", "flush", "fsync", "fileno", "replace", "rename", "unlink", "close", "mkdir"}


def crash_while_saving(folder: str, step: int, calls: int) -> None:
    """Save, and end the process without clean-up before its `calls`-th operation on a file; exit 0 if it has fewer."""
    left = calls

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        # "c_call" comes before a function in C is entered; in front of a call is also just after the one before.
        inside = frame.f_code.co_filename in (checkpoint.__file__, files.__file__, pathlib.__file__)
        if event == "c_call" and inside and getattr(argument, "__name__", "") in OPERATIONS:
            left -= 1
            if left == 0:
                os._exit(9)

    sys.setprofile(count)
    save(Path(folder), step)
    sys.setprofile(None)
    os._exit(0)


def test_a_crash_at_any_point_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    """Crash again and again in ONE folder, so that leftovers of a crash meet the next one."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    current, crashes, outcomes = 2, 0, set()
    while True:
        crashes += 1
        code = call(crash_while_saving, str(tmp_path), current + 1, crashes)
        found = latest_step(tmp_path)
        assert found in (current, current + 1), f"crash before call {crashes}"
        outcomes.add(found - current)
        current = found
        if code == 0:
            break
        assert code == 9
    assert crashes > 20
    assert outcomes == {0, 1}
    assert checkpoint.load(tmp_path / "previous.pt", KIND)["step"] == current - 1


def test_a_crash_in_the_first_save_leaves_nothing_or_the_state(tmp_path: Path) -> None:
    outcomes = []
    for crashes in range(1, 200, 3):
        folder = tmp_path / str(crashes)
        folder.mkdir()
        code = call(crash_while_saving, str(folder), 1, crashes)
        found = checkpoint.load_latest(folder, KIND)
        outcomes.append(None if found is None else found[0]["step"])
        if code == 0:
            break
    assert code == 0
    # Nothing up to some operation, the state from there on.
    assert set(outcomes) == {None, 1}
    assert outcomes == sorted(outcomes, key=lambda step: step is not None)


# Failing writes.


def save_with_little_space(folder: str, step: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        save(Path(folder), step)
    except ValueError as error:
        text = str(error)
        os._exit(0 if "could not be written" in text and folder in text and "--output" in text else 3)
    os._exit(4)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert call(save_with_little_space, str(tmp_path), 3) == 0
    assert latest_step(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    save(tmp_path, 3)
    assert latest_step(tmp_path) == 3


def save_without_permission(folder: str, step: int) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)  # permissions do not bind root
    try:
        save(Path(folder), step)
    except ValueError as error:
        os._exit(0 if "could not be written" in str(error) else 3)
    os._exit(4)


def test_a_read_only_folder_keeps_the_old_checkpoint() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        folder = Path(name)
        save(folder, 1)
        folder.chmod(0o555)
        assert call(save_without_permission, name, 2) == 0
        assert latest_step(folder) == 1
        folder.chmod(0o755)


# Damage.


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_found(tmp_path: Path, seed: int) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "last.pt"
    data = bytearray(path.read_bytes())
    place = int(torch.randint(len(data) * 8, (), generator=torch.Generator().manual_seed(seed)))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        checkpoint.load(path, KIND)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("digest", [True, False])
def test_a_truncated_file_is_one_line(tmp_path: Path, share: float, digest: bool) -> None:
    path = tmp_path / "last.pt"
    save(tmp_path, 1)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    if not digest:
        (tmp_path / "last.pt.sha256").unlink()
    with pytest.raises(ValueError, match=r"last\.pt is (damaged|truncated)") as caught:
        checkpoint.load(path, KIND)
    assert "\n" not in str(caught.value)


def test_the_previous_checkpoint_steps_in_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("ttc").propagate = True
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "last.pt").write_bytes(b"broken")
    assert latest_step(tmp_path) == 1
    assert len(caplog.records) == 1
    assert "last.pt is damaged" in caplog.text
    assert "going back to" in caplog.text
    (tmp_path / "previous.pt").write_bytes(b"broken too")
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        checkpoint.load_latest(tmp_path, KIND)


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(tmp_path: Path) -> None:
    """The run went back to previous.pt: a crash during its next save must not find the damaged file there."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    damaged = (tmp_path / "last.pt").read_bytes()[:-1] + b"?"
    for calls in range(1, 400, 3):
        (tmp_path / "last.pt").write_bytes(damaged)
        code = call(crash_while_saving, str(tmp_path), 3, calls)
        assert latest_step(tmp_path) in (1, 3), f"crash before call {calls}"
        if code == 0:
            break
    assert code == 0
    assert latest_step(tmp_path) == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ValueError, match=r"x\.pt cannot be read \(No such file"):
        checkpoint.load(path, KIND)
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(tmp_path, KIND)
    checkpoint.save(path, "probe", state(1))
    with pytest.raises(ValueError, match="of kind 'probe', not 'test'"):
        checkpoint.load(path, KIND)
    (tmp_path / "x.pt.sha256").unlink()
    torch.save({"format": "ttc-checkpoint-99", "kind": KIND}, path)
    with pytest.raises(ValueError, match=r"has format 'ttc-checkpoint-99'"):
        checkpoint.load(path, KIND)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="has format 'Tensor'"):
        checkpoint.load(path, KIND)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="has format None"):
        checkpoint.load(path, KIND)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("/tmp/ttc-test-evil",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickled_objects_are_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, evil = tmp_path / "x.pt", {"format": checkpoint.FORMAT, "kind": KIND, "args": Evil()}
    if how == "torch":
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(ValueError, match="truncated or no checkpoint of this project"):
        checkpoint.load(path, KIND)
    assert not Path("/tmp/ttc-test-evil").exists()


@pytest.mark.parametrize("data", [b"", b"\x80", b"PK\x03\x04", b"hello", bytes(5000), os.urandom(3000)])
def test_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or no checkpoint of this project"):
        checkpoint.load(path, KIND)


def test_write_text_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    checkpoint.write_text(path, "long " * 100)
    checkpoint.write_text(path, "ü")
    assert path.read_bytes() == "ü".encode()
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
