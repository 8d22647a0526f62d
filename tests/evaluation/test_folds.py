"""Folds of a probe: what learns, what chooses and what is tested never share a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttc.evaluation.elsewhere.measure import Protocol
from ttc.evaluation.embeddings import as_run, read_features
from ttc.evaluation.evaluate import Evaluation, Probabilities, cross_validate
from ttc.evaluation.heads import Predict
from ttc.metrics.clinic.calibrators import Calibrator


@dataclass(frozen=True)
class Recorded(Evaluation):
    """Notes the rows with which a head is fitted, chosen, calibrated and tested."""

    learned: list[set[int]] = field(default_factory=list)
    chose: list[set[int]] = field(default_factory=list)
    tested: list[set[int]] = field(default_factory=list)

    def fit(self, head: str, layer: str, train_rows: Tensor, val: Tensor, seed: int) -> Predict:
        self.learned.append(set(train_rows.tolist()))
        self.chose.append(set(val.tolist()))
        return super().fit(head, layer, train_rows, val, seed)

    def measure(self, layer: str, predict: Predict, splits: Mapping[str, Tensor], **how: object) -> dict[str, object]:
        self.tested.append(set(splits["test"].tolist()))
        assert set(splits["val"].tolist()) == self.chose[-1]
        return super().measure(layer, predict, splits, **how)  # type: ignore[arg-type]  # as they came

    def calibrate(self, val: Tensor, scores: Probabilities | None, prior: Sequence[float] | None) -> Calibrator | None:
        assert set(val.tolist()) == self.chose[-1]
        return super().calibrate(val, scores, prior)


def test_no_sample_has_two_parts_in_a_fold(tmp_path: Path) -> None:
    labels = np.arange(90) % 3 == 0
    features = np.random.default_rng(0).normal(size=(90, 4)) + labels[:, None]
    np.savez(tmp_path / "f.npz", features=features, labels=np.where(labels, "rare", "usual"))
    file = read_features(tmp_path / "f.npz", "--embeddings")
    rows = torch.arange(90)
    evaluation = Recorded(
        as_run(file, 0), rows, {"encoder": file.features}, protocol="logistic", neighbours=3, votes="equal",
        measured=Protocol(1, (), (0.5,), 0, 0), num_workers=0,
    )  # fmt: skip
    cross_validate(evaluation, ["linear", "knn"], ["encoder"], folds=5, seed=0, bootstrap=0)
    assert len(evaluation.tested) == 10
    for learned, chose, tested in zip(evaluation.learned, evaluation.chose, evaluation.tested, strict=True):
        assert learned | chose | tested == set(rows.tolist())
        assert len(learned) + len(chose) + len(tested) == 90
    assert sorted(row for tested in evaluation.tested[:5] for row in tested) == rows.tolist()
