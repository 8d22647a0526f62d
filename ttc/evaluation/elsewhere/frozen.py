"""A head with its calibrator and predictions; scores of files of features and of tables.

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttc.datasets.checks.doubts import check_groups
from ttc.evaluation.elsewhere.measure import Scored
from ttc.evaluation.embeddings import FeatureFile, read_features
from ttc.evaluation.heads import Predict
from ttc.evaluation.probabilities import deploy_shares
from ttc.evaluation.probe import FittedProbe
from ttc.metrics.clinic.calibrators import Calibrator
from ttc.models.description import Description
from ttc.run.csv_file import read_table

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrozenHead:
    """A head, and what was fitted or predicted with it.

    Attributes:
        name: in tables and results.
        source: the file that it comes from.
        probe: its name there.
        predict: from features to class probabilities; None for scores without a model.
        calibrator: fitted on validation, or None.
        read_kept: reads `kept`.
        class_names: in label order.
        positive_class: whose probability is the score.
        description: of the run; None where only features are known.
        encoder_sha256: of the network, or "".
        natural_counts: samples per class of the source data; None where they are not known.
    """

    name: str
    source: str
    probe: str
    predict: Predict | None
    calibrator: Calibrator | None
    read_kept: Callable[[], Mapping[str, Scored]]
    class_names: list[str]
    positive_class: int
    description: Description | None = None
    encoder_sha256: str = ""
    natural_counts: Sequence[int] | None = None

    @cached_property
    def kept(self) -> Mapping[str, Scored]:
        """The scores of the run's own samples by split, "val" and "test", where they are on disk."""
        return self.read_kept()

    def held(self, prevalence: float | None) -> tuple[tuple[float, ...], str] | None:
        """Return the class shares at which probabilities hold, and where they come from; None without a calibrator."""
        if self.calibrator is None:
            return None
        return deploy_shares(self.natural_counts, self.calibrator, prevalence, self.positive_class)

    def scores(self, features: Tensor) -> Probabilities:
        """Return the raw class probabilities [N, K] of features [N, F]."""
        assert self.predict is not None
        scores = self.predict(features)
        if not np.isfinite(scores).all():
            raise ValueError(f"{self.source}: some scores are not finite; use another checkpoint")
        return np.asarray(scores)


OUTSIDE = FrozenHead("scores", "--scores", "scores", None, None, dict, ["0", "1"], 1)
"""Stands for the model behind a table of scores."""


def features_for(head: FrozenHead, path: Path, *, labelled: bool = True) -> FeatureFile:
    """Read a file of features; refuse one that the head was not fitted for."""
    file = read_features(path, "--embeddings", labelled=labelled)
    made_by = file.about.get("encoder_sha256")
    if made_by is not None and head.encoder_sha256 and made_by != head.encoder_sha256:
        raise ValueError(
            f"--embeddings {path} are features of another encoder than --head {head.source}'s; export them again"
        )
    width = len(head.predict.mean) if isinstance(head.predict, FittedProbe) else file.features.shape[1]
    if width != file.features.shape[1]:
        raise ValueError(
            f"--embeddings {path} has {file.features.shape[1]} features, --head {head.source} takes {width}; give "
            "features of the encoder that the head was fitted on"
        )
    return file


def on_features(
    head: FrozenHead,
    path: Path,
    settings: None,
    class_map: Mapping[str, str],
    split: str | None,
    columns: Sequence[str],
    num_workers: int,
) -> tuple[Scored, dict[str, list[str]]]:
    """Score the features of an .npz file; takes the arguments of `Apply`."""
    del settings, num_workers
    file = features_for(head, path)
    assert file.labels is not None
    label_of: dict[str, int | None] = {}
    for name in file.class_names:
        target = class_map.get(name, name)
        if target and target not in head.class_names:
            raise ValueError(
                f"--embeddings {path}: the class {name!r} is none of the head's ({', '.join(head.class_names)}); write "
                f"--class-map '{name}=NAME', or '{name}=' to leave it out"
            )
        label_of[name] = head.class_names.index(target) if target else None
    mapped = [label_of[file.class_names[label]] for label in file.labels.tolist()]
    rows = [
        row
        for row, label in enumerate(mapped)
        if label is not None and (split is None or file.splits is None or file.splits[row] == split)
    ]
    labels = np.array([mapped[row] for row in rows], dtype=np.int64)
    if len(np.unique(labels)) < 2:
        raise ValueError(f"--embeddings {path} has samples of one class only; an evaluation needs both classes")
    groups = None if file.groups is None else [file.groups[row] for row in rows]
    check_groups(groups, f"--embeddings {path}")
    samples = Scored(labels, head.scores(file.features[rows]), groups, [file.ids[row] for row in rows])
    return samples, {name: [file.column(name)[row] for row in rows] for name in columns}


def read_scores(path: Path, columns: Sequence[str]) -> tuple[Scored, dict[str, list[str]]]:
    """Read a table of scores of any model: id, label (0 or 1), score in [0, 1] and perhaps group.

    Args:
        path: the CSV file.
        columns: further columns, for subgroups.
    """
    table = read_table(path, "--scores", ["id", "label", "score", *columns])
    numbers: list[list[float]] = []
    for name in ("label", "score"):
        cells = table.filled(name)
        for row, cell in enumerate(cells):
            try:
                value = float(cell)
            except ValueError:
                value = np.nan
            if not (value in (0.0, 1.0) if name == "label" else 0.0 <= value <= 1.0):
                allowed = "0 or 1" if name == "label" else "a number in [0, 1]"
                raise ValueError(f"{table.where(row)}: the {name} {cell[:40]!r} must be {allowed}")
        numbers.append([float(cell) for cell in cells])
    labels, scores = np.array(numbers[0], dtype=np.int64), np.array(numbers[1])
    if len(np.unique(labels)) < 2:
        raise ValueError(f"--scores {path} has samples of one class only; an evaluation needs both classes")
    ids = table.filled("id")
    if len(set(ids)) < len(ids):
        raise ValueError(f"--scores {path}: the id {next(i for i in ids if ids.count(i) > 1)!r} occurs twice; keep one")
    groups = table.filled("group") if any(table.columns.get("group", ())) else None
    check_groups(groups, table.place)
    return Scored(labels, np.stack([1.0 - scores, scores], axis=1), groups, ids), {n: table.columns[n] for n in columns}
