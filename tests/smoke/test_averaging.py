"""Runs with averaged weights: what is watched, validated and kept as best.pt are the averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.processes import run
from tests.smoke.runs import metrics
from ttc.models.pretrained import load_pretrained, predict_shared, stored_objective
from ttc.run import checkpoint
from ttc.training.monitor import CollapseWatch

CPU = torch.device("cpu")


def test_the_watch_and_the_start_of_another_run_have_the_averages(tmp_path: Path) -> None:
    words = ("--epochs", 2, "--ema-decay", 0.99, "--metrics-every-epochs", 2, "--output", "run")
    done = run("pretrain", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "evaluated: the exponential average of the weights, of decay 0.99, not the last weights" in done.stderr
    last = str(tmp_path / "run" / "checkpoints" / "last.pt")
    loaded = load_pretrained(last, None, 0, CPU)
    values = CollapseWatch(loaded.network, loaded.dataset, loaded.views).measure(2, {})
    (logged,) = (line for line in metrics(tmp_path / "run") if "watch/probe_auroc" in line)
    for name in ("watch/probe_auroc", "watch/mean_cosine", "watch/effective_rank"):
        assert logged[name] == pytest.approx(values[name], rel=1e-4), name
    started = run("pretrain", "--epochs", 0, "--weights", last, "--output", "next", folder=tmp_path)
    assert started.code == 0, started.stderr
    first = checkpoint.load(tmp_path / "next" / "checkpoints" / "last.pt", "pretrain")
    state = checkpoint.load(Path(last), "pretrain")
    for name, value in state["encoder"].items():
        assert torch.equal(first["encoder"][name], value), name
    assert not torch.equal(state["raw"]["encoder"]["layers.0.weight"], state["encoder"]["layers.0.weight"])


def test_fine_tuning_validates_and_keeps_the_averages(pretrained_run: Path, tmp_path: Path) -> None:
    start = pretrained_run / "checkpoints" / "last.pt"
    words = ("--checkpoint", start, "--epochs", 2, "--save-every-epochs", 1, "--average-from", 0.2, "--bootstrap", 0)
    done = run("finetune", *words, "--output", "out", folder=tmp_path)
    assert done.code == 0, done.stderr
    folder = tmp_path / "out" / "checkpoints"
    best = checkpoint.load(folder / "best.pt", "finetune")
    epoch = checkpoint.load(folder / f"epoch_{best['latest']['val/best_epoch']:04.0f}.pt", "finetune")
    assert "raw" not in best
    for part in ("encoder", "objective"):
        assert all(torch.equal(value, best[part][name]) for name, value in epoch[part].items() if _is_tensor(value))
    assert not torch.equal(epoch["raw"]["objective"]["head.weight"], epoch["objective"]["head.weight"])
    loaded = load_pretrained(str(folder / "best.pt"), None, 0, CPU, kind="finetune")
    rows = loaded.dataset.indices("val")
    scores = predict_shared(loaded.network, stored_objective(loaded), loaded, rows, 0)
    nll = -np.log(scores[np.arange(len(rows)), loaded.dataset.labels[rows].numpy()]).mean()
    lines = [line for line in metrics(tmp_path / "out") if "val/loss" in line]
    assert lines[int(best["latest"]["val/best_epoch"]) - 1]["val/loss"] == pytest.approx(nll, rel=1e-5)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


@pytest.mark.parametrize("words", [("pretrain",), ("finetune", "--checkpoint", "last.pt")], ids=lambda words: words[0])
def test_two_averages_are_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*words, "--ema-decay", 0.9, "--average-from", 0.5, folder=tmp_path)
    assert done.code == 2
    assert done.stderr.strip() == (
        f"{words[0]}.py: error: --ema-decay 0.9 and --average-from 0.5 are two averages of the weights; leave one out"
    )
