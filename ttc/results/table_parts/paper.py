"""The table that papers print: a part per classifier, a row per run, with the size of the test set and intervals.

A page shows one probe, whose name `page_probe` chooses by the number of images that it learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import pandas

from ttc.results.floor.rows import with_floor
from ttc.results.table_parts.columns import COLUMNS, PAPER, Column
from ttc.run.ledger import SIZES

CLASSIFIERS = {
    "encoder/all": "probe all",
    "encoder/fraction": "probe fraction",
    "encoder/minority": "probe minority",
    "encoder/pooled": "probe, folds",
    "tau-norm encoder/all": "tau-normalised probe",
    "tau-norm encoder/pooled": "tau-normalised probe, folds",
    "logit-adjusted encoder/all": "logit-adjusted probe",
    "logit-adjusted encoder/pooled": "logit-adjusted probe, folds",
    "own/classifier": "own head",
    "finetune/own/classifier": "fine-tuned",
    "from_scratch/own/classifier": "from scratch",
}
"""Where the ledger has a classifier -> what its part of the table is called. Of several probes one is shown."""

_PROBES = ("all", "fraction", "minority")

LARGE_FRACTION = 100
"""Images per class from which on probe `fraction` stands for a page."""

PROBE_RULE = f"fraction where it learned from at least {LARGE_FRACTION} images per class in all runs, else all"


def page_probe(lines: pandas.DataFrame) -> str:
    """Return the probe that tables and figures of some runs show, by `PROBE_RULE`; of those that were fitted.

    Args:
        lines: their ledger; one of an earlier version does not tell the sizes, and has `minority` and `fraction` only.
    """
    defined = lines.dropna(subset="value")
    sizes = defined.loc[defined["metric"] == "encoder/fraction/train_samples_per_class", "value"]
    if len(sizes) and sizes.min() >= LARGE_FRACTION:
        return "fraction"
    fitted = [probe for probe in _PROBES if f"encoder/{probe}/auroc" in set(defined["metric"])]
    return fitted[0] if fitted else "all"


def ledger_metrics() -> list[str]:
    """Return what the table needs of the ledger: the metrics of all classifiers, and the sizes."""
    names = [*(column.metric for column in PAPER if column.metric not in ("n", *SIZES)), "balanced_accuracy", *SIZES]
    return [f"{classifier}/{name}" for classifier in CLASSIFIERS for name in names]


def paper_lines(lines: pandas.DataFrame, probe: str) -> pandas.DataFrame:
    """Return the lines of a ledger by classifier: the group "cells" becomes "cells, probe all" and "cells, fine-tuned".

    Args:
        lines: that `ledger_lines.check` accepts.
        probe: "all", "fraction" or "minority".

    Returns:
        Lines whose metrics are named without their classifier, and "n": the test samples.
    """
    lines = with_floor(lines)
    groups = {group: place for place, group in enumerate(lines["group"].unique())}
    hidden = {f"encoder/{other}" for other in _PROBES if other != probe}
    parts = []
    for classifier, label in CLASSIFIERS.items():
        of_classifier = lines[lines["metric"].str.startswith(f"{classifier}/") & lines["value"].notna()]
        if classifier in hidden or of_classifier.empty:
            continue
        named = of_classifier.assign(
            metric=of_classifier["metric"].str.removeprefix(f"{classifier}/"),
            group=of_classifier["group"] + f", {label}",
            place=of_classifier["group"].map(groups),
        )
        tested = named[named["metric"] == "auroc"]
        parts.append(pandas.concat([named, tested.assign(metric="n", value=tested["n"].astype("float64"))]))
    if not parts:
        raise ValueError("no run has a classifier; run linear_eval.py or finetune.py first")
    return pandas.concat(parts, ignore_index=True).sort_values("place", kind="stable").drop(columns="place")


def columns_for(probe: str, lines: pandas.DataFrame) -> tuple[Column, ...]:
    """Return the usual columns with those of one probe in the place of all others.

    A ledger that does not hold the sizes of the probes keeps the columns that it was made for.
    """
    if not lines["metric"].str.endswith("/train_samples").any():
        return COLUMNS
    chosen: dict[str, Column] = {}
    for column in COLUMNS:
        if column.metric.startswith(("encoder/minority/", "encoder/fraction/")):
            metric = f"encoder/{probe}/{column.metric.split('/', 2)[2]}"
            meaning = column.meaning.replace("probe i", f"probe {probe}")
            if column.metric.endswith("balanced_accuracy"):
                meaning = f"balanced accuracy of probe {probe}, %"
            group = f"probe {probe}" if column.group.startswith("probe") else column.group
            column = replace(column, metric=metric, group=group, meaning=meaning)
        chosen.setdefault(column.metric if column.metric != "collapsed" else column.title, column)
    return tuple(chosen.values())


def choose_columns(columns: Sequence[Column], wanted: Sequence[str], lines: pandas.DataFrame) -> list[Column]:
    """Return the wanted columns in their order.

    Args:
        columns: that the table has.
        wanted: titles ("AUROC"), group headings ("SAA") or metrics of the ledger ("mcc", "encoder/all/f1").
        lines: of the table.

    Raises:
        ValueError: no such column or metric.
    """
    chosen: list[Column] = []
    metrics = set(lines["metric"])
    for name in wanted:
        fitting = [column for column in columns if name.lower() in _names_of(column)]
        if not fitting and name in metrics:
            group, _, heading = name.rpartition("/")
            fitting = [Column(name, PurePath(group).name, heading, f"{name} of the ledger", digits=3, interval=True)]
        if not fitting:
            raise ValueError(
                f"--columns {name!r} is neither a column ({', '.join(column.title for column in columns)}) "
                "nor a metric of the ledger; add metrics with --also"
            )
        chosen += [column for column in fitting if column not in chosen]
    return chosen


def _names_of(column: Column) -> set[str]:
    return {name.lower() for name in (column.title, column.group, column.metric) if name}


def renamed(lines: pandas.DataFrame, names: Mapping[str, str]) -> pandas.DataFrame:
    """Give rows and groups other names, which tables print.

    Raises:
        ValueError: a name that no row or group has, or two rows of a group that would be one.
    """
    present = set(lines["run"]) | set(lines["group"])
    if unknown := [name for name in names if name not in present]:
        raise ValueError(f"--names {unknown[0]!r} is no row or group; there are {', '.join(sorted(present))}")
    out = lines.assign(run=lines["run"].replace(dict(names)), group=lines["group"].replace(dict(names)))
    rows, new_rows = (set(zip(table["group"], table["run"], strict=True)) for table in (lines, out))
    if len(new_rows) < len(rows):
        raise ValueError(f"--names {' '.join(names.values())}: two rows would have the same name; give each its own")
    return out
