"""pretrain.py with --micro-batch-size: interrupted, with every option of the loop, and refused where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import ROOT, Running, run
from tests.smoke.runs import assert_same_weights, metrics, wait_for_lines, weights

WORDS = ("--batch-size", 64, "--micro-batch-size", 16, "--metrics-every-epochs", 0)
LONG = (*WORDS, "--epochs", 6, "--log-every-steps", 1, "--method", "supmin", "--ce-weight", 0.5)


@pytest.mark.long
def test_a_stopped_run_continues_bit_by_bit(tmp_path: Path) -> None:
    whole = run("pretrain", *LONG, "--output", "whole", folder=tmp_path)
    assert whole.code == 0, whole.stderr
    assert "micro-batches of 16" in whole.stderr
    running = Running("pretrain", *LONG, "--output", "run", folder=tmp_path)
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 11, running)
    assert running.process.pid is not None
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.wait().code == 75
    refused = run("pretrain", *LONG, "--micro-batch-size", 32, "--output", "run", folder=tmp_path)
    assert refused.code == 1
    assert "--micro-batch-size (16 there, 32 now)" in refused.stderr
    done = run("pretrain", *LONG, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    assert [line["train/loss"] for line in metrics(tmp_path / "whole")] == [
        line["train/loss"] for line in metrics(tmp_path / "run")
    ]


VARIANTS = {
    "paco in bf16": ("--method", "paco", "--precision", "bf16"),
    "bcl clipped, with cutmix": ("--method", "bcl", "--clip-gradient-norm", 0.1, "--minority-cutmix", 0.4),
    "ce": ("--method", "ce"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train(name: str, tmp_path: Path) -> None:
    done = run("pretrain", *VARIANTS[name], *WORDS, "--epochs", 1, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    counted = [int(value) for key, value in state["encoder"].items() if key.endswith("num_batches_tracked")]
    assert counted == [state["step"]] * len(counted)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    done = run("pretrain", *WORDS, "--lr", 1e30, "--epochs", 3, "--output", "run", folder=tmp_path)
    assert done.code == 1
    assert "is not a finite number" in done.stderr.splitlines()[-1]
    assert (tmp_path / "run" / "bad_step.json").is_file()


@pytest.mark.parametrize(("size", "instead"), [(30, 16), (48, 32), (3, 2)])
def test_unequal_pieces_are_refused(size: int, instead: int, tmp_path: Path) -> None:
    refused = run("pretrain", *WORDS, "--micro-batch-size", size, "--output", "run", folder=tmp_path)
    assert refused.code == 1
    assert f"--micro-batch-size {size} does not divide --batch-size 64" in refused.stderr
    assert refused.stderr.rstrip().endswith(f"use {instead}")


@pytest.mark.slow
def test_a_batch_of_8192_trains_within_two_gibibytes(tmp_path: Path) -> None:
    """Peak resident memory of a process of its own, everything included: interpreter, torch, data, training."""
    words = ["@scripts/recipes/fashion-mix5-50.args", "--train-samples", "20000", "--image-size", "28"]
    words += ["--batch-size", "8192", "--micro-batch-size", "256", "--epochs", "1", "--method", "supcon"]
    words += ["--metrics-every-epochs", "0", "--log-every-steps", "1", "--output", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "pretrain.py", *words], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    text = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, text
    assert "batch 8192 in all" in text
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]
    assert usage.ru_maxrss < 2 * 2**20, f"{usage.ru_maxrss / 2**10:.0f} MiB"
