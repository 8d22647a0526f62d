"""All figures of a sweep, from what its runs have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas

from ttc.results import curve_figures, embedding_figures
from ttc.results.figure_style import drawing, without_common_words
from ttc.results.figures import classifiers
from ttc.results.figures.members import Figure, Member, Planned, existing, laid_out, rows_of
from ttc.results.scatter_figure import save_scatter_figure
from ttc.run import files
from ttc.run.folder import logged_curve
from ttc.run.log import log, with_bar
from ttc.run.npz import read_embeddings

SCATTERED = ("projection/SAA/macro", "projection/CAC/macro")
"""Metrics that the scatter needs in the ledger, besides the accuracy of a probe."""


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
    for kind in with_bar(kinds, "figures"):
        planned = KINDS[kind](members, lines, folder, probe)
        if not planned:
            log.warning("figure %s is left out: no run has what it needs", kind)
        for figure, save in planned:
            with drawing(figure.path):
                save()
                log.info("%s: %s", figure.path, figure.title)
                drawn.append(figure)
    return drawn


def _training(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    planned: Planned = []
    for key, name, label, caption in (
        ("train/loss_over_collapse", "training_loss", "loss / collapse value",
         "Training loss divided by its value when all embeddings are equal: at 1 the run has collapsed."),
        ("watch/mean_cosine", "training_cosine", "mean cosine",
         "Mean cosine of the embeddings of a fixed validation subset: 1 is a single point."),
    ):  # fmt: skip
        rows: dict[str, list[tuple[list[float], list[float]]]] = {}
        for row, runs in rows_of(members).items():
            for member in runs:
                path = member.path / "metrics.jsonl"
                points = logged_curve(path, key) if path.is_file() else []
                if points:
                    rows.setdefault(row, []).append(([x for x, _ in points], [y for _, y in points]))
        if rows:
            grid, columns = laid_out(members, rows)
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
            "circle": "Directions in the plane of the class axis; each class has its own ring, bars show how many "
            "point where, a collapse is a dot.",
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
    path = existing(member, "metrics", "embeddings.npz")
    if path is None:
        return None, []
    saved = read_embeddings(path, member.path)
    if saved.embeddings.shape[1] < 2:
        log.warning("%s is left out: no unit of its network is active, so it has no embeddings", member.path)
        return None, []
    return (member.row, saved.embeddings, saved.labels, saved.prototypes), saved.class_names


def _scatter(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    metrics = [*SCATTERED, f"encoder/{probe}/balanced_accuracy"]
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
    drawn = [member for member in members if (member.group, member.row) in rows]
    files_of_splits = [member.path / "split.csv" for member in drawn]
    splits = {files.read_bytes(path, path.parent) for path in files_of_splits if path.is_file()}
    caption = (
        "Does the arrangement of the embeddings tell the accuracy of a probe? One mark per run. Runs of one method, or "
        f"with one split into training and test ({len(splits) or 'number unknown'} here), are no independent samples: "
        "the coefficient describes these runs and is no test."
    )
    figure = Figure(folder / "scatter.png", "Accuracy against SAA and CAC", caption)
    return [(figure, partial(save_scatter_figure, figure.path, rows, labels, len(splits)))]


KINDS: Mapping[str, Callable[[Sequence[Member], pandas.DataFrame, Path, str], Planned]] = {
    "circle": _embeddings("circle"),
    "scatter": _scatter,
    "curves": classifiers.discrimination,
    "reliability": classifiers.reliability,
    "confusion": classifiers.confusion,
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
