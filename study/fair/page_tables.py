"""Tables of the fair study that describe: what was run, chosen settings, results by task, ranks, correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas

from study.fair import ledger
from study.fair.grid import (
    BEGUN,
    LONGER,
    RATES,
    ROWS,
    SEEDS,
    STARTS,
    TASKS,
    UNTRAINED,
    Run,
    rows_reported,
    short_epochs,
)
from study.fair.ledger import OF_PROBES, PROBES
from study.fair.state import MAIN, STAGES, STARTED, State, expected
from study.tables import markdown, mean_and_spread
from ttc.metrics.representation import COLLAPSED_COSINE

FLOOR = "floor"
COSINE = "projection/mean_cosine/all"
AUROC = tuple(f"test/{probe}/auroc" for probe in PROBES)
ALIGNMENT = {
    "CAC minority": "projection/CAC/minority",
    "CAC macro": "projection/CAC/macro",
    "SAA minority": "projection/SAA/minority",
    "SAA majority": "projection/SAA/majority",
}
_METRICS = {"auroc": "AUROC", "balanced_accuracy": "bal. acc.", "auprc": "AUPRC"}
_RESULTS = [(metric, probe) for metric in OF_PROBES for probe in PROBES]


def status(state: State) -> str:
    """Say whether the ledger is complete, and what it lacks if it is not."""
    commits = state.known["commit"].value_counts() if "commit" in state.known else pandas.Series(dtype=int)
    names = ", ".join(f"{str(commit)[:10]} ({count})" for commit, count in commits.items()) or "none"
    if state.complete:
        return f"All {state.total:,} planned runs are in the ledger. Commits (runs): {names}.\n"
    reported = state.coverage["reported"]
    waiting = [task for task in TASKS if reported[task] < expected("reported", task)]
    return (
        f"**Not complete:** {state.held:,} of {state.total:,} planned runs are in the ledger; every number below rests "
        f"on what is there. Reported runs are missing of: {', '.join(waiting) or 'no task'}. Commits (runs): {names}.\n"
    )


def coverage(state: State) -> str:
    """Return how many runs of each stage of a task are in the ledger, and the seeds of the reported ones."""
    lines = []
    for task, counts in state.coverage.iterrows():
        seeds = sorted(state.runs["seed"][state.runs["task"] == task].unique())
        held = [f"{counts[stage]} of {expected(stage, str(task))}" for stage in STAGES]
        lines.append([str(task), *held, ", ".join(map(str, seeds)) or "-", str(counts["other"])])
    return markdown(("task", *STAGES, "reported seeds", "other runs"), lines)


def grid_of(cell: Callable[[str, str], str], tasks: Sequence[str], rows: Sequence[str] = tuple(ROWS)) -> str:
    """Return a table with a line per row and a column per task; a row that a task does not have is "-"."""
    rows_of = {task: rows_reported(task) for task in tasks}
    names = [name for name in rows if any(name in of_task for of_task in rows_of.values())]
    lines = [[name, *(cell(task, name) if name in rows_of[task] else "-" for task in tasks)] for name in names]
    return markdown(("row", *tasks), lines)


def _setting(run: Run) -> str:
    return f"{run.rate:g}" + (f" x{LONGER}" if run.epochs > short_epochs(run.task, run.row) else "")


def settings(state: State) -> str:
    """Return the chosen rate of each row and task, with "x4" for the long schedule; of folds one each, in order."""
    chosen: dict[tuple[str, str], list[str]] = {}
    for run in state.settings:
        chosen.setdefault((run.task, run.row), []).append(_setting(run))

    def cell(task: str, row: str) -> str:
        return ", ".join(chosen.get((task, row), ["open"]))

    return f"{grid_of(cell, MAIN)}\n{grid_of(cell, STARTED)}"


def _points(runs: pandas.DataFrame, column: str, scale: float = 100) -> str:
    return mean_and_spread(runs[column].dropna() if column in runs else pandas.Series(dtype=float), scale, 1)


def collapsed(runs: pandas.DataFrame) -> tuple[int, int]:
    """Return how many runs end with all test embeddings in nearly one direction, and how many were measured."""
    cosines = runs[COSINE].dropna() if COSINE in runs else pandas.Series(dtype=float)
    return int((cosines >= COLLAPSED_COSINE).sum()), len(cosines)


def _result(name: str, runs: pandas.DataFrame, of: str = "test") -> list[str]:
    cells = [_points(runs, f"{of}/{probe}/{metric}") for metric, probe in _RESULTS]
    if of == FLOOR:
        return [name, "-", *cells, "-", "-", "-"]
    bad, measured = collapsed(runs)
    embeddings = [_points(runs, ALIGNMENT[metric], 1) for metric in ("SAA minority", "CAC minority")]
    return [name, f"{len(runs)} of {len(SEEDS)}", *cells, f"{bad} of {measured}" if measured else "-", *embeddings]


def results_of(state: State, task: str) -> str:
    """Return the table of a task: means ± standard deviations over seeds in percent, the floor of raw pixels first."""
    runs = state.runs[state.runs["task"] == task]
    title = f"### {task}\n\n"
    if runs.empty:
        return f"{title}Not run yet.\n"
    positives = sorted(runs["positives"].dropna().astype(int).unique()) if "positives" in runs else []
    rare = " to ".join(f"{count:,}" for count in dict.fromkeys(positives[:1] + positives[-1:])) or "unknown"
    each = " in each fold" if TASKS[task].folds else ""
    lines = [] if task in STARTED else [_result(FLOOR, runs[runs["row"] == UNTRAINED], FLOOR)]
    lines += [_result(row, runs[runs["row"] == row]) for row in rows_reported(task)]
    headings = [f"{_METRICS[metric]} {probe}" for metric, probe in _RESULTS]
    table = markdown(("row", "runs", *headings, "collapsed", "SAA min", "CAC min"), lines)
    return f"{title}Test positives{each}: {rare}.\n\n{table}"


def results(state: State) -> str:
    """Return the tables of all tasks that begin with random weights."""
    return "\n".join(results_of(state, task) for task in MAIN)


def starts(state: State) -> str:
    """Return the tables of the pretrained starts."""
    return "\n".join(results_of(state, task) for task in STARTED)


def starts_compared(state: State) -> str:
    """Return mean AUROC, "probe i / probe ii", by what an encoder began with and by how much of it was trained.

    On a frozen encoder "untrained" is its own probe, every other row that of a projector trained on it.
    """
    means = state.runs.groupby(["task", "row"])[list(AUROC)].mean() * 100

    def cell(task: str, row: str) -> str:
        if row not in rows_reported(task):
            return "-"
        return " / ".join(f"{value:.1f}" for value in means.loc[(task, row)]) if (task, row) in means.index else "open"

    columns = {"random": "", **{start: f"-from-{start}" for start in STARTS}}
    lines = []
    for base in BEGUN:
        for row in rows_reported(f"{base}{columns['ce']}"):
            cells = []
            for start, ending in columns.items():
                frozen, whole = cell(f"{base}-frozen-{start}", row), cell(base + ending, row)
                cells += [whole, "-"] if row == UNTRAINED else [frozen, whole]
            lines.append([base, row, *cells])
    return markdown(("task", "row", *(f"{start}, {mode}" for start in columns for mode in ("frozen", "all"))), lines)


def ranks(state: State) -> str:
    """Return each row's rank in AUROC, averaged over seeds, of rows with all seeds: "probe i / probe ii" by task."""
    table: dict[tuple[str, str], list[str]] = {}
    for task in MAIN:
        runs = state.runs[state.runs["task"] == task]
        for column in AUROC:
            values = runs.pivot(index="seed", columns="row", values=column) if column in runs else pandas.DataFrame()
            values = values.reindex(list(SEEDS)).dropna(axis="columns")
            for row, rank in values.rank(axis="columns", ascending=False).mean().items():
                table.setdefault((task, str(row)), []).append(f"{rank:.1f}")
    return grid_of(lambda task, row: " / ".join(table.get((task, row), ["open"])), MAIN, (UNTRAINED, *ROWS))


def correlations(runs: pandas.DataFrame) -> dict[tuple[str, str], tuple[float, int]]:
    """Return Spearman's correlation with AUROC and the number of runs, for each measure of ALIGNMENT and each probe.

    Args:
        runs: of one task. NaN for fewer than three of them.
    """
    values = {}
    for name, column in ALIGNMENT.items():
        for probe, auroc in zip(PROBES, AUROC, strict=True):
            pairs = runs.reindex(columns=[column, auroc]).dropna()
            rho = pairs[column].corr(pairs[auroc], method="spearman") if len(pairs) > 2 else float("nan")
            values[name, probe] = float(rho), len(pairs)
    return values


def alignment(state: State) -> str:
    """Return Spearman's correlations of SAA and CAC with the AUROC of both probes, over the reported runs of a task."""
    lines = []
    for task in MAIN:
        found = correlations(state.runs[state.runs["task"] == task])
        cells = [
            " / ".join(
                "-" if pandas.isna(found[name, probe][0]) else f"{found[name, probe][0]:+.2f}" for probe in PROBES
            )
            for name in ALIGNMENT
        ]
        lines.append([task, str(max(count for _, count in found.values())), *cells])
    return markdown(("task", "runs", *(f"{name}: i / ii" for name in ALIGNMENT)), lines)


def sensitivity(state: State) -> pandas.DataFrame:
    """Return what rate and length change on validation images, a line per task, row and fold, from the tuning runs.

    Returns:
        "rate": score of the best rate less that of the worst; "length": long less short schedule, at the best rate,
        NaN where none was tried. Scores are means of both probes' AUROC.
    """
    scored = ledger.scores(state.known)
    lines = []
    for short, long in ledger.rates(state.known, list(TASKS)):
        tried = [scored[Run(short.task, short.row, rate, short.epochs, short.seed, short.fold).name] for rate in RATES]
        gain = scored.get(long.name, float("nan")) - scored[short.name]
        lines.append((short.task, short.row, max(tried) - min(tried), gain))
    return pandas.DataFrame(lines, columns=["task", "row", "rate", "length"])


def tuning(state: State) -> str:
    """Return what rate and length change by row and task, in points of validation score: "rate, length"."""
    means = sensitivity(state).groupby(["task", "row"])[["rate", "length"]].mean() * 100

    def cell(task: str, row: str) -> str:
        if (task, row) not in means.index:
            return "open"
        rate, length = means.loc[(task, row)]
        return f"{rate:.1f}, " + ("open" if pandas.isna(length) else f"{length:+.1f}")

    return grid_of(cell, MAIN)
