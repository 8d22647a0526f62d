"""Predictions that linear_eval.py and finetune.py wrote, read for comparisons, figures and thresholds.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttc.datasets import Dataset
from ttc.datasets.table import SPLITS
from ttc.evaluation.probabilities import columns as columns_of
from ttc.evaluation.probe import groups_of
from ttc.metrics.clinic.per_group import pool_groups
from ttc.metrics.thresholds import choose_thresholds
from ttc.run.readers import Source, numbers, read_table, wholes

if TYPE_CHECKING:
    import pandas


Floats = NDArray[np.float64]
Positive = NDArray[np.bool_]


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


@dataclass(frozen=True)
class DecisionRule:
    """How decisions come about.

    Attributes:
        threshold: one of RULES.
        pool: "mean" or "max" of the scores of a group; None decides about samples.
        group_label: when a group is positive, "any" or "all".
    """

    threshold: str
    pool: str | None
    group_label: str

    def pooled(self, positive: Positive, score: Floats, groups: list[str]) -> tuple[Positive, Floats]:
        """Return whether each group is positive, and its score."""
        assert self.pool is not None
        both = np.stack([1.0 - score, score], axis=1)
        labels, scores, _ = pool_groups(positive.astype(np.int64), both, groups, self.pool, self.group_label)
        return labels == 1, scores[:, 1]

    def on_validation(self, val: pandas.DataFrame, positive_class: int) -> float | None:
        """Return the threshold that validation chooses; None where it allows none."""
        if val.empty:
            return choose_thresholds(None)[self.threshold]
        positive, score = (val["label"] == positive_class).to_numpy(), val["score"].to_numpy(float)
        if self.pool is not None:
            positive, score = self.pooled(positive, score, val["group"].tolist())
        return choose_thresholds((positive, score))[self.threshold]

    def frozen(self, metrics: Mapping[str, object]) -> float | None:
        """Return the threshold that an evaluation on other data took over from the run."""
        if self.threshold == "half":
            return 0.5
        if self.pool is not None:
            metrics = metrics.get("per_group", {})  # type: ignore[assignment]  # a mapping in every result
            if (metrics.get("pool"), metrics.get("group_label")) != (self.pool, self.group_label):
                return None
        found = metrics["details"]["thresholds"][self.threshold]  # type: ignore[index]  # of every result
        return None if found is None else float(found)


def read_predictions_table(path: Path, within: Path | None = None) -> pandas.DataFrame:
    """Read a predictions.csv.

    Args:
        path: the file.
        within: the run folder that it was found in; None for a file that the user named.

    Returns:
        Columns id, label (int64), split, and score, or score_0 to score_K-1 for more than two classes (float64, in
        [0, 1]); perhaps probability (float64, NaN where there is no calibrator), group and probe (text).

    Raises:
        ValueError: the file is not such a table.
    """
    import pandas

    source = Source(path, "evaluate the run again in a new folder", within)
    columns = read_table(source, ("id", "label", "split"))
    scores = [name for name in columns if name == "score" or name.startswith("score_")]
    if scores != ["score"] and scores != [f"score_{label}" for label in range(max(3, len(scores)))]:
        source.refuse("lacks the column score, or score_0, score_1, ... of more than two classes")
    labels = wholes(source, columns["label"], "label", 0, max(1, len(scores) - 1))
    if strange := set(columns["split"]) - set(SPLITS):
        source.refuse(f"holds {min(strange)!r}, which is no split", "column split")
    # A probability can exceed 1 in its last digit.
    converted = {name: numbers(source, columns[name], name, 0, 1 + 1e-9) for name in scores}
    if "probability" in columns:
        converted["probability"] = numbers(source, columns["probability"], "probability", 0, 1 + 1e-9, empty=np.nan)
    return pandas.DataFrame({**columns, "label": labels, **converted})


def read_predictions(
    path: Path, probe: str, positive_class: int, split: str = "test", within: Path | None = None
) -> Predictions | None:
    """Read the predictions of a probe; None if there are none, or for more than two classes.

    Raises:
        ValueError: the file is not a table of predictions, or there is no such class.
    """
    table = read_predictions_table(path, within)
    if "score" not in table or "probe" not in table:
        return None
    if positive_class not in (0, 1):
        raise ValueError(f"{path} has the classes 0 and 1, not {positive_class}; evaluate the run again")
    rows = table[(table["split"] == split) & (table["probe"] == probe)]
    if rows.empty:
        return None
    groups = rows["group"].tolist() if "group" in table else []
    labels_N = (rows["label"] == positive_class).to_numpy(np.int64)
    return Predictions(labels_N, rows["score"].to_numpy(np.float64), groups if any(groups) else None)


def prediction_table(
    dataset: Dataset,
    probe: str,
    split: str,
    rows: Tensor,
    scores: NDArray[np.float64],
    positive_class: int,
    probabilities: NDArray[np.float64] | None = None,
) -> pandas.DataFrame:
    """Return the predictions of one split by sample id.

    Args:
        dataset: the data.
        probe: name of the probe.
        split: name of the split.
        rows: [N] int64.
        scores: [N, K] class probabilities.
        positive_class: whose probability is the score; K > 2 classes have one score column each.
        probabilities: [N, K] of a calibrator; None leaves their columns empty.
    """
    import pandas

    calibrated = np.full_like(scores, np.nan) if probabilities is None else probabilities
    return pandas.DataFrame(
        {
            "id": [dataset.ids[row] for row in rows.tolist()],
            "label": dataset.labels[rows].numpy(),
            **columns_of("score", scores, positive_class),
            **columns_of("probability", calibrated, positive_class),
            "split": split,
            "group": groups_of(dataset, rows) or "",
            "probe": probe,
        }
    )
