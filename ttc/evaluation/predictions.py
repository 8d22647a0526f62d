"""Predictions that linear_eval.py and finetune.py wrote, read for figures and thresholds.

Shape suffix: N samples.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Scores of one split.

    Attributes:
        labels_N: 1 for the positive class, else 0.
        scores_N: probability of the positive class.
        groups: group (patient, site) of each sample, or None where the data have no groups.
    """

    labels_N: NDArray[np.int64]
    scores_N: NDArray[np.float64]
    groups: list[str] | None = None


def read_predictions(path: Path, probe: str, positive_class: int, split: str = "test") -> Predictions | None:
    """Read the predictions of a probe; None if there are none, or for more than two classes."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split and row["probe"] == probe]
    if not rows or "score" not in rows[0]:
        return None
    labels_N = np.array([int(row["label"]) == positive_class for row in rows], dtype=np.int64)
    groups = [row.get("group", "") for row in rows]
    return Predictions(labels_N, np.array([float(row["score"]) for row in rows]), groups if any(groups) else None)
