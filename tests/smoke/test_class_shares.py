"""What a run knows of class shares: the weights of its loss, and the probabilities that validation makes of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from tests.processes import run
from ttc.evaluation.probabilities import held_at
from ttc.metrics.clinic.calibrators import fit_calibrator
from ttc.models.pretrained import load_network
from ttc.run import checkpoint

CPU = torch.device("cpu")


def evaluate(script: str, pretrained: Path, folder: Path, *words: object) -> None:
    words = ("--checkpoint", pretrained / "checkpoints" / "last.pt", "--output", folder / "out", *words)
    result = run(script, *words, "--bootstrap", 20, folder=folder)
    assert result.code == 0, result.stderr


def split_of(folder: Path, split: str, probe: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels [N], scores [N, 2] and probabilities of class 1 [N] of predictions."""
    table = pandas.read_csv(folder / "out" / "predictions.csv").query("split == @split and probe == @probe")
    scores = table["score"].to_numpy()
    return table["label"].to_numpy(), np.stack([1 - scores, scores], axis=1), table["probability"].to_numpy()


def test_class_weights_are_those_of_the_batches(pretrained_run: Path, tmp_path: Path) -> None:
    """Batches with more rare images have corrected part of the imbalance already."""
    evaluate("finetune", pretrained_run, tmp_path, "--batch-size", 64, "--min-minority-per-batch", 16, "--epochs", 1)
    state = checkpoint.load(tmp_path / "out" / "checkpoints" / "last.pt", "finetune")
    weights_K = state["objective"]["class_weights_K"]
    rare = load_network(str(pretrained_run / "checkpoints" / "last.pt"), CPU)[1].minority_class
    assert weights_K[rare] / weights_K[1 - rare] == pytest.approx(3, rel=0.02)


def test_plain_cross_entropy_is_calibrated_from_the_shares_of_its_batches(pretrained_run: Path, tmp_path: Path) -> None:
    evaluate("finetune", pretrained_run, tmp_path, "--loss", "ce", "--calibration", "prior", "--epochs", 1)
    counts = np.array(load_network(str(pretrained_run / "checkpoints" / "last.pt"), CPU)[1].class_counts)
    labels, scores_NK, _ = split_of(tmp_path, "val", "own")
    test_labels, test_scores_NK, probabilities = split_of(tmp_path, "test", "own")
    made = {}
    for name, prior in (("batches", (counts / counts.sum()).tolist()), ("equal", None)):
        calibrator = fit_calibrator(labels, scores_NK, "prior", prior)
        assert calibrator is not None
        made[name] = calibrator(test_scores_NK, held_at(calibrator, test_labels))[:, 1]
    assert probabilities == pytest.approx(made["batches"], abs=1e-9)
    assert np.abs(made["equal"] - made["batches"]).max() > 0.01


def test_probabilities_are_calibrated_on_validation(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--probes", "all", "--layers", "encoder", "--floor", "none")
    evaluate("linear_eval", pretrained_run, tmp_path, *words)
    test_labels, test_scores_NK, probabilities = split_of(tmp_path, "test", "all")
    made = {}
    for split in ("val", "test"):
        calibrator = fit_calibrator(*split_of(tmp_path, split, "all")[:2])
        assert calibrator is not None
        made[split] = calibrator(test_scores_NK, held_at(calibrator, test_labels))[:, 1]
    assert probabilities == pytest.approx(made["val"], abs=1e-9)
    assert np.abs(made["test"] - made["val"]).max() > 1e-4
