"""Columns that every table file holds and a printed table shows when asked: calibration, patients, external sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ttc.results.table_parts.columns import COLUMNS, Column

_CLASSIFIERS = {
    "encoder/all": "probe all",
    "encoder/minority": "probe i",
    "encoder/fraction": "probe ii",
    "tau-norm encoder/all": "tau-norm",
    "logit-adjusted encoder/all": "logit-adjusted",
    "finetune/own/classifier": "fine-tuned",
    "from_scratch/own/classifier": "from scratch",
}
_HEADS = {"minority": "i", "fraction": "ii"}
_EXTERNAL = re.compile(r"external/([^/]+)/(difference/)?([^/]+)/(.+)")


def _calibration(path: str, group: str) -> tuple[Column, Column]:
    part = f"{path}/calibration/after"
    return (
        Column(
            f"{part}/intercept", group, "icpt", "its calibration intercept; 0 is right",
            digits=2, best=False, optional=True,
        ),
        Column(
            f"{part}/slope", group, "slope", "its calibration slope; 1 is right", digits=2, best=False, optional=True
        ),
    )  # fmt: skip


def _per_group(path: str, group: str) -> tuple[Column, Column]:
    part, words = f"{path}/per_group", "of one score per group (patient, site), %"
    return (
        Column(
            f"{part}/balanced_accuracy",
            group,
            "group acc",
            f"balanced accuracy {words}",
            100,
            optional=True,
            interval=True,
        ),
        Column(f"{part}/auroc", group, "group AUC", f"AUROC {words}", 100, optional=True, interval=True),
    )  # fmt: skip


FURTHER = tuple(
    column
    for path, group in _CLASSIFIERS.items()
    for column in (*_calibration(path, group), *_per_group(path, group))
    if column.metric not in {shown.metric for shown in COLUMNS}
)
"""Of every run; those of external sets have the names of the sets, see `external_columns`."""


def external_columns(metrics: Iterable[str]) -> list[Column]:
    """Return the columns of all external sets and heads that occur, in the order of first appearance.

    Args:
        metrics: names in a ledger, such as "external/SET/HEAD/auroc" and "external/SET/difference/HEAD/auroc".
    """
    columns: dict[str, Column] = {}
    for name, head in dict.fromkeys((found[1], found[3]) for found in map(_EXTERNAL.fullmatch, metrics) if found):
        path, group = f"external/{name}/{head}", f"{name} {_HEADS.get(head, head)}"
        every = (
            Column(f"{path}/balanced_accuracy", group, "acc", "balanced accuracy on this set, %", 100, interval=True),
            Column(f"{path}/auroc", group, "AUC", "AUROC on this set, %", 100, interval=True),
            Column(
                f"external/{name}/difference/{head}/auroc", group, "diff",
                "AUROC here less that of the run's own test, %",
                100, best=False, interval=True,
            ),
            *_calibration(path, group),
            *_per_group(path, group),
        )  # fmt: skip
        columns |= {column.metric: column for column in every}
    present = set(metrics)
    return [column for metric, column in columns.items() if metric in present]


def is_further(metric: str) -> bool:
    """Tell whether a ledger holds a metric of a run without being asked for it."""
    return metric in _FURTHER_METRICS or bool(external_columns([metric]))


_FURTHER_METRICS = frozenset(column.metric for column in FURTHER)


def all_columns(metrics: Sequence[str], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return every column that a table of these metrics can have, the usual `columns` first."""
    shown = {column.metric for column in columns}
    return [*columns, *(each for each in (*FURTHER, *external_columns(metrics)) if each.metric not in shown)]
