"""The tables of docs/study.md: what was run, all rows at one share, paired differences, ranks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study import paired
from study.paired import Entry
from ttc.losses import METHODS
from ttc.run.manifest import Cell

SMALL = "encoder/minority/balanced_accuracy"
LARGE = "encoder/fraction/balanced_accuracy"
SMALL_AUC = "encoder/minority/auroc"
LARGE_AUC = "encoder/fraction/auroc"
SECONDS = "train/seconds"

METRICS: tuple[tuple[str, str, float, int], ...] = (
    (SMALL, "probe i acc", 100, 1),
    (SMALL_AUC, "probe i AUC", 100, 1),
    (LARGE, "probe ii acc", 100, 1),
    (LARGE_AUC, "probe ii AUC", 100, 1),
    ("projection/SAA/majority", "SAA maj", 1, 1),
    ("projection/SAA/minority", "SAA min", 1, 1),
    ("projection/CAC/majority", "CAC maj", 1, 1),
    ("projection/CAC/minority", "CAC min", 1, 1),
    ("projection/CAC_over_cap/minority", "CAC/cap min", 1, 1),
    ("projection/effective_rank/all", "eff. rank", 1, 1),
    (paired.COSINE, "cosine", 1, 2),
    (SECONDS, "s", 1, 0),
)
"""Metric, heading, factor, digits after the point."""

MAIN = ("simclr", "supcon", "supmin", "supproto", "weighted-ce")
JOINT = "joint-balanced"
SUMMARY_ROWS = ("untrained", *MAIN, *(f"{method}-balanced" for method in MAIN), JOINT)
CHOSEN_ON, HELD_OUT = "mix5", "held out"
"""The task on which the joint recipe was chosen, and the name of all others together."""
SHARES = (1, 5, 50)
"""Of the minority in training, percent."""
QUESTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Is SupCon better than an untrained encoder?", (("supcon", "untrained"),)),
    ("Are the two fixes better than SupCon?", (("supmin", "supcon"), ("supproto", "supcon"))),
    ("Are they better than NT-Xent, which knows no labels?", (("supmin", "simclr"), ("supproto", "simclr"))),
    ("Are they better than weighted cross-entropy?", (("supmin", "weighted-ce"), ("supproto", "weighted-ce"))),
    ("What do balanced batches change?", tuple((f"{method}-balanced", method) for method in METHODS)),
    (
        "With balanced batches, are the fixes better than SupCon?",
        (("supmin-balanced", "supcon-balanced"), ("supproto-balanced", "supcon-balanced")),
    ),
    (
        "With balanced batches, are they better than weighted cross-entropy?",
        (("supmin-balanced", "weighted-ce-balanced"), ("supproto-balanced", "weighted-ce-balanced")),
    ),
    (
        "Is the joint recipe better than every balanced method? (It takes twice the steps here.)",
        tuple((JOINT, f"{method}-balanced") for method in METHODS),
    ),
)
"""A question, and the pairs of rows that answer it."""


@dataclass(frozen=True)
class Sweep:
    """A manifest and what the ledger holds of it."""

    name: str
    cells: Sequence[Cell]
    entries: Sequence[Entry]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def coverage(sweeps: Sequence[Sweep]) -> str:
    """Say how many runs of each manifest are in the ledger."""
    rows = [
        (
            f"[{sweep.name}](../scripts/manifests/{sweep.name}.csv)",
            str(len(sweep.cells)),
            str(len(sweep.entries)),
            ", ".join(sorted({str(entry.seed) for entry in sweep.entries})) or "-",
        )
        for sweep in sweeps
    ]
    return markdown(("manifest", "runs planned", "runs in the ledger", "seeds"), rows)


def mean_and_spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Return mean ± standard deviation, without the latter for one value; "-" for none."""
    if not values:
        return "-"
    text = f"{scale * statistics.fmean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {scale * statistics.stdev(values):.{digits}f}"


def all_rows(entries: Sequence[Entry], share: int) -> str:
    """Return the table of one share: probe ii by task, then all metrics over tasks and seeds."""
    here = [entry for entry in entries if entry.share == share]
    tasks = list(dict.fromkeys(entry.task for entry in here))
    table = []
    for row in dict.fromkeys(entry.row for entry in here):
        mine = [entry for entry in here if entry.row == row]
        by_task = [paired.values_of([entry for entry in mine if entry.task == task], LARGE) for task in tasks]
        table.append(
            [
                row,
                str(len(mine)),
                *(mean_and_spread(values, 100, 1) for values in by_task),
                *(_mean(mine, metric, scale, digits) for metric, _, scale, digits in METRICS),
            ]
        )
    heads = ("row", "runs", *(f"{task}, ii" for task in tasks), *(head for _, head, _, _ in METRICS))
    return markdown(heads, table)


def _mean(entries: Sequence[Entry], metric: str, scale: float, digits: int) -> str:
    values = paired.values_of(entries, metric)
    # A run that shared its machine with others took longer: such times say nothing of the row, and pull at a mean.
    average = statistics.median if metric == SECONDS else statistics.fmean
    return f"{scale * average(values):.{digits}f}" if values else "-"


def summary(entries: Sequence[Entry]) -> str:
    """Return the main rows' probe ii, minority SAA and collapsed runs at each share."""
    table = []
    for row in SUMMARY_ROWS:
        cells = [row]
        for share in SHARES:
            mine = [entry for entry in entries if (entry.row, entry.share) == (row, share)]
            bad, known = paired.collapsed(mine)
            accuracy = mean_and_spread(paired.values_of(mine, LARGE), 100, 1)
            cells += [accuracy, _mean(mine, "projection/SAA/minority", 1, 1), f"{bad} of {known}" if known else "-"]
        if any(cell != "-" for cell in cells[1:]):
            table.append(cells)
    heads = [head for share in SHARES for head in (f"{share} %: probe ii acc", "SAA min", "collapsed")]
    return markdown(("row", *heads), table)


def collapse(entries: Sequence[Entry], shares: Sequence[int]) -> str:
    """Return how many runs of each row collapsed, at each share."""
    rows = list(dict.fromkeys(entry.row for entry in entries))
    table = []
    for row in rows:
        counts = [
            paired.collapsed([entry for entry in entries if (entry.row, entry.share) == (row, share)])
            for share in shares
        ]
        if any(bad for bad, _ in counts):
            table.append([row, *(f"{bad} of {known}" if known else "-" for bad, known in counts)])
    return markdown(("row", *(f"{share} %" for share in shares)), table)


def differences(entries: Sequence[Entry], shares: Sequence[int]) -> str:
    """Answer the questions with paired differences of both probes' balanced accuracy."""
    table = []
    for question, pairs in QUESTIONS:
        for share in shares:
            for a, b in pairs:
                cells = [_difference(entries, a, b, share, metric) for metric in (SMALL, LARGE)]
                if any(cells):
                    table.append([question, f"{share} %", f"{a} - {b}", *(cell or "-" for cell in cells)])
                    question = ""
    return markdown(("question", "minority", "difference", "probe i, points", "probe ii, points"), table)


def _difference(entries: Sequence[Entry], a: str, b: str, share: int, metric: str) -> str:
    found = paired.paired(entries, a, b, share, metric)
    if found is None:
        return ""
    text = f"{100 * found.mean:+.1f}"
    if found.error is None or found.p is None:
        return f"{text} (1 pair)"
    sure = "**" if found.p < 0.05 else ""
    chance = "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    return f"{sure}{text} ± {100 * found.error:.1f}{sure} ({found.positive} of {found.pairs}, p {chance})"


def rank_table(entries: Sequence[Entry], shares: Sequence[int], rows: Sequence[str]) -> str:
    """Return average ranks on probe ii over tasks and seeds, best first, with the critical difference."""
    lines = []
    for share in shares:
        here = {entry.row for entry in entries if entry.share == share}
        found = paired.ranks(entries, [row for row in rows if row in here], share, LARGE)
        if found is None:
            continue
        ordered = sorted(found.mean.items(), key=lambda item: item[1])
        lines += [
            f"**{share} % minority**, {found.blocks} blocks, critical difference {found.critical:.2f}: "
            + ", ".join(f"{row} {rank:.2f}" for row, rank in ordered)
            + ".",
            "",
        ]
    return "\n".join(lines) or "No block has all rows yet.\n"


def ranks_of_all(entries: Sequence[Entry], shares: Sequence[int]) -> str:
    """Return average ranks of all rows on probe ii, a column per share, over the blocks that have all of its rows."""
    columns: dict[str, dict[str, float]] = {}
    for share in shares:
        here = list(dict.fromkeys(entry.row for entry in entries if entry.share == share))
        if found := paired.ranks(entries, here, share, LARGE):
            columns[f"{share} %, {found.blocks} blocks, critical {found.critical:.1f}"] = found.mean
    if not columns:
        return "No block has all rows yet.\n"
    rows = {row: [mean.get(row) for mean in columns.values()] for mean in columns.values() for row in mean}
    # In the order of the first share: ranks among other numbers of rows are no means of one another.
    first = next(iter(columns.values()))
    best_first = sorted(rows, key=lambda row: first.get(row, math.inf))
    table = [[row, *("-" if rank is None else f"{rank:.1f}" for rank in rows[row])] for row in best_first]
    return markdown(("row", *columns), table)


def ablations(entries: Sequence[Entry], varied: Sequence[Entry]) -> str:
    """Return one row per factor and value, with the study's own runs as the usual value."""
    table = []
    for factor in paired.FACTORS:
        for method, points in paired.factor_points(factor, entries, varied).items():
            for value, runs in points.items():
                numbers = [
                    mean_and_spread(paired.values_of(runs, metric), scale, 1)
                    for metric, scale in ((SMALL, 100), (LARGE, 100), ("projection/SAA/minority", 1))
                ]
                bad, known = paired.collapsed(runs)
                usual = f"{value} (usual)" if value == factor.usual else value
                table.append([factor.title, method, usual, str(len(runs)), *numbers, f"{bad} of {known}"])
    heads = ("factor", "method", "value", "runs", "probe i acc", "probe ii acc", "SAA min", "collapsed")
    return markdown(heads, table) if table else "No run of this manifest is in the ledger yet.\n"


def final(entries: Sequence[Entry], shares: Sequence[int]) -> str:
    """Return the joint recipe's paired differences from each balanced baseline.

    By task, over the tasks that had no part in choosing the recipe, and over all.
    """
    table = []
    baselines = [row for row in dict.fromkeys(entry.row for entry in entries) if row != "joint"]
    for share in shares:
        for task in (*dict.fromkeys(entry.task for entry in entries), HELD_OUT, "all"):
            here = [
                entry
                for entry in entries
                if task in (entry.task, "all") or (task == HELD_OUT and entry.task != CHOSEN_ON)
            ]
            for row in baselines:
                cells = [
                    _difference(here, "joint", row, share, metric) for metric in (SMALL, SMALL_AUC, LARGE, LARGE_AUC)
                ]
                if any(cells):
                    table.append([f"{share} %", task, f"joint - {row}", *(cell or "-" for cell in cells)])
    heads = ("minority", "task", "difference", "probe i acc", "probe i AUC", "probe ii acc", "probe ii AUC")
    return markdown(heads, table) if table else "No run of this manifest is in the ledger yet.\n"
