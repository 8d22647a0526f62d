"""pretrain.py killed, stopped, damaged and continued: the end is that of an uninterrupted run."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.processes import Running, run
from tests.reliability.ranks import finish
from tests.smoke.runs import arguments, assert_same_weights, metrics, wait_for_lines
from ttc.run import checkpoint

LONG = ("--epochs", 8, "--log-every-steps", 1, "--batch-size", 64, "--metrics-every-epochs", 3)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = run("pretrain", *LONG, "--output", "run", folder=folder)
    assert done.code == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_kills_and_the_same_command_end_with_the_same_weights(seed: int, uninterrupted: Path, tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(seed)
    first, second = sorted((1 + torch.randperm(45, generator=made)[:2]).tolist())
    for step in (first, second):
        running = Running("pretrain", *LONG, "--output", "run", folder=tmp_path)
        wait_for_lines(tmp_path / "run" / "metrics.jsonl", step, running)
        running.process.kill()
        running.process.join()
    saved = (tmp_path / "run" / "checkpoints" / "last.pt").exists()
    assert saved or second <= 9
    done = run("pretrain", *LONG, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert ("continuing from" in done.stderr) == saved
    assert_same_weights(uninterrupted, tmp_path / "run")
    drop = {"seconds"}
    expected, found = metrics(uninterrupted), metrics(tmp_path / "run")
    assert [line["step"] for line in found] == [line["step"] for line in expected], f"killed at {first}, {second}"
    assert [{k: v for k, v in line.items() if k not in drop} for line in found] == [
        {k: v for k, v in line.items() if k not in drop} for line in expected
    ]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_request_to_stop_saves_at_any_step(name: str, uninterrupted: Path, tmp_path: Path) -> None:
    running = Running("pretrain", *LONG, "--output", "run", folder=tmp_path)
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 13, running)
    assert running.process.pid is not None
    os.kill(running.process.pid, getattr(signal, name))
    stopped = running.wait()
    assert stopped.code == 75, stopped.stderr
    assert f"stopped by {name}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    step = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt", "pretrain")["step"]
    assert step >= 13
    assert not (tmp_path / "run" / "result.json").exists()
    done = run("pretrain", *LONG, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert f"step {step}" in done.stderr
    assert_same_weights(uninterrupted, tmp_path / "run")


def test_a_damaged_checkpoint_is_passed_over(uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    done = run("pretrain", *LONG, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    (told,) = (line for line in done.stderr.splitlines() if "damaged" in line)
    assert "last.pt is damaged" in told
    assert "going back to run/checkpoints/previous.pt (step " in told
    assert_same_weights(uninterrupted, tmp_path / "run")
    assert metrics(uninterrupted) == metrics(tmp_path / "run")


def test_several_processes_tell_once_that_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    words = ("--epochs", 3, "--batch-size", 64, "--metrics-every-epochs", 0, "--output", "run")
    finish(2, *words, folder=tmp_path)
    (tmp_path / "run" / "result.json").unlink()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    told = "".join(each.stderr for each in finish(2, *words, folder=tmp_path))
    assert told.count("damaged") == 1, told
    assert told.count("going back to") == 1, told


def test_the_last_two_every_nth_and_the_final_checkpoint_are_kept(tmp_path: Path) -> None:
    words = ("--epochs", 5, "--batch-size", 64, "--metrics-every-epochs", 0, "--save-every-epochs", 2)
    done = run("pretrain", *words, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    folder = tmp_path / "run" / "checkpoints"
    epochs = {"last": 5, "previous": 4, "epoch_0002": 2, "epoch_0004": 4, "epoch_0005": 5}
    names = {f"{name}.pt{end}" for name in epochs for end in ("", ".sha256")}
    assert {path.name for path in folder.iterdir()} == names
    assert {name: checkpoint.load(folder / f"{name}.pt", "pretrain")["epoch"] for name in epochs} == epochs


def test_leftovers_of_a_kill_during_the_set_up_do_not_block_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "log.txt", ".args.json.123.tmp"):
        (folder / name).touch()
    done = run("pretrain", "--epochs", 0, "--output", folder, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert not list(folder.rglob("*.tmp"))


def test_a_checkpoint_of_another_run_continues_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    last = uninterrupted / "checkpoints" / "last.pt"
    refused = run("pretrain", "--epochs", 9, "--resume", last, "--output", "run", folder=tmp_path)
    assert refused.code == 1
    assert "belongs to another run" in refused.stderr.splitlines()[-1]
    moved = run("pretrain", *LONG, "--resume", last, "--output", "run2", folder=tmp_path)
    assert moved.code == 0, moved.stderr
    assert_same_weights(uninterrupted, tmp_path / "run2")
    assert (tmp_path / "run2" / "split.csv").read_bytes() == (uninterrupted / "split.csv").read_bytes()
    assert arguments(tmp_path / "run2")["epochs"] == arguments(uninterrupted)["epochs"]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    running = Running("pretrain", *LONG, "--output", "run", folder=tmp_path)
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 1, running)
    refused = run("pretrain", *LONG, "--output", "run", folder=tmp_path)
    running.process.kill()
    running.process.join()
    assert refused.code == 1
    assert "is in use by another process" in refused.stderr
