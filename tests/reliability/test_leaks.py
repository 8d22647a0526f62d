"""Long runs do not grow: memory, open files, threads, worker processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.processes import HANGS, Running
from tests.reliability.data import image_folder
from tests.reliability.figures import record
from tests.reliability.ranks import ranks, wait_for
from tests.smoke.runs import metrics

STEPS = 2000
WORDS = ("--batch-size", 16, "--log-every-steps", 10, "--save-every-epochs", 1000, "--output", "run")


def usage(pid: int) -> dict[str, int]:
    """Return resident memory in MiB, open files, threads and child processes of a process."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return {
        "MiB": int(status["VmRSS"].split()[0]) // 1024,
        "files": len(list((proc / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "children": len((proc / "task" / str(pid) / "children").read_text().split()),
    }


def at_step(step: int, log: Path, running: Running) -> dict[str, int]:
    """Return the most that a process uses over some samples after a step."""
    assert running.process.pid is not None
    while not log.exists() or not log.read_text().strip() or metrics(log.parent)[-1]["step"] < step:
        assert running.process.exitcode is None, running.wait().stderr
        time.sleep(0.05)
    samples = []
    for _ in range(20):
        samples.append(usage(running.process.pid))
        time.sleep(0.05)
    return {key: max(sample[key] for sample in samples) for key in samples[0]}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_thousand_steps_leave_nothing_behind(workers: int, tmp_path: Path) -> None:
    """96 images in batches of 16 are 6 steps an epoch: 333 epochs, so many starts of the workers and checkpoints."""
    root = image_folder(tmp_path / "images")
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, "--num-workers", workers)
    run = ("--method", "paco", "--epochs", STEPS // 6 + 500, "--metrics-every-epochs", 3)  # it is killed before its end
    with ranks(1, *WORDS, *words, *run, folder=tmp_path) as running:
        log = tmp_path / "run" / "metrics.jsonl"
        early, late = at_step(300, log, running[0]), at_step(STEPS, log, running[0])
    assert late["MiB"] <= early["MiB"] + 8, (early, late)
    assert late["files"] <= early["files"] + 2 * workers, (early, late)
    assert late["threads"] <= early["threads"] + 2 * workers, (early, late)
    assert late["children"] <= max(workers, early["children"]), (early, late)
    record(
        f"leaks: {workers} workers",
        "bash scripts/test.sh --all tests/reliability/test_leaks.py",
        {
            "steps": STEPS,
            **{f"{key} at step 300": value for key, value in early.items()},
            **{f"{key} at step {STEPS}": value for key, value in late.items()},
        },
    )


def test_workers_of_a_killed_run_end_by_themselves(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, "--num-workers", 2, "--epochs", 500)
    with ranks(1, *WORDS, *words, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 3, running[0])
        pid, children = running[0].process.pid, ""
        assert pid is not None
        give_up = time.monotonic() + HANGS
        while not children:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            assert time.monotonic() < give_up
        running[0].process.kill()
        running[0].process.join()
        # The next start need not wait for them.
        with ranks(1, *WORDS, *words, folder=tmp_path) as again:
            wait_for(tmp_path / "run" / "metrics.jsonl", 6, again[0])
    give_up = time.monotonic() + HANGS
    while any(Path(f"/proc/{child}").exists() for child in children.split()):
        assert time.monotonic() < give_up, "a worker outlives its run"
        time.sleep(0.2)
