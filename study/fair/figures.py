"""The figures of the fair study: accuracy against CAC and SAA, methods by task, effect of rate and length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
from scipy import stats

from study.fair import ledger
from study.fair.grid import RATES, ROWS, UNTRAINED, Run
from study.fair.page_tables import ALIGNMENT, AUROC, correlations
from study.fair.state import MAIN, State
from ttc.results.figure_style import COLOURS, panel_grid, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

KINDS = {
    "untrained": ("untrained",),
    "no labels": ("simclr",),
    "SupCon": ("supcon",),
    "the two fixes": ("supmin", "supproto"),
    "long-tailed contrast": ("kcl", "paco", "proco"),
    "cross-entropy": ("ce", "weighted-ce", "logit-adjusted-ce", "ldam-drw", "cutmix", "cutmix-average"),
    "joint": ("joint", "joint-average", "joint-sharp", "supcon-ce"),
}
"""Kind of method -> its rows, without the word for balanced batches."""
_COLOURS = dict(zip(KINDS, (COLOURS[number] for number in (6, 5, 1, 0, 3, 2, 4)), strict=True))
_COLUMNS, _SMALL = 5, 7.5


def kind_of(row: str) -> str:
    """Return the kind of method of a row."""
    base = row.removesuffix("-balanced")
    return next(kind for kind, rows in KINDS.items() if base in rows)


def balanced(row: str) -> bool:
    """Return whether half of each batch of a row is rare."""
    return row in ROWS and "balanced" in ROWS[row].words


def _panels(tasks: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    figure, panels = panel_grid(len(tasks), 1.85, height, _COLUMNS, shared_axes=False)
    for axes, task in zip(panels, tasks, strict=True):
        axes.set_title(task, fontsize=8.5)
        axes.tick_params(labelsize=_SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _legend(figure: Figure, abscissa: str, rows: Iterable[str], more: Sequence[Line2D] = ()) -> None:
    """Add the legend of the rows' kinds below the panels, with the name of their abscissa as its title."""
    from matplotlib.lines import Line2D

    used = set(map(kind_of, rows))
    handles = [Line2D([], [], color=_COLOURS[kind], marker="o", ls="", label=kind) for kind in KINDS if kind in used]
    handles += more
    columns = len(handles) if len(handles) < 7 else -(-len(handles) // 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False,
                  title=abscissa, title_fontsize=8.5)  # fmt: skip


def _mark(face: str, label: str, marker: str = "o") -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.3", marker=marker, markerfacecolor=face, ls="", label=label)


def draw_alignment(path_png: Path, state: State, measure: str) -> bool:
    """Draw the AUROC of probe ii against a measure of the embeddings: a panel per task, a mark per reported run.

    Args:
        path_png: file to write; a PDF is written beside it.
        state: of the ledger.
        measure: one of ALIGNMENT.

    Returns:
        Whether there is a run to draw; without one no file is written.
    """
    columns = [ALIGNMENT[measure], AUROC[1]]
    runs = state.runs.reindex(columns=["task", "row", *columns]).dropna()
    tasks = [task for task in MAIN if (runs["task"] == task).any()]
    if not tasks:
        return False
    figure, panels = _panels(tasks, 1.75)
    for axes, task in zip(panels, tasks, strict=True):
        of_task = runs[runs["task"] == task]
        for row, members in of_task.groupby("row", sort=False):
            colour = _COLOURS[kind_of(str(row))]
            face = colour if balanced(str(row)) else "none"
            axes.scatter(
                members[columns[0]], 100 * members[columns[1]], s=12, edgecolors=colour, facecolors=face, lw=0.8
            )
        rho, count = correlations(of_task)[measure, "ii"]
        axes.set_title(f"{task}\n{rho:+.2f} ({count} runs)", fontsize=8.5)
    abscissa = f"{measure}, %; above the panels: Spearman's rank correlation"
    _legend(figure, abscissa, runs["row"], [_mark("0.3", "balanced batches"), _mark("none", "shuffled batches")])
    figure.supylabel("probe ii, AUROC, %", fontsize=8.5)
    save(figure, path_png)
    return True


def draw_methods(path_png: Path, state: State) -> bool:
    """Draw the AUROC of both probes by row, a panel per task: means with 95 % t intervals over seeds."""
    runs = state.runs.reindex(columns=["task", "row", *AUROC]).dropna()
    tasks = [task for task in MAIN if (runs["task"] == task).any()]
    if not tasks:
        return False
    rows = [row for row in (UNTRAINED, *ROWS) if (runs["row"] == row).any()]
    rows.sort(key=lambda row: list(KINDS).index(kind_of(row)))
    figure, panels = _panels(tasks, 0.5 + 0.15 * len(rows))
    for axes, task in zip(panels, tasks, strict=True):
        for place, row in enumerate(rows):
            members = runs[(runs["task"] == task) & (runs["row"] == row)]
            if members.empty:
                continue
            for shift, column, marker, face in ((-0.17, AUROC[0], "s", "white"), (0.17, AUROC[1], "o", None)):
                values, colour = 100 * members[column], _COLOURS[kind_of(row)]
                half = stats.t.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else 0
                axes.errorbar(values.mean(), place + shift, xerr=half, color=colour, marker=marker, markersize=3,
                              markerfacecolor=face or colour, elinewidth=0.8, markeredgewidth=0.8)  # fmt: skip
        axes.set_ylim(len(rows) - 0.4, -0.6)
        place_in_grid = axes.get_subplotspec()
        first = place_in_grid is not None and place_in_grid.is_first_col()
        axes.set_yticks(range(len(rows)), rows if first else [""] * len(rows), fontsize=_SMALL)
        axes.grid(axis="both", lw=0.3, color="0.85")
        axes.set_axisbelow(True)
    abscissa = "AUROC on test images, %: mean and 95 % interval over seeds"
    _legend(figure, abscissa, rows, [_mark("white", "probe i", "s"), _mark("0.3", "probe ii")])
    save(figure, path_png)
    return True


def settings_of(state: State) -> pandas.DataFrame:
    """Return validation scores less that of the best short run, in points: a line per task, row and fold.

    Returns:
        Columns task, row, a column per rate of the short schedule, and "longer" for the long one at the best rate.
    """
    scored = ledger.scores(state.known)
    lines = []
    for short, long in ledger.rates(state.known, MAIN):
        tried = {f"{r:g}": Run(short.task, short.row, r, short.epochs, short.seed, short.fold).name for r in RATES}
        names = {**tried, "longer": long.name}
        gaps = {key: 100 * (scored.get(name, np.nan) - scored[short.name]) for key, name in names.items()}
        lines.append({"task": short.task, "row": short.row, **gaps})
    return pandas.DataFrame(lines, columns=["task", "row", *(f"{rate:g}" for rate in RATES), "longer"])


def draw_settings(path_png: Path, state: State) -> bool:
    """Draw what rate and length change on validation images: a panel per task; thick lines are means of kinds."""
    table = settings_of(state)
    tasks = [task for task in MAIN if (table["task"] == task).any()]
    if not tasks:
        return False
    figure, panels = _panels(tasks, 1.75)
    keys = list(table.columns[2:])
    for axes, task in zip(panels, tasks, strict=True):
        of_task = table[table["task"] == task]
        for kind, members in of_task.groupby(of_task["row"].map(kind_of)):
            values, colour = members[keys].to_numpy(), _COLOURS[str(kind)]
            axes.plot(values[:, :-1].T, color=colour, lw=0.5, alpha=0.35)
            axes.plot(values[:, :-1].mean(axis=0), color=colour, lw=1.6)
            # Kinds side by side: equal values would hide each other.
            place = len(keys) - 1 + 0.13 * (list(KINDS).index(str(kind)) - len(KINDS) / 2)
            axes.plot([place] * len(values), values[:, -1], "_", color=colour, ms=4, alpha=0.5)
            axes.plot(place, values[:, -1].mean(), "o", color=colour, ms=3.5)
        axes.axhline(0, color="0.6", lw=0.6)
        axes.set_xticks(range(len(keys)), [*keys[:-1], "x4"], fontsize=_SMALL)
    abscissa = "peak learning rate of the short schedule; x4: four times as long, at the best rate"
    _legend(figure, abscissa, table["row"])
    figure.supylabel("validation AUROC, points\nfrom the best short run", fontsize=8.5)
    save(figure, path_png)
    return True


def draw(folder: Path, state: State) -> list[str]:
    """Draw all figures for which there are runs, and return their names."""
    drawn = {
        "fair-cac.png": draw_alignment(folder / "fair-cac.png", state, "CAC minority"),
        "fair-saa.png": draw_alignment(folder / "fair-saa.png", state, "SAA minority"),
        "fair-methods.png": draw_methods(folder / "fair-methods.png", state),
        "fair-settings.png": draw_settings(folder / "fair-settings.png", state),
    }
    return [name for name, done in drawn.items() if done]
