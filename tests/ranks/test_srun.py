"""Processes that srun has started without torchrun: who they are, where they meet, and what they train together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import Result, Running, free_port, run_ranks, start_ranks
from tests.smoke.runs import assert_same_weights
from ttc.distributed.launch import Task, meeting_point, task

STEP = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
WORDS = ("--method", "supproto", "--epochs", 1, "--metrics-every-epochs", 0, "--num-workers", 0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Task()),
        (STEP, Task(3, 8, 1, slurm=True)),
        ({**STEP, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "ENVIRONMENT": "BATCH"}, Task(3, 8, 1, slurm=True)),
        ({**STEP, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Task(1, 2, 1)),
        ({**STEP, "WORLD_SIZE": "1"}, Task()),
        ({**STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Task()),
        ({**STEP, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH", "SLURM_JOB_ID": "7"}, Task()),
        ({**STEP, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Task()),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, Task()),
    ],
    ids=["alone", "step", "step of a batch job", "torchrun", "torchrun of one", "one task", "batch script", "shell",
         "allocation"],
)  # fmt: skip
def test_who_a_process_is(environment: dict[str, str], expected: Task) -> None:
    assert task(environment) == expected


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[07-09,12],x1", "gpu07"),
        ("gpu[3,5]", "gpu3"),
        ("a1,b[2-3]", "a1"),
        ("rack2-n[001-128]", "rack2-n001"),
        ("gpu7", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_where_they_meet(nodes: str, host: str) -> None:
    assert meeting_point({"SLURM_STEP_NODELIST": nodes})["MASTER_ADDR"] == host
    assert meeting_point({"SLURM_JOB_NODELIST": nodes})["MASTER_ADDR"] == host


def test_steps_and_jobs_meet_at_ports_of_their_own() -> None:
    ports = {
        meeting_point({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})["MASTER_PORT"]
        for job in range(4_000_000, 4_000_100)
        for step in range(3)
    }
    assert len(ports) == 300
    assert all(1024 < int(port) < 32768 for port in ports)
    assert meeting_point({"MASTER_ADDR": "a", "MASTER_PORT": "1"}) == {"MASTER_ADDR": "a", "MASTER_PORT": "1"}


def srun(*words: object, folder: Path) -> list[Result]:
    """Start two processes with the variables that srun sets."""
    shared = {"SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    tasks = [
        Running("pretrain", *words, folder=folder, env={**shared, "SLURM_PROCID": place, "SLURM_LOCALID": place})
        for place in ("0", "1")
    ]
    return [each.wait() for each in tasks]


def test_tasks_of_srun_train_what_torchrun_trains(tmp_path: Path) -> None:
    results = srun(*WORDS, "--output", "srun", folder=tmp_path)
    assert [each.code for each in results] == [0, 0], results[0].stderr
    assert "64 on each of 2 processes" in results[0].stderr
    run_ranks(2, "pretrain", *WORDS, "--output", "torchrun", folder=tmp_path)
    assert_same_weights(tmp_path / "srun", tmp_path / "torchrun")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--epoch", "1"), 2, "unrecognized arguments"),
        (("--batch-size", "63"), 1, "--batch-size 63 cannot be divided among 2 processes"),
    ],
)
def test_one_task_says_what_is_wrong(words: tuple[str, ...], code: int, part: str, tmp_path: Path) -> None:
    results = srun(*WORDS, *words, folder=tmp_path)
    assert [each.code for each in results] == [code, code]
    lines = [line for each in results for line in each.stderr.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    assert part in lines[0]


def test_others_that_fail_with_a_task_are_silent(tmp_path: Path) -> None:
    """Rank 0 alone cannot write its files: the others learn it, or lose the connection, and leave the word to it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").touch()
    for _ in range(3):
        results = srun(*WORDS, "--output", "run", folder=tmp_path)
        assert [each.code for each in results] == [1, 1]
        lines = [line for each in results for line in each.stderr.splitlines() if "error" in line]
        assert len(lines) == 1, lines
        assert "is not empty and holds no run" in lines[0]


@pytest.mark.parametrize("device", ["cuda:99", "cuda:256", "gpu"])
def test_an_error_before_the_processes_have_joined_is_told_once(device: str, tmp_path: Path) -> None:
    words = ("--device", device)
    tasks = srun(*words, folder=tmp_path)
    ranks = [each.wait() for each in start_ranks(2, "compute_metrics", *words, "--checkpoint", "x.pt", folder=tmp_path)]
    for first, second in (tasks, ranks):
        assert (first.code, second.code, second.stderr) == (1, 1, "")
        assert re.fullmatch(rf"error \(rank 0\): --device {device}.*; use .*auto.*\n", first.stderr)
