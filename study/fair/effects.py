"""Paired differences of two rows: by task with their intervals, over tasks by an exact test, corrected within families.

The statistics are those of study/protocol.md. Differences are fractions, 0.01 is one point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from numpy.typing import NDArray
from scipy import stats

from study.exact import sign_flip
from study.fair.grid import TASKS

MARGIN = 0.01
"""Rows are level if the 90 % interval of their difference lies within this of zero."""

SETS: dict[str, tuple[str, ...]] = {
    "rare": ("mix5-99", "mix5-95", "shirt-99", "shirt-95", "pneumonia-99", "pneumonia-95"),
    "natural": ("breast", "pneumonia", "hannover", "cells"),
}

_FIXES, _FIXES_BALANCED = ("supmin", "supproto"), ("supmin-balanced", "supproto-balanced")


def _each(rows: Iterable[str], others: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((row, other) for row in rows for other in others)


FAMILIES: dict[str, tuple[tuple[str, str], ...]] = {
    "A": (("supcon", "untrained"), ("supmin", "supcon"), ("supproto", "supcon")),
    "B": _each(_FIXES, ("simclr", "weighted-ce", "logit-adjusted-ce")),
    "C": (*((f"{row}-balanced", row) for row in ("supcon", *_FIXES)), ("ce-balanced", "weighted-ce")),
    "D": _each(_FIXES_BALANCED, ("supcon-balanced", "ce-balanced", "cutmix-balanced")),
    "E": _each(_FIXES_BALANCED, ("kcl-balanced", "paco-balanced", "proco-balanced", "ldam-drw-balanced")),
    "F": _each(("joint-balanced",), ("cutmix-balanced", "ce-balanced", "supmin-balanced")),
}
"""Family -> pairs of rows (a, b), of which a - b is asked for."""


@dataclass(frozen=True)
class Effect:
    """A difference a - b, over the seeds of one task or over tasks.

    Attributes:
        mean: of the tasks' means.
        low: lower end of its 95 % interval; NaN for fewer than two seeds of a task.
        high: upper end.
        level: whether its 90 % interval lies within MARGIN of zero.
        positive: pairs in which a is above b.
        pairs: number of pairs.
        tasks: those that have pairs.
        p: of the exact sign-flip test; NaN for one task.
    """

    mean: float
    low: float
    high: float
    level: bool
    positive: int
    pairs: int
    tasks: tuple[str, ...]
    p: float


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values corrected for their number, step down.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = np.argsort(p_values, kind="stable")
    steps = (len(order) - np.arange(len(order))) * np.asarray(p_values)[order]
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def differences(ledger: pandas.DataFrame, a: str, b: str, column: str, tasks: Iterable[str]) -> pandas.Series:
    """Return a - b for each task and seed that has both rows, indexed by task and seed.

    Args:
        ledger: of `ledger.read`.
        a: row.
        b: row that is subtracted.
        column: outcome.
        tasks: which ones count.
    """
    runs = ledger[ledger["reported"] & ledger["task"].isin(list(tasks))]
    values = runs.pivot(index=["task", "seed"], columns="row", values=column).reindex(columns=[a, b])
    return (values[a] - values[b]).dropna()


def effect(pairs: pandas.Series) -> Effect | None:
    """Return the effect of paired differences; None without any.

    The variance is that within tasks: each data set's units, sums over its tasks of one seed, vary over seeds.
    """
    if pairs.empty:
        return None
    tasks = tuple(task for task in TASKS if task in pairs.index.get_level_values("task"))
    seeds = pairs.groupby(level="task").transform("size")
    shares = pairs / (seeds * len(tasks))
    datasets = shares.index.get_level_values("task").map(lambda task: TASKS[task].dataset)
    units = shares.groupby([datasets, shares.index.get_level_values("seed")]).sum()
    by_dataset = units.groupby(level=0)
    sizes, variances = by_dataset.size(), by_dataset.var()
    mean = float(units.sum())
    low = high = np.nan
    level = False
    if (sizes > 1).all():
        parts = sizes * variances
        error = float(np.sqrt(parts.sum()))
        # Welch and Satterthwaite: data sets have variances of their own.
        freedom = float(parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum()) if error else 1.0
        low, high = (mean + sign * stats.t.ppf(0.975, freedom) * error for sign in (-1, 1))
        level = abs(mean) + stats.t.ppf(0.95, freedom) * error < MARGIN
    p = sign_flip(units.tolist()) if len(tasks) > 1 else np.nan
    return Effect(mean, low, high, bool(level), int((pairs > 0).sum()), len(pairs), tasks, p)


def answers(ledger: pandas.DataFrame, column: str, tasks: Sequence[str]) -> pandas.DataFrame:
    """Return a line for each pair of each family: family, a, b, the effect, and p corrected within the family.

    Args:
        ledger: of `ledger.read`.
        column: outcome, such as "test/i/auroc".
        tasks: a set of tasks.
    """
    return pandas.DataFrame(_answers(ledger, column, tasks))


def _answers(ledger: pandas.DataFrame, column: str, tasks: Sequence[str]) -> Iterator[dict[str, object]]:
    for family, rows in FAMILIES.items():
        effects = {pair: effect(differences(ledger, *pair, column, tasks)) for pair in rows}
        found = {pair: each for pair, each in effects.items() if each and not np.isnan(each.p)}
        corrected = holm([each.p for each in found.values()])
        for ((a, b), each), p in zip(found.items(), corrected, strict=True):
            yield {"family": family, "a": a, "b": b, **vars(each), "p_holm": float(p)}
