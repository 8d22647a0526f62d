"""Cross-validation: folds of a probe, and the predictions of runs that are folds of one experiment as one test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttc.evaluation.predictions import read_predictions_table
from ttc.metrics.clinic.pooled import pooled_metrics
from ttc.metrics.thresholds import choose_thresholds
from ttc.run.readers import Source, read_table

if TYPE_CHECKING:
    import pandas


def stratified_folds(
    labels_N: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Divide samples into folds with the same class shares, as far as whole groups allow.

    Args:
        labels_N: [N] classes.
        groups: group (patient, site) of each sample, which never has samples in two folds; None without groups.
        folds: number of folds, at least 3: one to test, one to choose with, the others to learn from.
        seed: of the draw.

    Returns:
        [N] the fold that tests each sample, 0 .. folds - 1.

    Raises:
        ValueError: a fold would lack a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units_N = np.arange(len(labels_N)) if groups is None else np.asarray(groups)
    for label in np.unique(labels_N).tolist():
        units = len(np.unique(units_N[labels_N == label]))
        if units < folds:
            kind = "samples" if groups is None else "groups"
            raise ValueError(f"--folds {folds}: class {label} has {units} {kind}, so a fold would lack it; lower it")
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    fold_N = np.full(len(labels_N), -1)
    with warnings.catch_warnings():
        # It warns when groups cannot be balanced; what matters here is checked below.
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, tested) in enumerate(splitter.split(labels_N, labels_N, units_N)):
            fold_N[tested] = fold
    for fold in range(folds):
        if len(np.unique(labels_N[fold_N == fold])) < len(np.unique(labels_N)):
            raise ValueError(
                f"--folds {folds}: the groups cannot be divided so that every fold has all classes; lower it"
            )
    return fold_N


def check_folds(experiment: str, runs: Mapping[str, Path]) -> None:
    """Refuse folds that are not the parts of one whole.

    Args:
        experiment: what they are folds of, for the message.
        runs: "I/K" -> run folder, whose split.csv names all samples.

    Raises:
        ValueError: a fold is missing, the folds are of different data, or two of them tested one sample.
    """
    count = int(next(iter(runs)).partition("/")[2])
    missing = [f"{number}/{count}" for number in range(1, count + 1) if f"{number}/{count}" not in runs]
    if missing:
        raise ValueError(
            f"{experiment}: fold {', '.join(missing)} is missing; give all {count} runs, or --allow-missing to show '-'"
        )
    tested: dict[str, Path] = {}
    first, known = next(iter(runs.values())), set[str]()
    for path in runs.values():
        columns = read_table(Source(path / "split.csv", "pretrain the run again", path), ("id", "split"))
        known = known or set(columns["id"])
        if differ := known.symmetric_difference(columns["id"]):
            raise ValueError(
                f"{first} and {path} are folds of different data: {min(differ)} is in one only; pretrain them again"
            )
        for name, split in zip(columns["id"], columns["split"], strict=True):
            if split == "test" and tested.setdefault(name, path) != path:
                raise ValueError(
                    f"{tested[name]} and {path} both tested {name}; they are no folds of one experiment, leave one out"
                )
    if left := known - tested.keys():
        raise ValueError(f"{experiment}: no fold has tested {min(left)} ({len(left)} in all); pretrain the runs again")


def pool_folds(
    files: Sequence[Path], positive_class: int, *, bootstrap: int, seed: int
) -> dict[str, dict[str, object]]:
    """Evaluate the predictions of the folds of one experiment together.

    Args:
        files: predictions.csv of each fold.
        positive_class: whose scores they hold.
        bootstrap: draws of the intervals.
        seed: of the draws.

    Returns:
        Name of a probe, or of another head -> result of `pooled_metrics`, for those that every fold has; nothing for
        more than two classes.

    Raises:
        ValueError: a file is not such a table, or two hold one test sample.
    """
    import pandas

    tables = [read_predictions_table(path, path.parent.parent) for path in files]
    if any("score" not in table or "probe" not in table for table in tables):
        return {}
    reports = {}
    for name in dict.fromkeys(tables[0]["probe"]):
        folds = [table[table["probe"] == name] for table in tables]
        # What linear_eval.py --folds tests is no test set of the run.
        if any("fold" in table and (table["fold"] != "").any() for table in folds) or any(map(len, folds)) is False:
            continue
        tests = [table[table["split"] == "test"].assign(number=number) for number, table in enumerate(folds)]
        if any(set(table["label"]) != {0, 1} for table in tests):
            continue
        pooled = pandas.concat(tests)
        if (twice := pooled["id"].duplicated()).any():
            raise ValueError(
                f"{files[0]} and further folds hold {pooled['id'][twice].iloc[0]} twice; evaluate them again"
            )
        made = pooled["probability"].to_numpy(float) if "probability" in pooled else np.array([np.nan])
        groups = pooled["group"].tolist() if "group" in pooled else []
        reports[str(name)] = pooled_metrics(
            (pooled["label"] == positive_class).to_numpy(),
            pooled["score"].to_numpy(float),
            None if np.isnan(made).any() else made,
            [_own_thresholds(table, positive_class) for table in folds],
            pooled["number"].to_numpy(),
            groups=groups if any(groups) else None,
            bootstrap=bootstrap,
            seed=seed,
        )
    return reports


def _own_thresholds(table: pandas.DataFrame, positive_class: int) -> dict[str, float | None]:
    """Return what the validation predictions of a fold choose."""
    val = table[table["split"] == "val"]
    if val.empty:
        return choose_thresholds(None)
    return choose_thresholds(((val["label"] == positive_class).to_numpy(), val["score"].to_numpy(float)))
