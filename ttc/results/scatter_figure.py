"""A number of each run against two others: the accuracy of a probe against the arrangement of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ttc.results.figure_style import COLOURS, save, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

_MARKERS = "os^Dv*PX<>"
_FILLED = 7
"""Colours that are used: the eighth, yellow, is too pale for small marks. More rows are drawn hollow, then pale."""


def save_scatter_figure(
    path_png: Path,
    rows: Mapping[tuple[str, str], Sequence[tuple[float, float, float]]],
    labels: tuple[str, str, str],
    splits: int = 0,
) -> None:
    """Draw two numbers of each run against a third: a colour per row of the table, a shape per group of rows.

    Args:
        path_png: File to write; a PDF is written beside it.
        rows: (group, row) -> (x of the left panel, x of the right panel, y) of each seed.
        labels: Names of the three numbers.
        splits: How many different splits of the data the runs had; 0 if unknown.
    """
    from matplotlib.figure import Figure

    groups, names = (list(dict.fromkeys(key[place] for key in rows)) for place in (0, 1))
    entries = len(names) + (len(groups) + 1 if len(groups) > 1 else 0)
    figure = Figure(figsize=(9.5, max(3.9, 0.19 * entries)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    all_points = [point for points in rows.values() for point in points]
    basis = f"{_counted(len(all_points), 'run')} of {_counted(len({name for _, name in rows}), 'method')}"
    basis += f", {_counted(splits, 'split')}" if splits else ""
    for side, axes in enumerate(panels):
        for (group, name), points in rows.items():
            _mark(axes, [point[side] for point in points], [point[2] for point in points],
                  names.index(name), groups.index(group))  # fmt: skip
        correlation = _rank_correlation([point[side] for point in all_points], [point[2] for point in all_points])
        axes.set_xlabel(labels[side], fontsize=9)
        axes.set_title(f"rank correlation {correlation:.2f}: {basis}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(labels[2], fontsize=9)
    handles = [_mark(panels[0], [], [], number, 0) for number in range(len(names))]
    if len(groups) > 1:
        handles.append(panels[0].scatter([], [], s=0))
        handles += [
            panels[0].scatter([], [], s=30, color="0.45", marker=_MARKERS[number % len(_MARKERS)], linewidths=0)
            for number in range(len(groups))
        ]
        names = [*names, "", *groups]
    wrapped_names = [wrapped(name, 34) for name in names]  # a long name would leave the panels no room
    figure.legend(handles, wrapped_names, loc="outside right center", fontsize=8, frameon=False)
    save(figure, path_png)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _mark(axes: Axes, x: Sequence[float], y: Sequence[float], row: int, group: int) -> PathCollection:
    """Draw the runs of a row."""
    colour, marker, style = COLOURS[row % _FILLED], _MARKERS[group % len(_MARKERS)], row // _FILLED % 3
    fill = ((colour, 0.85), "none", (colour, 0.25))[style]
    return axes.scatter(x, y, s=30, facecolors=fill, edgecolors=colour, marker=marker, linewidths=1.0 if style else 0.0)


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's coefficient; NaN for fewer than three runs."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic) if len(first) > 2 else float("nan")
