"""A recipe that wins: which candidate validation images choose, and whether test images confirm it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas

from study.fair import grid, ledger
from study.fair.effects import SETS, Effect, differences, effect, outcomes
from study.fair.grid import TASKS
from study.fair.state import State

CHOOSING = tuple(name for name, task in TASKS.items() if "candidate" in task.kinds)
"""Tasks whose validation images choose a candidate."""
BASELINES = tuple(row for row in ledger.BASELINES if row != "joint-balanced")
CANDIDATES = tuple(row for row in ledger.COMPARED if row not in BASELINES)
AHEAD = 0.01
"""By so much a recipe has to be ahead on both probes."""


def validation(state: State) -> pandas.DataFrame:
    """Return the scores of the rows' chosen settings: mean and seeds, indexed by task and row.

    Test images play no part: the runs are those of the tuning seed and, where candidates are chosen, of further seeds.
    """
    wanted = {run.name for run in state.settings} | state.names["further"]
    runs = state.known[state.known["run"].isin(wanted)]
    runs = runs.assign(score=runs["run"].map(ledger.scores(runs)))
    return runs.groupby(["task", "row"])["score"].agg(["mean", "size"])


def advantages(state: State) -> pandas.DataFrame:
    """Return validation scores of candidates less that of the best balanced baseline, a column per choosing task.

    Returns:
        Column "mean" is the mean over tasks, NaN as long as a run of the row or of a baseline is missing.
    """
    scores = validation(state)
    complete = scores["mean"].where(scores["size"] == 1 + len(grid.FURTHER_SEEDS))
    table = complete.unstack("task").reindex(index=[*BASELINES, *CANDIDATES], columns=list(CHOOSING))
    best = table.loc[list(BASELINES)].max(skipna=False)
    return (table - best).assign(mean=lambda gaps: gaps.mean(axis=1, skipna=False))


def winner(state: State) -> str | None:
    """Return the candidate whose mean advantage is largest; None as long as a run that decides is missing."""
    gaps = advantages(state).loc[list(CANDIDATES), "mean"]
    return None if gaps.isna().any() else str(gaps.idxmax())


@dataclass(frozen=True)
class Trial:
    """A candidate on the test images of a task.

    Attributes:
        task: where.
        baseline: the best balanced baseline on validation images.
        effects: candidate - baseline in AUROC, of each probe; None as long as they have no common run.
    """

    task: str
    baseline: str
    effects: tuple[Effect | None, ...]

    @property
    def ahead(self) -> bool:
        """Whether the candidate is ahead by a point on every probe."""
        return all(each is not None and each.mean >= AHEAD for each in self.effects)


def trials(state: State, candidate: str) -> Iterator[Trial]:
    """Yield the trials of a candidate on the rare tasks and on pneumonia, as far as a baseline is chosen there."""
    scores = validation(state)["mean"].unstack("task").reindex(list(BASELINES))
    outcomes_of_probes = [outcomes(state.runs, f"test/{probe}/auroc") for probe in ledger.PROBES]
    for task in (*SETS["rare"], "pneumonia"):
        if task in scores and scores[task].notna().all():
            baseline = str(scores[task].idxmax())
            pairs = [differences(values, candidate, baseline, [task]) for values in outcomes_of_probes]
            yield Trial(task, baseline, tuple(map(effect, pairs)))
