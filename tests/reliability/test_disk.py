"""A file system that is really full, or really read-only: the run stops with one line, the old checkpoint is intact."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import run
from tests.reliability.ranks import message, ranks, wait_for
from tests.reliability.runs import assert_same_state
from ttc.run import checkpoint

WORDS = ("--epochs", 16, "--log-every-steps", 1, "--batch-size", 64, "--metrics-every-epochs", 0)
LAST = Path("run", "checkpoints", "last.pt")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of its own, of 4 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes free."""
    room = os.statvfs(disk)
    (disk / "other files").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - left)))


@pytest.mark.parametrize("left", [8192, *(pytest.param(left, marks=pytest.mark.slow) for left in (0, 100_000))])
def test_a_full_disk_stops_the_run_and_more_space_continues_it(left: int, disk: Path, tmp_path: Path) -> None:
    """Whatever meets the end of the space first: metrics.jsonl, TensorBoard's thread, log.txt or a checkpoint."""
    words = (*WORDS, "--save-every-epochs", 1000)
    with ranks(1, *words, "--output", disk / "run", folder=tmp_path) as running:
        wait_for(disk / "run" / "metrics.jsonl", 30, running[0])
        fill(disk, left)
        ended = [each.wait() for each in running]
    assert [each.code for each in ended] == [1]
    assert "No space left on device" in message(ended)
    found = checkpoint.load_latest(disk / "run" / "checkpoints", "pretrain")
    assert found is not None
    (disk / "other files").unlink()
    done = run("pretrain", *words, "--output", disk / "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert f"step {found[0]['step']}" in done.stderr
    other = run("pretrain", *words, "--output", "run", folder=tmp_path)
    assert other.code == 0
    assert_same_state(tmp_path / LAST, disk / LAST)


def test_a_disk_that_becomes_read_only_stops_the_run(disk: Path, tmp_path: Path) -> None:
    words = (*WORDS, "--output", disk / "run")
    with ranks(1, *words, folder=tmp_path) as running:
        wait_for(disk / "run" / "metrics.jsonl", 30, running[0])
        # A file that is open for writing would keep the file system writable: bind it read-only over itself.
        checkpoints = str(disk / "run" / "checkpoints")
        subprocess.run(["mount", "--bind", checkpoints, checkpoints], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", checkpoints], check=True)
        try:
            ended = [each.wait() for each in running]
        finally:
            subprocess.run(["umount", checkpoints], check=True)
    assert [each.code for each in ended] == [1]
    assert "could not be written (Read-only file system); free space there or choose another" in message(ended)
    assert checkpoint.load_latest(disk / "run" / "checkpoints", "pretrain") is not None


def test_a_new_run_on_a_full_or_read_only_disk_is_refused(disk: Path, tmp_path: Path) -> None:
    fill(disk, 0)
    with ranks(1, *WORDS, "--output", disk / "run", folder=tmp_path) as running:
        told = message([each.wait() for each in running])
    assert "No space left on device" in told
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with ranks(1, *WORDS, "--output", disk / "other", folder=tmp_path) as running:
        told = message([each.wait() for each in running])
    assert "cannot be written (Read-only file system); choose another folder" in told
