"""Paired differences of two rows: by task with their intervals, over tasks by an exact test, corrected within families.

The statistics are those of study/protocol.md. Differences are fractions, 0.01 is one point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from numpy.typing import NDArray
from scipy import stats

from study.exact import sign_flip
from study.fair.grid import SEEDS, STARTS, TASKS, rows_reported

MARGIN = 0.01
"""Rows are level if the 90 % interval of their difference lies within this of zero."""
SURE = 0.05
"""A row is better than another if the corrected p-value is below this."""

SETS: dict[str, tuple[str, ...]] = {
    "rare": ("mix5-99", "mix5-95", "shirt-99", "shirt-95", "pneumonia-99", "pneumonia-95"),
    "natural": ("breast", "pneumonia", "hannover", "platelets"),
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
HEADS = ("logit-adjusted", "balanced-all")
"""Of family G: what is asked for is the first less the second, on the features of one row."""
HEAD_ROWS = ("weighted-ce", "ce-balanced")
START_PAIRS = _each(_FIXES_BALANCED, ("ce-balanced", "simclr-balanced"))
"""Of family H, for each trained start."""
START_TASKS = {start: [task for task in TASKS if task.endswith(f"-from-{start}")] for start in STARTS}


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


def outcomes(ledger: pandas.DataFrame, column: str) -> pandas.DataFrame:
    """Return an outcome of the reported runs: a line per task and seed, a column per row, NaN for what is missing.

    Args:
        ledger: of `ledger.read`.
        column: outcome, such as "test/i/auroc".
    """
    runs = ledger[ledger["reported"].astype(bool)].reindex(columns=["task", "seed", "row", column])
    return runs.pivot(index=["task", "seed"], columns="row", values=column)


def differences(values: pandas.DataFrame, a: str, b: str, tasks: Iterable[str]) -> pandas.Series:
    """Return a - b for each task and seed that has both rows, indexed by task and seed.

    Args:
        values: of `outcomes`.
        a: row.
        b: row that is subtracted.
        tasks: which ones count.
    """
    if not {a, b} <= set(values.columns):
        return pandas.Series(index=values.index[:0], dtype=float)
    chosen = values.index.get_level_values("task").isin(list(tasks))
    return (values[a] - values[b])[chosen].dropna()


def effect(pairs: pandas.Series) -> Effect | None:
    """Return the effect of paired differences; None without any.

    The variance is that within tasks: each data set's units, sums over its tasks of one seed, vary over seeds.
    """
    if pairs.empty:
        return None
    by_task: dict[str, dict[int, float]] = {}
    for (task, seed), value in pairs.items():
        by_task.setdefault(task, {})[seed] = value
    tasks = tuple(task for task in TASKS if task in by_task)
    units: dict[str, dict[int, float]] = {}
    for task in tasks:
        of_seeds = units.setdefault(TASKS[task].dataset, {})
        for seed, value in by_task[task].items():
            of_seeds[seed] = of_seeds.get(seed, 0.0) + value / (len(by_task[task]) * len(tasks))
    shares = [np.array(list(of_seeds.values())) for of_seeds in units.values()]
    mean = float(sum(share.sum() for share in shares))
    low = high = np.nan
    level = False
    if all(len(share) > 1 for share in shares):
        parts = np.array([len(share) * share.var(ddof=1) for share in shares])
        error = float(np.sqrt(parts.sum()))
        # Welch and Satterthwaite: data sets have variances of their own.
        below = sum(part**2 / (len(share) - 1) for part, share in zip(parts, shares, strict=True))
        freedom = float(parts.sum() ** 2 / below) if error else 1.0
        low, high = (mean + sign * stats.t.ppf(0.975, freedom) * error for sign in (-1, 1))
        level = abs(mean) + stats.t.ppf(0.95, freedom) * error < MARGIN
    p = sign_flip(np.concatenate(shares).tolist()) if len(tasks) > 1 else np.nan
    return Effect(mean, low, high, bool(level), int((pairs > 0).sum()), len(pairs), tasks, p)


@dataclass(frozen=True)
class Answer:
    """What a set of tasks says of a pair of rows.

    Attributes:
        family: of questions.
        a: row, with what is varied.
        b: row that is subtracted.
        planned: pairs of task and seed in the end.
        effect: over the pairs that there are; None without any.
        p: of the exact test, corrected within the family; NaN where no test is made.
    """

    family: str
    a: str
    b: str
    planned: int
    effect: Effect | None
    p: float

    @property
    def word(self) -> str:
        """Say in a word what is known: "better" or "worse" (a than b), "level", or "unclear"; nothing of one task."""
        if self.effect is None:
            return "not run yet"
        if np.isnan(self.p):
            return "no test"
        if self.p < SURE:
            direction = "better" if self.effect.mean > 0 else "worse"
            return f"{direction}, by less than a point" if self.effect.level else direction
        return "level" if self.effect.level else "unclear"


def answers(ledger: pandas.DataFrame, column: str, tasks: Sequence[str]) -> list[Answer]:
    """Return the answers of the families A to F.

    Args:
        ledger: of `ledger.read`.
        column: outcome, such as "test/i/auroc".
        tasks: a set of tasks; a pair that none of them plans is left out.
    """
    found, values = [], outcomes(ledger, column)
    for family, pairs in FAMILIES.items():
        shared = {pair: sum(set(pair) <= set(rows_reported(task)) for task in tasks) for pair in pairs}
        asked = {pair: differences(values, *pair, tasks) for pair, count in shared.items() if count}
        found += _corrected(family, asked, [count for count in shared.values() if count])
    return found


def head_answers(ledger: pandas.DataFrame, tasks: Sequence[str], metric: str = "balanced_accuracy") -> list[Answer]:
    """Return the answers of family G: the head that is adjusted afterwards less the one with balanced weights.

    Both heads stand on the same features of a row and learn from all training images.
    """
    adjusted, balanced = (outcomes(ledger, f"test/{head}/{metric}") for head in HEADS)
    values = (adjusted - balanced).assign(zero=0.0)
    asked = {(f"{row}, adjusted", f"{row}, balanced"): differences(values, row, "zero", tasks) for row in HEAD_ROWS}
    return _corrected("G", asked, [len(tasks)] * len(asked))


def start_answers(ledger: pandas.DataFrame, column: str) -> list[Answer]:
    """Return the answers of family H: rows that begin with an encoder of another data set and train all of it."""
    asked, sizes, values = {}, [], outcomes(ledger, column)
    for start, tasks in START_TASKS.items():
        for a, b in START_PAIRS:
            asked[f"{a} from {start}", f"{b} from {start}"] = differences(values, a, b, tasks)
            sizes.append(len(tasks))
    return _corrected("H", asked, sizes)


def _corrected(family: str, asked: Mapping[tuple[str, str], pandas.Series], tasks: Sequence[int]) -> list[Answer]:
    """Return an answer per pair; Holm's rule counts those that are tested."""
    effects = {pair: effect(values) for pair, values in asked.items()}
    p_values = {pair: each.p for pair, each in effects.items() if each and not np.isnan(each.p)}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [
        Answer(family, *pair, count * len(SEEDS), each, float(corrected.get(pair, np.nan)))
        for (pair, each), count in zip(effects.items(), tasks, strict=True)
    ]
