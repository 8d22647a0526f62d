"""The tables of docs/study-first.md: what was run, all rows at one share, paired differences, ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas

from study import paired
from ttc.losses import METHODS
from ttc.results.floor.rows import ROW
from ttc.run.manifest import Line

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
    planned: Sequence[Line]
    runs: pandas.DataFrame


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def coverage(sweeps: Sequence[Sweep]) -> str:
    """Say how many runs of each manifest are in the ledger."""
    rows = [
        (
            f"[{sweep.name}](../scripts/manifests/{sweep.name}.csv)",
            str(len(sweep.planned)),
            str(len(sweep.runs)),
            ", ".join(sorted(map(str, sweep.runs["seed"].unique()))) or "-",
        )
        for sweep in sweeps
    ]
    return markdown(("manifest", "runs planned", "runs in the ledger", "seeds"), rows)


def mean_and_spread(values: pandas.Series, scale: float, digits: int) -> str:
    """Return mean ± standard deviation, without the latter for one value; "-" for none."""
    if values.empty:
        return "-"
    text = f"{scale * values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {scale * values.std():.{digits}f}"


def all_rows(runs: pandas.DataFrame, share: int) -> str:
    """Return the table of one share: probe ii by task, then all metrics over tasks and seeds; the floor comes last."""
    runs = paired.with_floors(runs[runs["share"] == share])
    tasks = runs["task"].unique()
    table = []
    for row, members in runs.groupby("row", sort=False):
        by_task = [paired.values_of(members[members["task"] == task], LARGE) for task in tasks]
        table.append(
            [
                row,
                str(len(members)),
                *(mean_and_spread(values, 100, 1) for values in by_task),
                *(_mean(members, metric, scale, digits) for metric, _, scale, digits in METRICS),
            ]
        )
    headings = ("row", "runs", *(f"{task}, ii" for task in tasks), *(heading for _, heading, _, _ in METRICS))
    return markdown(headings, table)


def _mean(runs: pandas.DataFrame, metric: str, scale: float, digits: int) -> str:
    values = paired.values_of(runs, metric)
    # A run that shared its machine with others took longer: such times say nothing of the row, and pull at a mean.
    average = values.median() if metric == SECONDS else values.mean()
    return "-" if values.empty else f"{scale * average:.{digits}f}"


def _share_collapsed(runs: pandas.DataFrame) -> str:
    bad, measured = paired.collapsed(runs)
    return f"{bad} of {measured}" if measured else "-"


def summary(runs: pandas.DataFrame) -> str:
    """Return the main rows' probe ii, minority SAA and collapsed runs at each share."""
    runs, table = paired.with_floors(runs), []
    for row in (ROW, *SUMMARY_ROWS):
        cells = [row]
        for share in SHARES:
            members = paired.at(runs, row, share)
            accuracy = mean_and_spread(paired.values_of(members, LARGE), 100, 1)
            cells += [accuracy, _mean(members, "projection/SAA/minority", 1, 1), _share_collapsed(members)]
        if any(cell != "-" for cell in cells[1:]):
            table.append(cells)
    headings = [heading for share in SHARES for heading in (f"{share} %: probe ii acc", "SAA min", "collapsed")]
    return markdown(("row", *headings), table)


def collapse(runs: pandas.DataFrame, shares: Sequence[int]) -> str:
    """Return how many runs of each row collapsed, at each share; only rows of which some did."""
    table = [
        [row, *(_share_collapsed(members[members["share"] == share]) for share in shares)]
        for row, members in runs.groupby("row", sort=False)
        if paired.collapsed(members[members["share"].isin(shares)])[0]
    ]
    return markdown(("row", *(f"{share} %" for share in shares)), table)


def differences(runs: pandas.DataFrame, shares: Sequence[int]) -> str:
    """Answer the questions with paired differences of both probes' balanced accuracy."""
    table = []
    for question, pairs in QUESTIONS:
        for share in shares:
            for a, b in pairs:
                cells = [_difference(runs, a, b, share, metric) for metric in (SMALL, LARGE)]
                if any(cells):
                    table.append([question, f"{share} %", f"{a} - {b}", *(cell or "-" for cell in cells)])
                    question = ""
    return markdown(("question", "minority", "difference", "probe i, points", "probe ii, points"), table)


def _difference(runs: pandas.DataFrame, a: str, b: str, share: int, metric: str) -> str:
    difference = paired.paired(runs, a, b, share, metric)
    if difference is None:
        return ""
    text = f"{100 * difference.mean:+.1f}"
    if difference.error is None or difference.p is None:
        return f"{text} (1 pair)"
    sure = "**" if difference.p < 0.05 else ""
    chance = "< 0.001" if difference.p < 0.001 else f"= {difference.p:.3f}"
    count = f"{difference.positive} of {difference.pairs}"
    return f"{sure}{text} ± {100 * difference.error:.1f}{sure} ({count}, p {chance})"


def rank_table(runs: pandas.DataFrame, shares: Sequence[int], rows: Sequence[str]) -> str:
    """Return average ranks on probe ii over tasks and seeds, best first, with the critical difference."""
    lines = []
    for share in shares:
        present = set(runs["row"][runs["share"] == share])
        ranking = paired.ranks(runs, [row for row in rows if row in present], share, LARGE)
        if ranking is None:
            continue
        ordered = sorted(ranking.mean.items(), key=lambda item: item[1])
        lines += [
            f"**{share} % minority**, {ranking.blocks} blocks, critical difference {ranking.critical:.2f}: "
            + ", ".join(f"{row} {rank:.2f}" for row, rank in ordered)
            + ".",
            "",
        ]
    return "\n".join(lines) or "No block has all rows yet.\n"


def ranks_of_all(runs: pandas.DataFrame, shares: Sequence[int]) -> str:
    """Return average ranks of all rows on probe ii, a column per share, over the blocks that have all of its rows."""
    columns: dict[str, dict[str, float]] = {}
    for share in shares:
        rows = list(runs["row"][runs["share"] == share].unique())
        if ranking := paired.ranks(runs, rows, share, LARGE):
            columns[f"{share} %, {ranking.blocks} blocks, critical {ranking.critical:.1f}"] = ranking.mean
    if not columns:
        return "No block has all rows yet.\n"
    # In the order of the first share: ranks among other numbers of rows are no means of one another.
    first = next(iter(columns.values()))
    rows = sorted(dict.fromkeys(row for mean in columns.values() for row in mean), key=lambda r: first.get(r, math.inf))
    table = [[row, *(f"{mean[row]:.1f}" if row in mean else "-" for mean in columns.values())] for row in rows]
    return markdown(("row", *columns), table)


def ablations(runs: pandas.DataFrame, varied: pandas.DataFrame) -> str:
    """Return one row per factor and value, with the study's own runs as the usual value."""
    table = []
    for factor in paired.FACTORS:
        for method, points in paired.factor_points(factor, runs, varied).items():
            for value, members in points.items():
                numbers = [
                    mean_and_spread(paired.values_of(members, metric), scale, 1)
                    for metric, scale in ((SMALL, 100), (LARGE, 100), ("projection/SAA/minority", 1))
                ]
                bad, measured = paired.collapsed(members)
                usual = f"{value} (usual)" if value == factor.usual else value
                table.append([factor.title, method, usual, str(len(members)), *numbers, f"{bad} of {measured}"])
    headings = ("factor", "method", "value", "runs", "probe i acc", "probe ii acc", "SAA min", "collapsed")
    return markdown(headings, table) if table else "No run of this manifest is in the ledger yet.\n"


def final(runs: pandas.DataFrame, shares: Sequence[int]) -> str:
    """Return the joint recipe's paired differences from each balanced baseline.

    By task, over the tasks that had no part in choosing the recipe, and over all.
    """
    tasks = {task: runs["task"] == task for task in runs["task"].unique()}
    tasks |= {HELD_OUT: runs["task"] != CHOSEN_ON, "all": runs["task"].notna()}
    table = []
    for share in shares:
        for task, chosen in tasks.items():
            for row in runs["row"][runs["row"] != "joint"].unique():
                metrics = (SMALL, SMALL_AUC, LARGE, LARGE_AUC)
                cells = [_difference(runs[chosen], "joint", row, share, metric) for metric in metrics]
                if any(cells):
                    table.append([f"{share} %", task, f"joint - {row}", *(cell or "-" for cell in cells)])
    headings = ("minority", "task", "difference", "probe i acc", "probe i AUC", "probe ii acc", "probe ii AUC")
    return markdown(headings, table) if table else "No run of this manifest is in the ledger yet.\n"
