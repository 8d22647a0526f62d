"""Requests to stop: a file, a time limit, signals once and twice, agreed by all ranks; restarts by torchrun."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.reliability.figures import record
from tests.reliability.ranks import (
    agent,
    end,
    finish,
    kill_again_and_again,
    message,
    ranks,
    start_rank,
    torchrun,
    wait_for,
)
from tests.reliability.runs import assert_same_state
from tests.smoke.runs import metrics
from ttc.run import checkpoint, runtime

WORDS = ("--epochs", 4, "--log-every-steps", 1, "--batch-size", 64, "--metrics-every-epochs", 0, "--output", "run")
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
    assert 10 <= saved(tmp_path) < 44
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


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint(name: str, tmp_path: Path) -> None:
    """The first signal meets a process that waits for a rank which hangs: only a second one can end it soon."""
    with ranks(2, *WORDS, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 13, running[0])
        waiting, hanging = (each.process for each in running)
        assert waiting.pid is not None
        assert hanging.pid is not None
        os.kill(hanging.pid, signal.SIGSTOP)
        number = getattr(signal, name)
        time.sleep(1)
        os.kill(waiting.pid, number)
        os.kill(waiting.pid, number)  # the same request, repeated by an agent
        waiting.join(runtime.ONE_REQUEST_SECONDS + 1)
        assert waiting.exitcode is None
        os.kill(waiting.pid, number)
        waiting.join(10)
        assert waiting.exitcode == 128 + number
    step = saved(tmp_path)
    assert step > 0
    results = finish(2, *WORDS, folder=tmp_path)
    assert f"continuing from run/checkpoints/last.pt, step {step}" in results[0].stderr


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_restarted_ranks_find_each_other_and_speak(late: int, tmp_path: Path) -> None:
    """One store for all restarts, as torchrun has it, full of what the dead left; one rank comes later each time."""
    words = (*WORDS, "--epochs", 40, "--timeout-minutes", 0.5)
    with agent(2) as env:
        for lines in (10, 40):
            running = {1 - late: start_rank(1 - late, env, *words, folder=tmp_path)}
            time.sleep(1.5)
            running[late] = start_rank(late, env, *words, folder=tmp_path)
            try:
                wait_for(tmp_path / "run" / "metrics.jsonl", lines, running[0])
                running[1].process.kill()
                ended = running[0].wait()
            finally:
                end(list(running.values()))
            assert ended.code == 1
            assert "another process of the run has gone" in message([ended])


@pytest.mark.slow
def test_torchrun_restarts_continue_by_themselves(tmp_path: Path) -> None:
    """One worker is killed twice; the agent starts both anew, and they go on where the checkpoint is."""
    # Long enough that it is far from its end when a worker is killed, however late this process gets its turn.
    words = (*WORDS, "--epochs", 40)
    finish(2, *words, folder=tmp_path)
    (tmp_path / "run").rename(tmp_path / "whole")
    log = tmp_path / "log"
    restarts = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 2)
    launcher = torchrun(*restarts, "pretrain.py", *words, folder=tmp_path, log=log)
    try:
        victims = [partial(worker, launcher.pid, rank) for rank in (1, 0)]
        kill_again_and_again(victims, tmp_path / "run" / "metrics.jsonl", log, launcher)
        assert launcher.wait(300) == 0, log.read_text()
    finally:
        launcher.kill()
    assert log.read_text().count("continuing from") == 2
    assert_same_state(tmp_path / "whole" / "checkpoints" / "last.pt", tmp_path / LAST)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")
    record(
        "ranks: killed under torchrun --max-restarts 2, started again",
        "bash scripts/test.sh --all tests/reliability/test_stopping.py",
        {"ranks": 2},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_torchrun_passes_a_signal_on(name: str, tmp_path: Path) -> None:
    """Signalled like a terminal does it, agent and workers at once, so that the workers get it twice."""
    log = tmp_path / "log"
    words = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 2, "pretrain.py", *WORDS, "--epochs", 50)
    launcher = torchrun(*words, folder=tmp_path, log=log)
    wait_for(tmp_path / "run" / "metrics.jsonl", 20, launcher)
    for process in (launcher.pid, worker(launcher.pid, 0), worker(launcher.pid, 1)):
        os.kill(process, getattr(signal, name))
    assert launcher.wait(60) != 0
    assert f"stopped by {name} after step" in log.read_text()
    assert saved(tmp_path) == metrics(tmp_path / "run")[-1]["step"]


def worker(launcher: int, rank: int) -> int:
    """Return the process of a rank below torchrun's agent."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            return int(child)
    raise AssertionError(f"rank {rank} has no process")
