"""Requests to stop: a file, a time limit, signals once and twice, agreed by all ranks; restarts by torchrun."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.processes import Running, run
from tests.reliability.ranks import finish, ranks, torchrun, wait_for
from tests.reliability.runs import assert_same_state
from tests.smoke.runs import metrics
from ttc import checkpoint

WORDS = ("--epochs", 6, "--log-every-steps", 1, "--batch-size", 64, "--metrics-every-epochs", 0, "--output", "run")
LAST = Path("run", "checkpoints", "last.pt")


@pytest.fixture(scope="module", params=[1, 2], ids=lambda size: f"{size} ranks")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("whole")
    finish(request.param, *WORDS, folder=folder)
    return request.param, folder


def saved(folder: Path) -> int:
    return int(checkpoint.load(folder / LAST, "pretrain")["step"])


def test_a_file_named_stop_ends_all_ranks_and_its_removal_continues(whole: tuple[int, Path], tmp_path: Path) -> None:
    size, expected = whole
    with ranks(size, *WORDS, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 10, running[0])
        (tmp_path / "run" / "STOP").touch()
        ended = [each.wait() for each in running]
    assert [each.code for each in ended] == [75] * size, ended[0].stderr
    assert "stopped by the file run/STOP (delete it first) after step" in ended[0].stderr
    assert 10 <= saved(tmp_path) < 66
    again = [each.code for each in stopped_again(size, tmp_path)]
    assert again == [75] * size
    (tmp_path / "run" / "STOP").unlink()
    finish(size, *WORDS, folder=tmp_path)
    assert_same_state(expected / LAST, tmp_path / LAST)
    assert metrics(expected / "run") == metrics(tmp_path / "run")


def stopped_again(size: int, folder: Path) -> list[object]:
    """Repeat the command while the file is still there."""
    with ranks(size, *WORDS, folder=folder) as running:
        return [each.wait() for each in running]


def test_a_time_limit_counts_from_the_start_of_the_command(whole: tuple[int, Path], tmp_path: Path) -> None:
    size, expected = whole
    with ranks(size, *WORDS, "--stop-after-minutes", 0.0001, folder=tmp_path) as running:
        ended = [each.wait() for each in running]
    assert [each.code for each in ended] == [75] * size, ended[0].stderr
    assert "stopped by --stop-after-minutes 0.0001 after step" in ended[0].stderr
    assert saved(tmp_path) == size  # several ranks learn of it one step later
    finish(size, *WORDS, "--stop-after-minutes", 60, folder=tmp_path)
    assert_same_state(expected / LAST, tmp_path / LAST)


def test_one_rank_with_a_signal_stops_all(tmp_path: Path) -> None:
    with ranks(2, *WORDS, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 7, running[0])
        assert running[1].process.pid is not None
        os.kill(running[1].process.pid, signal.SIGUSR1)
        ended = [each.wait() for each in running]
    assert [each.code for each in ended] == [75, 75], ended[0].stderr
    assert "stopped by another rank after step" in ended[0].stderr
    # Not at the next log step, but after the step that was under way.
    assert saved(tmp_path) == metrics(tmp_path / "run")[-1]["step"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint(name: str, tmp_path: Path) -> None:
    """The first signal meets a step that takes minutes: nothing but a second one can end the process soon."""
    long = ("--epochs", 3, "--batch-size", 1024, "--encoder", "convnet-w64", "--image-size", 96, *WORDS[-2:])
    short = ("--epochs", 3, "--batch-size", 1024, "--encoder", "convnet-w8", *WORDS[-2:])
    del short
    running = Running("pretrain", *long, folder=tmp_path)
    wait_for(tmp_path / "run" / "split.csv", 1000, running)
    time.sleep(1)
    assert running.process.pid is not None
    number = getattr(signal, name)
    os.kill(running.process.pid, number)
    time.sleep(0.5)
    began = time.monotonic()
    os.kill(running.process.pid, number)
    running.process.join(10)
    assert running.process.exitcode == -number
    assert time.monotonic() - began < 5
