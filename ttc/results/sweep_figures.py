"""All figures of a sweep, from what its runs have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas

from ttc.evaluation.predictions import Predictions, read_predictions
from ttc.results import curve_figures, embedding_figures
from ttc.results.collect import Run
from ttc.results.figure_style import drawing, without_common_words
from ttc.results.scatter_figure import save_scatter_figure
from ttc.results.table_parts.row_names import places_of
from ttc.run.escape import plain
from ttc.run.folder import logged_curve
from ttc.run.log import log
from ttc.run.npz import read_embeddings
from ttc.run.readers import read_positive_class

SCATTERED = ("projection/SAA/macro", "projection/CAC/macro", "encoder/{probe}/balanced_accuracy")
"""Metrics that the scatter needs in the ledger."""

T = TypeVar("T")

_WIDE = 9
"""Most methods beside each other; where there are more, and fewer groups, they are below each other."""


@dataclass(frozen=True)
class Figure:
    """A figure that was written: PNG (the PDF is beside it), a short title, and how to read it."""

    path: Path
    title: str
    caption: str


Planned = list[tuple[Figure, Callable[[], None]]]
"""Figures, each with what draws it."""


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its folder, and the group and row of the table that it belongs to."""

    path: Path
    group: str
    row: str
    seed: int


def members_of(runs: Sequence[Run], compared: frozenset[str] | None = None) -> list[Member]:
    """Return the runs of a sweep with their places in the table; rows may differ in the flags of `compared`."""
    places = places_of(runs, compared)
    return [
        Member(run.path, group, row, int(str(run.training["seed"])))
        for run, (group, row) in zip(runs, places, strict=True)
    ]


def draw(
    members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str, kinds: Sequence[str]
) -> list[Figure]:
    """Draw figures of a sweep; runs that lack what a figure needs are left out of it with a warning.

    Args:
        members: the runs.
        lines: their ledger.
        folder: where the figures go; it is made.
        probe: whose predictions and accuracy are drawn: "all", "minority" or "fraction".
        kinds: names of KINDS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Figure] = []
    for kind in kinds:
        planned = KINDS[kind](members, lines, folder, probe)
        if not planned:
            log.warning("figure %s is left out: no run has what it needs", kind)
        for figure, save in planned:
            with drawing(figure.path):
                save()
                drawn.append(figure)
    return drawn


def _rows(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Return the members by row; the group is part of the name where there are several."""
    several = len({member.group for member in members}) > 1
    out: dict[str, list[Member]] = {}
    for member in members:
        out.setdefault(_name(member.row, member.group, several), []).append(member)
    return out


def _name(row: str, group: str, several: bool) -> str:
    return f"{plain(row)}\n{plain(group)}" if several else plain(row)


def _laid_out(members: Sequence[Member], by_row: Mapping[str, T]) -> tuple[dict[str, T | None], int]:
    """Return the values of the rows in the order of the panels, None where there is no run, and the panels in a line.

    Several groups make a grid: one row of the table below the other, or, where there are too many, beside each other.
    """
    groups, rows = (list(dict.fromkeys(getattr(member, part) for member in members)) for part in ("group", "row"))
    rows = [row for row in rows if any(_name(row, group, len(groups) > 1) in by_row for group in groups)]
    if len(groups) == 1:
        return dict(by_row), 5
    if len(rows) <= max(_WIDE, len(groups)):
        names, columns = [_name(row, group, True) for group in groups for row in rows], len(rows)
    else:
        names, columns = [_name(row, group, True) for row in rows for group in groups], len(groups)
    return {name: by_row.get(name) for name in names}, columns


def _existing(member: Member, *names: str) -> Path | None:
    path = member.path.joinpath(*names)
    if not path.is_file():
        log.warning("%s is missing; the run is left out of a figure", path)
    return path if path.is_file() else None


def _predictions(members: Sequence[Member], probe: str) -> dict[str, list[Predictions]]:
    out: dict[str, list[Predictions]] = {}
    for name, row in _rows(members).items():
        for member in row:
            path = _existing(member, "linear_eval", "predictions.csv")
            if path is not None:
                positive = read_positive_class(path.parent / "result.json", member.path)
                predictions = read_predictions(path, probe, positive, within=member.path)
                if predictions is not None:
                    out.setdefault(name, []).append(predictions)
    return out


def _discrimination(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    rows = _predictions(members, probe)
    if not rows:
        return []
    bands = {name: curve_figures.roc_and_pr(predictions) for name, predictions in rows.items()}
    prevalence = float(np.mean([run.labels_N.mean() for runs in rows.values() for run in runs]))
    reading = "Blue: mean over seeds with the 95 % band of the bootstrap; grey: the other rows; dotted: chance."
    if any(run.groups is not None for runs in rows.values() for run in runs):
        reading += " The bootstrap draws whole groups."
    planned: Planned = []
    for number, (kind, title, axes, chance) in enumerate(
        (
            ("roc", "ROC", ("false-positive rate", "true-positive rate"), None),
            ("pr", "Precision and recall", ("recall", "precision"), prevalence),
        )
    ):
        path = folder / f"{kind}.png"
        grid, columns = _laid_out(members, {name: pair[number] for name, pair in bands.items()})
        figure = Figure(path, f"{title}, probe {probe}", f"Test samples, first draw of the probe. {reading}")
        save = partial(
            curve_figures.save_band_figure, path, grid, x_label=axes[0], y_label=axes[1], chance=chance, columns=columns
        )
        planned.append((figure, save))
    return planned


def _reliability(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    rows = _predictions(members, probe)
    if not rows:
        return []
    grid, columns = _laid_out(members, rows)
    caption = "Ten bins of equally many test samples, 95 % intervals; what lies on the dotted line can be believed."
    figure = Figure(folder / "reliability.png", f"Reliability, probe {probe}", caption)
    return [(figure, partial(curve_figures.save_reliability_figure, figure.path, grid, columns=columns))]


def _training(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    planned: Planned = []
    for key, name, label, caption in (
        ("train/loss_over_collapse", "training_loss", "loss / collapse value",
         "Training loss divided by its value when all embeddings are equal: at 1 the run has collapsed."),
        ("watch/mean_cosine", "training_cosine", "mean cosine",
         "Mean cosine of the embeddings of a fixed validation subset: 1 is a single point."),
    ):  # fmt: skip
        rows: dict[str, list[tuple[list[float], list[float]]]] = {}
        for row, runs in _rows(members).items():
            for member in runs:
                path = member.path / "metrics.jsonl"
                points = logged_curve(path, key) if path.is_file() else []
                if points:
                    rows.setdefault(row, []).append(([x for x, _ in points], [y for _, y in points]))
        if rows:
            grid, columns = _laid_out(members, rows)
            caption += " Blue: the seeds of the row; grey: the other rows."
            figure = Figure(folder / f"{name}.png", f"Training: {label}", caption)
            planned.append(
                (figure, partial(curve_figures.save_training_figure, figure.path, grid, label, columns=columns))
            )
    return planned


def _embeddings(panel: str) -> Callable[[Sequence[Member], pandas.DataFrame, Path, str], Planned]:
    def make(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
        grid, names = embedding_grid(members)
        if not names:
            return []
        path = folder / f"embeddings_{panel}.png"
        how = {
            "circle": "Directions in the plane of the class axis; each class has its own ring, a collapse is a dot.",
            "tsne": "t-SNE keeps neighbours, not distances: a collapsed run looks like a cloud here, not a point.",
        }[panel]
        figure = Figure(path, f"Embeddings of the test images ({panel})", f"{how} The lowest seed of each row.")
        return [(figure, partial(embedding_figures.save_grid_figure, path, grid, names, panel=panel))]

    return make


def embedding_grid(
    members: Sequence[Member],
) -> tuple[list[tuple[str, list[embedding_figures.Embedded | None]]], list[str]]:
    """Return the embeddings for `save_grid_figure`, by group and row, and the class names.

    Raises:
        ValueError: the runs have different classes.
    """
    rows = list(dict.fromkeys(member.row for member in members))
    grid: list[tuple[str, list[embedding_figures.Embedded | None]]] = []
    names: list[str] = []
    for group in dict.fromkeys(member.group for member in members):
        line: list[embedding_figures.Embedded | None] = []
        for row in rows:
            runs = [member for member in members if (member.group, member.row) == (group, row)]
            embedded, its_names = _embedded(min(runs, key=lambda member: member.seed)) if runs else (None, [])
            if its_names and names and its_names != names:
                raise ValueError(f"{runs[0].path} has the classes {its_names}, others {names}; draw them separately")
            names = names or its_names
            line.append(embedded)
        if any(line):
            grid.append((group, line))
    filled = [place for place in range(len(rows)) if any(line[place] is not None for _, line in grid)]
    short = without_common_words([group for group, _ in grid])
    return [(name, [line[place] for place in filled]) for name, (_, line) in zip(short, grid, strict=True)], names


def _embedded(member: Member) -> tuple[embedding_figures.Embedded | None, list[str]]:
    path = _existing(member, "metrics", "embeddings.npz")
    if path is None:
        return None, []
    saved = read_embeddings(path, member.path)
    if saved.embeddings.shape[1] < 2:
        log.warning("%s is left out: no unit of its network is active, so it has no embeddings", member.path)
        return None, []
    return (member.row, saved.embeddings, saved.labels, saved.prototypes), saved.class_names


def _scatter(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    metrics = [metric.format(probe=probe) for metric in SCATTERED]
    wide = lines[lines["metric"].isin(metrics)].pivot(index=["group", "run", "seed"], columns="metric", values="value")
    complete = wide.reindex(columns=metrics).dropna()
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for member in members:
        place = (member.group, member.row, member.seed)
        if place in complete.index:
            x, other, y = complete.loc[place]
            rows.setdefault((member.group, member.row), []).append((x, other, 100 * y))
    if not rows:
        return []
    labels = ("SAA, mean of the classes, %", "CAC, mean of the classes, %", f"balanced accuracy, probe {probe}, %")
    caption = "Does the arrangement of the embeddings tell the accuracy of a probe? One mark per run."
    figure = Figure(folder / "scatter.png", "Accuracy against SAA and CAC", caption)
    return [(figure, partial(save_scatter_figure, figure.path, rows, labels))]


KINDS: Mapping[str, Callable[[Sequence[Member], pandas.DataFrame, Path, str], Planned]] = {
    "circle": _embeddings("circle"),
    "scatter": _scatter,
    "curves": _discrimination,
    "reliability": _reliability,
    "training": _training,
    "tsne": _embeddings("tsne"),
}
"""What can be drawn; "curves" are ROC and precision-recall."""


def kinds(text: str) -> list[str]:
    """Read the names of figures that commas separate.

    Raises:
        ValueError: an unknown name.
    """
    names = text.split(",")
    for name in names:
        if name not in KINDS:
            raise ValueError(f"--figures {name} is unknown; choose from {', '.join(KINDS)}")
    return names
