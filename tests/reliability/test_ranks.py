"""One rank fails: all ranks end within a minute, and only the guilty one says why."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.processes import Result, Running
from tests.reliability.data import image_folder
from tests.reliability.figures import record
from tests.reliability.ranks import agent, message, ranks, start_rank, torchrun, wait_for
from ttc.run import checkpoint

WORDS = ("--epochs", 200, "--log-every-steps", 1, "--batch-size", 16, "--metrics-every-epochs", 0, "--output", "run")
LOG = Path("run", "metrics.jsonl")


def end_of_all(running: list[Running], error: str) -> list[Result]:
    """Return how all ranks ended after an error; they have to do so within a minute."""
    began = time.monotonic()
    results = [each.wait(60) for each in running]
    seconds = time.monotonic() - began
    assert seconds < 60
    figures = {"ranks": len(running), "seconds until all had ended": round(seconds, 1)}
    record(f"ranks: {error}", "bash scripts/test.sh --all tests/reliability/test_ranks.py", figures)
    return results


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image(workers: int, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, "--num-workers", workers)
    with ranks(2, *WORDS, *words, folder=tmp_path) as running:
        wait_for(tmp_path / LOG, 8, running[0])
        bad = root / "train" / "even" / "003.png"
        bad.write_bytes(bad.read_bytes()[:60])
        ended = end_of_all(running, f"a bad image, {workers} workers")
    assert [each.code for each in ended] == [1, 1]
    assert "003.png" in message(ended)
    assert "(rank " in message(ended)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints", "pretrain") is not None


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    with ranks(2, *WORDS, "--lr", 1e30, "--method", "ce", folder=tmp_path) as running:
        ended = end_of_all(running, "a loss that is no number")
    assert [each.code for each in ended] == [1, 1]
    assert "is not a finite number; see run/bad_step.json" in message(ended)
    assert (tmp_path / "run" / "bad_step.json").is_file()


@pytest.mark.parametrize("guilty", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_no_memory(guilty: int, tmp_path: Path) -> None:
    words = (*WORDS, "--batch-size", 512, "--encoder", "convnet-w64")
    with ranks(2, *words, folder=tmp_path) as running:
        wait_for(tmp_path / LOG, 2, running[0])
        pid = running[guilty].process.pid
        assert pid is not None
        # A little above what the process has, so that small pieces are granted and large ones refused from now on.
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**22, resource.RLIM_INFINITY))
        ended = end_of_all(running, f"no memory on rank {guilty}")
    assert [each.code for each in ended] == [1, 1], ended[guilty].stderr
    assert f"error (rank {guilty}): out of memory; lower --batch-size" in message(ended)


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_killed_rank(guilty: int, tmp_path: Path) -> None:
    with ranks(3, *WORDS, "--batch-size", 48, folder=tmp_path) as running:
        wait_for(tmp_path / LOG, 5, running[0])
        running[guilty].process.kill()
        ended = end_of_all(running, f"rank {guilty} killed")
    assert sorted(each.code for each in ended) == [-signal.SIGKILL, 1, 1]
    assert "another process of the run has gone or does not answer" in message(ended)


@pytest.mark.long
def test_a_rank_that_hangs(tmp_path: Path) -> None:
    with ranks(2, *WORDS, "--timeout-minutes", 0.1, folder=tmp_path) as running:
        wait_for(tmp_path / LOG, 5, running[0])
        assert running[1].process.pid is not None
        os.kill(running[1].process.pid, signal.SIGSTOP)
        ended = running[0].wait()
    assert ended.code == 1
    assert "another process of the run has gone or does not answer" in message([ended])


@pytest.mark.parametrize("there", [0, 1])
def test_a_rank_that_never_comes(there: int, tmp_path: Path) -> None:
    with agent(2) as env:
        ended = start_rank(there, env, *WORDS, "--timeout-minutes", 0.05, folder=tmp_path).wait()
    assert ended.code == 1
    told = message([ended])
    assert f"error (rank {there}): another process of the run has gone or does not answer" in told
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    words = (*WORDS, "--batch-size", 64)  # a checkpoint every eleven steps
    with ranks(2, *words, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "checkpoints" / "previous.pt.sha256", 1, running[0])
        pid = running[0].process.pid
        assert pid is not None
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        ended = end_of_all(running, "a checkpoint that cannot be written")
    assert [each.code for each in ended] == [1, 1]
    assert "error (rank 0):" in message(ended)
    assert "could not be written (File too large); free space there" in message(ended)
    step = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt", "pretrain")["step"]
    with ranks(2, *words, folder=tmp_path) as running:
        wait_for(tmp_path / LOG, step + 3, running[0])


def test_wrong_usage_is_told_once(tmp_path: Path) -> None:
    for words, code in ((("--epoch", 3), 2), (("--classes", "0,1", "77"), 1)):
        with ranks(2, *words, folder=tmp_path) as running:
            ended = end_of_all(running, f"wrong usage, exit code {code}")
        assert [each.code for each in ended] == [code, code]
        assert sum(len(each.stderr.splitlines()) for each in ended) == 1, ended


@pytest.mark.slow
def test_under_torchrun(tmp_path: Path) -> None:
    root, log = image_folder(tmp_path / "images"), tmp_path / "log"
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16)
    agent = torchrun("--standalone", "--nproc-per-node", 2, "pretrain.py", *WORDS, *words, folder=tmp_path, log=log)
    wait_for(tmp_path / LOG, 8, agent)
    bad = root / "train" / "odd" / "003.png"
    bad.write_bytes(bad.read_bytes()[:60])
    began = time.monotonic()
    assert agent.wait(60) == 1
    assert time.monotonic() - began < 60
    errors = [line for line in log.read_text().splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "003.png" in errors[0]
