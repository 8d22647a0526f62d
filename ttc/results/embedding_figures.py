"""Figures of embeddings: of one run, of several side by side, and of methods against ratios.

Shape suffixes: V views, N samples, D dimensions, C classes.
Only the first view of each sample is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ttc.results.embedding_panels import draw_circle, draw_cosines, draw_scatter, first_view, some
from ttc.results.figure_style import class_legend, no_data, panel_grid, save, wrapped
from ttc.run.log import with_bar

Embedded: TypeAlias = tuple[str, ArrayLike, ArrayLike, ArrayLike | None]
"""Title, embeddings [V, N, D], labels [N], and prototypes [C, D] or None."""

_MOST_COLUMNS = 9


def save_embedding_figure(
    path_png: Path,
    embeddings: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    *,
    prototypes: ArrayLike | None = None,
    title: str | None = None,
    scatter: str = "pca",
) -> None:
    """Draw one set of embeddings in three panels and save it as PNG and, beside it, as PDF.

    Args:
        path_png: File to write; the PDF differs in the suffix only.
        embeddings: [V, N, D]; rows need not be normalised, none may be zero.
        labels: [N] integers in [0, C).
        class_names: One name per class.
        prototypes: [C, D] class prototypes; the horizontal axis of the circle is then prototype 1 - prototype 0,
            otherwise the difference of the two class means.
        title: Text above the panels.
        scatter: "pca" or "tsne".

    Raises:
        ValueError: For an unknown `scatter`, or shapes that do not fit each other.
    """
    from matplotlib.figure import Figure

    rows_ND, labels_N = first_view(embeddings, labels, class_names)
    figure = Figure(figsize=(11, 4.0), layout="constrained")
    circle, plane, histogram = figure.subplots(1, 3)
    draw_circle(circle, rows_ND, labels_N, prototypes)
    draw_scatter(plane, rows_ND, labels_N, scatter)
    draw_cosines(histogram, rows_ND, labels_N, class_names)
    circle.set_title("projection on the class axis", fontsize=10)
    plane.set_title({"pca": "first two principal components", "tsne": "t-SNE"}[scatter], fontsize=10)
    histogram.set_title("cosines of pairs of samples", fontsize=10)
    class_legend(figure, labels_N, class_names, prototypes=prototypes is not None)
    if title:
        figure.suptitle(title, fontsize=11)
    save(figure, path_png)


def save_comparison_figure(
    path_png: Path,
    runs: Sequence[Embedded],
    class_names: Sequence[str],
) -> None:
    """Draw several runs side by side: circles above, histograms of pairwise cosines below.

    Args:
        path_png: File to write; a PDF is written beside it.
        runs: (title, embeddings [V, N, D], labels [N], prototypes [C, D] or None) of each column.
        class_names: One name per class, the same in each run.

    Raises:
        ValueError: For no runs, or shapes that do not fit each other.
    """
    from matplotlib.figure import Figure

    if not runs:
        raise ValueError("a comparison needs at least one run")
    figure = Figure(figsize=(max(5.0, 1.9 * len(runs)), 4.1), layout="constrained")
    panels = figure.subplots(2, len(runs), squeeze=False, height_ratios=[1.15, 1.0])
    for column, (title, embeddings, labels, prototypes) in enumerate(runs):
        rows_ND, labels_N = first_view(embeddings, labels, class_names)
        circle, histogram = panels[:, column]
        draw_circle(circle, rows_ND, labels_N, prototypes)
        draw_cosines(histogram, rows_ND, labels_N, class_names, legend=False)
        circle.set_title(wrapped(title, 18, at_hyphens=True), fontsize=9)
        if column:
            histogram.set_ylabel("")
            histogram.set_yticklabels([])
    drawn = any(prototypes is not None for *_, prototypes in runs)
    class_legend(figure, labels_N, class_names, prototypes=drawn, between=True)
    save(figure, path_png)


def save_grid_figure(
    path_png: Path,
    grid: Sequence[tuple[str, Sequence[Embedded | None]]],
    class_names: Sequence[str],
    *,
    panel: str,
    most_points: int = 600,
) -> None:
    """Draw the embeddings of many runs, one panel each: rows are ratios or data sets, columns methods.

    Args:
        path_png: File to write; a PDF is written beside it.
        grid: (name of the row, its runs), all rows of the same length; None where there is no such run. A single
            row is wrapped, nine panels in a line; more than nine methods and fewer rows change places.
        class_names: One name per class, the same in each run.
        panel: "circle", "pca" or "tsne".
        most_points: t-SNE draws at most so many samples of each class, evenly thinned out.

    Raises:
        ValueError: For no runs, an unknown panel, or shapes that do not fit each other.
    """
    runs = [run for _, members in grid for run in members if run is not None]
    if not runs:
        raise ValueError("a grid needs at least one run")
    columns = max(len(members) for _, members in grid)
    column_names = [next((run[0] for _, members in grid if (run := members[place])), "") for place in range(columns)]
    row_names = [name for name, _ in grid]
    entries = [run for _, members in grid for run in members]
    several = len(grid) > 1
    turned = several and columns > max(_MOST_COLUMNS, len(grid))
    if turned:
        entries = [members[place] for place in range(columns) for _, members in grid]
        column_names, row_names, columns = row_names, column_names, len(grid)
    figure, panels = panel_grid(
        len(entries), 1.7, 1.6 if turned else 1.9, columns if several else _MOST_COLUMNS, shared_axes=False
    )
    for place, (axes, run) in with_bar([*enumerate(zip(panels, entries, strict=True))], panel):
        if several and place % columns == 0:
            # Names of methods are long: beside a row they are read from left to right.
            axes.text(
                -0.08, 0.5, wrapped(row_names[place // columns], 18), rotation=0 if turned else 90,
                ha="right", va="center", fontsize=8, transform=axes.transAxes,
            )  # fmt: skip
        if place < columns or not several:
            axes.set_title(wrapped(column_names[place], 20), fontsize=8)
        if run is None:
            no_data(axes)
            continue
        axes.axis("off")
        _, embeddings, labels, prototypes = run
        rows_ND, labels_N = first_view(embeddings, labels, class_names)
        if panel == "circle":
            draw_circle(axes, rows_ND, labels_N, prototypes)
        else:
            drawn_rows = np.concatenate([some(labels_N, label, most_points) for label in np.unique(labels_N)])
            draw_scatter(axes, rows_ND[drawn_rows], labels_N[drawn_rows], panel)
            axes.set_box_aspect(1)
    drawn = panel == "circle" and any(prototypes is not None for *_, prototypes in runs)
    class_legend(figure, np.asarray(runs[0][2], dtype=np.int64), class_names, prototypes=drawn)
    save(figure, path_png)
