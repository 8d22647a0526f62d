"""The table by which the joint recipe is chosen: every combination of its parts, judged on validation images alone."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence

from study import paired
from study.paired import Entry
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
    found = _ROW.fullmatch(row)
    if found is None:
        raise ValueError(f"row {row} is none of the factorial: PART-ce-W-cutmix-A-batch-B, or ce-cutmix-A-batch-B")
    part = _PARTS[found["part"] or "-"]
    return part, found["ce"] or "1", found["cutmix"], found["batch"]


def means(entries: Iterable[Entry], shares: Sequence[int]) -> list[float] | None:
    """Return both probes' mean validation accuracy at each share; None if one is missing."""
    entries = list(entries)
    values = [
        paired.values_of([entry for entry in entries if entry.share == share], metric)
        for share in shares
        for metric in VALIDATION
    ]
    return [statistics.fmean(each) for each in values] if all(values) else None


def ranked(entries: Sequence[Entry], shares: Sequence[int]) -> list[tuple[str, list[float]]]:
    """Return the rows that were run at every share with their `means`, those with the best mean of all first."""
    found = {row: means([e for e in entries if e.row == row], shares) for row in dict.fromkeys(e.row for e in entries)}
    rows = [(row, each) for row, each in found.items() if each is not None]
    return sorted(rows, key=lambda item: -statistics.fmean(item[1]))


def table(entries: Sequence[Entry], shares: Sequence[int]) -> str:
    """Return all combinations, best first, and what each level of each factor reaches on average."""
    rows = ranked(entries, shares)
    if not rows:
        return "No combination has been run at every share yet.\n"
    lines = []
    for row, each in rows:
        runs = sum(entry.row == row for entry in entries)
        cells = (f"{100 * value:.1f}" for value in (*each, statistics.fmean(each)))
        lines.append([*levels_of(row), str(runs), *cells])
    probes = [f"{share} %, probe {probe}" for share in shares for probe in ("i", "ii")]
    return markdown((*FACTORS, "runs", *probes, "mean"), lines) + "\n" + _effects(rows)


def _effects(rows: Sequence[tuple[str, list[float]]]) -> str:
    """Return the mean score of each level over combinations that have all other levels in common.

    Without a contrastive part there is nothing but cross-entropy: the part is compared among combinations with it, the
    other factors among those with a part.
    """
    lines = []
    for number, factor in enumerate(FACTORS):
        levels: dict[str, list[float]] = {}
        for row, each in rows:
            part, weight = levels_of(row)[:2]
            if (weight == "1") if number == 0 else (part != "none"):
                levels.setdefault(levels_of(row)[number], []).append(statistics.fmean(each))
        cells = (f"{level}: {100 * statistics.fmean(values):.1f}" for level, values in sorted(levels.items()))
        lines.append([factor, "; ".join(cells)])
    return markdown(("factor", "mean of its levels, the others being equal"), lines)
