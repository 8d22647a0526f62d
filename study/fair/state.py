"""How far the fair study is: which runs are planned, which the ledger holds, and which of them are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas

from study.fair import grid, ledger
from study.fair.effects import SETS
from study.fair.grid import TASKS, Run

STAGES = ("rates", "lengths", "further", "reported")
MAIN = tuple(task for tasks in SETS.values() for task in tasks)
STARTED = tuple(task for task in TASKS if task not in MAIN)
"""Those of the pretrained starts."""


def planned(stage: str, known: pandas.DataFrame, tasks: Sequence[str]) -> list[Run]:
    """Return the runs of a stage, as far as the stages before it are in the ledger.

    Args:
        stage: one of STAGES.
        known: of `ledger.read`.
        tasks: which ones count.
    """
    if stage == "rates":
        return list(grid.rate_runs(tasks))
    if stage == "lengths":
        return [long for _, long in ledger.rates(known, tasks) if TASKS[long.task].longer]
    return list(ledger.further(known, tasks) if stage == "further" else ledger.reported(known, tasks))


def expected(stage: str, task: str) -> int:
    """Return how many runs a stage of a task has in the end."""
    rows, folds = grid.rows_of(task), len(grid.tuning_seeds(task))
    trained = {"rates": len(rows) * len(grid.RATES) * folds, "lengths": len(rows) * folds * TASKS[task].longer}
    if stage in trained:
        return trained[stage]
    if stage == "further":
        compared = sum(row in ledger.COMPARED for row in rows) if "candidate" in TASKS[task].kinds else 0
        return compared * len(grid.FURTHER_SEEDS)
    return len(grid.SEEDS) * len(grid.rows_reported(task))


@dataclass(frozen=True, eq=False)
class State:
    """A ledger and what follows from it.

    Attributes:
        known: of `ledger.read`.
    """

    known: pandas.DataFrame

    @cached_property
    def settings(self) -> list[Run]:
        """The tuning run that has the chosen rate and length, for each task, row and fold that is decided."""
        return list(ledger.settings(self.known, list(TASKS)))

    @cached_property
    def names(self) -> dict[str, set[str]]:
        """Stage -> names of its runs that are planned so far."""
        return {stage: {run.name for run in planned(stage, self.known, list(TASKS))} for stage in STAGES}

    @cached_property
    def runs(self) -> pandas.DataFrame:
        """Reported runs of the chosen settings; a choice that changed leaves others behind."""
        return self.known[self.known["run"].isin(self.names["reported"])]

    @cached_property
    def coverage(self) -> pandas.DataFrame:
        """Runs that the ledger holds, a line per task and a column per stage; "other" are planned by none."""
        stages = {stage: self.known["run"].isin(names) for stage, names in self.names.items()}
        stages["other"] = ~pandas.DataFrame(stages).any(axis=1)
        counts = pandas.DataFrame(stages).groupby(self.known["task"]).sum()
        return counts.reindex(list(TASKS), fill_value=0)

    @property
    def held(self) -> int:
        """Planned runs that the ledger holds."""
        return int(self.coverage[list(STAGES)].to_numpy().sum())

    @property
    def total(self) -> int:
        """Planned runs."""
        return sum(expected(stage, task) for stage in STAGES for task in TASKS)

    @property
    def complete(self) -> bool:
        """Whether every planned run is in the ledger."""
        return self.held == self.total
