"""The row of the floor in tables of several runs, and which means are not above it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from ttc.evaluation.decoupled import NATURAL_HEADS
from ttc.results.table_parts.columns import Column

ROW, PREFIX = "floor", "floor/"
"""Name of the row; what goes before its metrics in a ledger, where "floor/all/auroc" stands for "encoder/all/auroc"."""

MARK = "<"
MEANING = (
    "floor: linear models and SVMs of the raw pixels that learned from the same images (from all of them, beside "
    "networks that were trained as a whole), chosen by validation"
)
MARK_MEANING = f"{MARK} AUROC not above that of the floor; linear_eval.py says for each run what to change first"

_TRAINED = ("own/classifier", "finetune/own/classifier", "from_scratch/own/classifier")
"""Classifiers that learned from all training images, beside the floor that did."""
_FITTED = ("", *(f"{head} " for head in NATURAL_HEADS))
"""What goes before "encoder" in the names of linear heads on the encoder."""


def stands_for(metric: str) -> list[str]:
    """Return the metrics of networks beside which a metric of the floor is put."""
    probe, _, name = metric.removeprefix(PREFIX).partition("/")
    whole = [f"{place}/{name}" for place in _TRAINED] if probe in ("all", "folds", "pooled") else []
    return [*(f"{head}encoder/{probe}/{name}" for head in _FITTED), *whole]


def with_floor(lines: pandas.DataFrame) -> pandas.DataFrame:
    """Return a ledger with a row for the floor of each group, in place of the floors that its runs tell.

    Runs of one group and seed have the same data, hence the same floor: the first one's is taken.
    """
    of_floor = lines["metric"].str.startswith(PREFIX)
    if not of_floor.any():
        return lines
    others = lines[~of_floor]
    measured = others.dropna(subset="value")
    present = set(zip(measured["group"], measured["metric"], strict=True))
    first = lines[of_floor].dropna(subset="value").drop_duplicates(["group", "seed", "fold", "metric"])
    beside = first.assign(run=ROW, metric=first["metric"].map(stands_for)).explode("metric")
    shown = [place in present for place in zip(beside["group"], beside["metric"], strict=True)]
    return pandas.concat([others, beside[shown]], ignore_index=True)


def below_floor(columns: Sequence[Column], mean: pandas.DataFrame) -> pandas.DataFrame:
    """Tell which mean AUROCs are not above that of the floor in the same column and group.

    Args:
        columns: of the table.
        mean: a row per (group, run), a column per title.
    """
    groups, runs = (mean.index.get_level_values(level) for level in ("group", "run"))
    below = pandas.DataFrame(False, index=mean.index, columns=mean.columns)
    for column in columns:
        if column.metric.rpartition("/")[2] == "auroc":
            floors = mean[column.title][runs == ROW].droplevel("run")
            below[column.title] = (mean[column.title].to_numpy() <= floors.reindex(groups).to_numpy()) & (runs != ROW)
    return below
