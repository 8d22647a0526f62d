"""The table by which the joint recipe is chosen: every combination of its parts, judged on validation images alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas

from study.tables import markdown

VALIDATION = ("encoder/minority/validation/balanced_accuracy", "encoder/fraction/validation/balanced_accuracy")
_ROW = re.compile(r"(?:(?P<part>[a-z]+)-ce-(?P<ce>[\d.]+)|ce)-cutmix-(?P<cutmix>[\d.]+)-batch-(?P<batch>\d+)")
_PARTS = {"mixed": "half SupCon, half NT-Xent", "supmin": "SupMin", "supproto": "SupProto", "-": "none"}
FACTORS = ("contrastive part", "cross-entropy", "minority CutMix", "batch size")


def levels_of(row: str) -> tuple[str, str, str, str]:
    """Return the levels of the factors from the name of a row.

    Raises:
        ValueError: the row is none of the factorial.
    """
    parts = _ROW.fullmatch(row)
    if parts is None:
        raise ValueError(f"row {row} is none of the factorial: PART-ce-W-cutmix-A-batch-B, or ce-cutmix-A-batch-B")
    return _PARTS[parts["part"] or "-"], parts["ce"] or "1", parts["cutmix"], parts["batch"]


def ranked(runs: pandas.DataFrame, shares: Sequence[int]) -> pandas.DataFrame:
    """Return both probes' mean validation accuracy at each share and the mean of all, the best row first.

    Rows that were not run at every share are left out. Columns are (share, metric), then "mean".
    """
    columns = [(share, metric) for share in shares for metric in VALIDATION]
    means = runs.groupby(["row", "share"], sort=False)[list(VALIDATION)].mean().unstack("share").swaplevel(axis=1)
    means = means.reindex(columns=columns).dropna()
    means.columns = means.columns.to_flat_index()
    means = means.reindex([row for row in runs["row"].unique() if row in means.index])
    return means.assign(mean=means.mean(axis=1)).sort_values("mean", ascending=False, kind="stable")


def table(runs: pandas.DataFrame, shares: Sequence[int]) -> str:
    """Return all combinations, best first, and what each level of each factor reaches on average."""
    rows = ranked(runs, shares) if len(runs) else runs
    if rows.empty:
        return "No combination has been run at every share yet.\n"
    counts = runs["row"].value_counts()
    lines = [
        [*levels_of(row), str(counts[row]), *(f"{100 * value:.1f}" for value in means)]
        for row, *means in rows.itertuples()
    ]
    probes = [f"{share} %, probe {probe}" for share in shares for probe in ("i", "ii")]
    return markdown((*FACTORS, "runs", *probes, "mean"), lines) + "\n" + _effects(rows["mean"])


def _effects(scores: pandas.Series) -> str:
    """Return the mean score of each level over combinations that have all other levels in common.

    Without a contrastive part there is nothing but cross-entropy: the part is compared among combinations with it, the
    other factors among those with a part.
    """
    levels = pandas.DataFrame([levels_of(row) for row in scores.index], columns=FACTORS, index=scores.index)
    part, weight = levels["contrastive part"], levels["cross-entropy"]
    lines = []
    for factor in FACTORS:
        compared = weight == "1" if factor == "contrastive part" else part != "none"
        means = scores[compared].groupby(levels[factor][compared]).mean()
        lines.append([factor, "; ".join(f"{level}: {100 * mean:.1f}" for level, mean in means.items())])
    return markdown(("factor", "mean of its levels, the others being equal"), lines)
