"""Tables of predictions for samples without labels: a line per sample, and a line per group.

Shape suffixes: N samples, G groups, K classes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttc.datasets.checks.doubts import check_groups
from ttc.evaluation.elsewhere.frozen import FrozenHead
from ttc.evaluation.elsewhere.measure import Protocol, Scored, validation_groups
from ttc.evaluation.probabilities import columns as columns_of
from ttc.metrics.clinic.calibrators import Calibrator, binary
from ttc.metrics.thresholds import choose_thresholds
from ttc.run.csv_file import read_table
from ttc.run.escape import counted
from ttc.run.npz import array_names, read_arrays

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("ttc")

Floats = NDArray[np.float64]
Columns = Mapping[str, Sequence[str | int]]
"""Name -> cell of each line."""


def read_columns(path: Path, flag: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Read columns of a table of images, or arrays beside the images of an .npz file.

    Args:
        path: what --images names.
        flag: what asks for the columns, for messages.
        names: of the columns.

    Raises:
        ValueError: there is no such column, or a folder has none at all.
    """
    if path.is_dir():
        raise ValueError(f"{flag}: --images {path} is a folder, which has no columns; give a table of the images")
    if path.suffix != ".npz":
        table = read_table(path, "--images", names, f"{flag} names columns of the table")
        return {name: table.columns[name] for name in names}
    stored = array_names(path)
    if missing := [name for name in names if name not in stored]:
        raise ValueError(f"{flag} {missing[0]}: --images {path} has {', '.join(sorted(stored))}")
    return {
        name: [str(cell) for cell in array.reshape(-1).tolist()]
        for name, array in zip(names, read_arrays(path, list(names)), strict=True)
    }


def read_groups(path: Path, column: str | None) -> list[str]:
    """Read the group of each image: the named column, else `group` of a table, `group` or `groups` of an .npz file.

    Raises:
        ValueError: there is no such column, a cell is empty, or one group seems to be in two spellings.
    """
    if column is None:
        stored = array_names(path) if path.suffix == ".npz" and path.is_file() else {"group"}
        column = "groups" if "groups" in stored and "group" not in stored else "group"
    cells = read_columns(path, "--group-column", [column])[column]
    if "" in cells:
        raise ValueError(f"--images {path}: an entry of {column!r} is empty; name the group of every image")
    check_groups(cells, f"--images {path}")
    return cells


@dataclass(frozen=True, eq=False)
class Decision:
    """How scores become probabilities and labels.

    Attributes:
        class_names: K names.
        positive_class: of two classes.
        threshold: score from which on it is predicted.
        calibrator: None leaves probabilities empty.
        shares: share of each class at which they hold.
    """

    class_names: list[str]
    positive_class: int
    threshold: float
    calibrator: Calibrator | None
    shares: Sequence[float] | None

    def table(self, key: str, names: Sequence[str], scores_NK: Floats, further: Columns) -> pandas.DataFrame:
        """Lay out predictions; rows whose scores are NaN are empty, and so are probabilities without a calibrator.

        Args:
            key: name of the first column.
            names: [N] its cells.
            scores_NK: [N, K].
            further: columns that follow.
        """
        import pandas

        known_N = ~np.isnan(scores_NK[:, 0])
        probabilities_NK = np.full_like(scores_NK, np.nan)
        if self.calibrator is not None:
            probabilities_NK[known_N] = self.calibrator(scores_NK[known_N], self.shares)
        if len(self.class_names) == 2:
            called_N = scores_NK[:, self.positive_class] >= self.threshold
            labels_N = np.where(called_N, self.positive_class, 1 - self.positive_class)
        else:
            labels_N = np.nan_to_num(scores_NK, nan=-1.0).argmax(axis=1)
        prevalence = None if self.calibrator is None or self.shares is None else self.shares[self.positive_class]
        return pandas.DataFrame(
            {
                key: list(names),
                **columns_of("score", scores_NK, self.positive_class),
                **columns_of("probability", probabilities_NK, self.positive_class),
                "prevalence": [prevalence if known else None for known in known_N],
                "prediction": [str(label) if known else "" for label, known in zip(labels_N, known_N, strict=True)],
                "class": [
                    self.class_names[label] if known else "" for label, known in zip(labels_N, known_N, strict=True)
                ],
                **further,
            }
        )


def threshold_of(limit: float | str, validation: Scored | None, head: FrozenHead, unit: str) -> float:
    """Return a threshold: the number, or what a rule chooses on validation.

    Args:
        limit: of --threshold.
        validation: scores of validation, of samples or of groups; None without any.
        head: whose they are.
        unit: what is scored, for the log.

    Raises:
        ValueError: the rule has nothing to choose on.
    """
    if not isinstance(limit, str):
        return limit
    chosen = None
    if validation is not None and len(head.class_names) == 2:
        positive = head.positive_class
        chosen = choose_thresholds((validation.labels_N == positive, validation.scores_NK[:, positive]))[limit]
    if chosen is None:
        raise ValueError(
            f"--threshold {limit}: there are no validation scores of {unit} beside {head.source} to choose on; give a "
            "number"
        )
    log.info("threshold of %s: %.4f, by the rule %s on validation", unit, chosen, limit)
    return chosen


def decide_samples(head: FrozenHead, limit: float | str, prevalence: float | None) -> Decision:
    """Return how single samples are decided; see `decide_groups`."""
    held = head.held(prevalence)
    if held is None and prevalence is not None:
        raise ValueError(f"--deploy-prevalence {prevalence:g}: this head has no probabilities; leave it out")
    shares, source = held or (None, "")
    if shares is not None:
        log.info("probability: holds where %.4g %% are positive, by %s", 100 * shares[head.positive_class], source)
    threshold = threshold_of(limit, head.kept.get("val") if isinstance(limit, str) else None, head, "samples")
    return Decision(head.class_names, head.positive_class, threshold, head.calibrator, shares)


def decide_groups(head: FrozenHead, limit: float | str, prevalence: float | None, protocol: Protocol) -> Decision:
    """Return how groups are decided.

    Args:
        head: of single samples, with the predictions that it made on validation.
        limit: of --threshold: a number, or the rule that chooses it on the groups of validation.
        prevalence: of positive groups, from --deploy-prevalence; None for that of validation's groups.
        protocol: with `per_group`.
    """
    positive = head.positive_class
    validation, calibrator = validation_groups(head.kept.get("val"), protocol, head.calibrator)
    shares: Sequence[float] | None = None
    if calibrator is not None:
        shares = calibrator.prevalence if prevalence is None else binary(prevalence, positive)
        source = "validation" if prevalence is None else "--deploy-prevalence"
        log.info("probability of groups: holds where %.4g %% are positive, by %s", 100 * shares[positive], source)
    elif head.calibrator is not None:
        log.warning("no validation scores with groups beside %s: probability of groups is left empty", head.source)
    threshold = threshold_of(limit, validation, head, "groups")
    return Decision(head.class_names, positive, threshold, calibrator, shares)


def group_table(
    decision: Decision, groups: Sequence[str], scores_NK: Floats, further: Columns, protocol: Protocol
) -> pandas.DataFrame:
    """Return one line per group, in the order of their first samples.

    Args:
        decision: for groups.
        groups: [N].
        scores_NK: [N, K] of the samples; those whose scores are NaN do not count.
        further: columns of the samples; a group has all its values, joined by "+".
        protocol: with `per_group`.
    """
    known = np.flatnonzero(~np.isnan(scores_NK[:, 0])).tolist()
    scored = [groups[row] for row in known]
    pooled = Scored(np.zeros(len(known), np.int64), scores_NK[known], scored, scored).per_group(*protocol.pooling)
    place = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    scores_GK = np.full((len(place), scores_NK.shape[1]), np.nan)
    scores_GK[[place[name] for name in pooled.ids]] = pooled.scores_NK
    counts = Counter(scored)
    values: dict[str, list[set[str | int]]] = {column: [set() for _ in place] for column in further}
    for column, cells in further.items():
        for group, cell in zip(groups, cells, strict=True):
            values[column][place[group]].add(cell)
    joined = {column: ["+".join(sorted(map(str, cells))) for cells in sets] for column, sets in values.items()}
    return decision.table("group", list(place), scores_GK, {"images": [counts[name] for name in place], **joined})


def describe_subgroups(table: pandas.DataFrame, columns: Sequence[str], decision: Decision) -> list[str]:
    """Return a line per value of each column: how many samples, how many are called positive, the mean probability."""
    positive = decision.class_names[decision.positive_class]
    lines = []
    for column in columns:
        for value, part in table[table["class"] != ""].groupby(column):
            called = int((part["class"] == positive).sum())
            size = counted(len(part), "sample")
            words = f"{column} = {value or '(empty)'}: {size}, {called} of them predicted as {positive!r}"
            if "probability" in part and part["probability"].notna().any():
                words += f", mean probability {part['probability'].mean():.3f}"
            lines.append(words)
    return lines
