"""Panels of embeddings: circle projection, 2-D scatter, pairwise cosines.

Shape suffixes: V views, N samples, D dimensions, C classes, P points of one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ttc.results.figure_style import PAIR_COLOUR, Floats, Ints, colour_of, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS_PER_CLASS = 1500
_RING_GAP = 0.13
_RIM = 0.96
"""Where the bars inside of the circle begin."""


def draw_circle(axes: Axes, rows_ND: Floats, labels_N: Ints, prototypes: ArrayLike | None = None) -> None:
    """Draw the direction of each row in the plane of the class axis and one orthogonal direction.

    The orthogonal direction is the principal one of the rows as they are, not of the centred rows: a collapsed set then
    stays one spot, whereas centring would spread its noise over the circle.
    Each class has its own ring around the unit circle, with a seeded jitter of the radius, so that classes which
    coincide stay visible; only the angle carries information. Inside, the bars of each class show how many of its rows
    point where (the area grows with their number), since dots on top of each other cannot be counted.
    """
    prototypes_CD = None if prototypes is None else np.asarray(prototypes, dtype=np.float64)
    basis_2D = _plane(rows_ND, labels_N, prototypes_CD)
    angle = np.linspace(0, 2 * np.pi, 361)
    axes.plot(np.cos(angle), np.sin(angle), color="0.75", linewidth=0.8, zorder=0)
    jitter = np.random.default_rng(0)
    order, directions = _drawing_order(labels_N), list[tuple[int, Floats]]()
    for rank, label in enumerate(order):
        points_P2 = _onto_circle(rows_ND[some(labels_N, label)] @ basis_2D.T)
        ring = 1 + _RING_GAP * (len(order) - 1 - rank)
        directions.append((label, points_P2))
        radius_P1 = ring + jitter.uniform(0, 0.7 * _RING_GAP, (len(points_P2), 1))
        _dots(axes, radius_P1 * points_P2, label, 2 + rank)
    _bars(axes, directions)
    if (count := len(rows_ND)) > 1:
        cosine = (count**2 * float(np.square(rows_ND.mean(axis=0)).sum()) - count) / (count * (count - 1))
        axes.text(0, -0.3, f"mean cosine\n{cosine:.2f}", ha="center", va="center", fontsize=7, color="0.35")
    if prototypes_CD is not None:
        for label, (x, y) in enumerate(_onto_circle(prototypes_CD @ basis_2D.T)):
            axes.scatter(
                0.86 * x, 0.86 * y, s=70, marker="*", color=colour_of(label), edgecolors="white", linewidths=0.5
            )
    limit = 1.08 + _RING_GAP * len(order)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.axis("off")


def draw_scatter(axes: Axes, rows_ND: Floats, labels_N: Ints, method: str) -> None:
    """Draw the rows in two dimensions, by principal components or by t-SNE.

    Both axes of the PCA have the same scale and span at least 0.2, so that noise does not look like structure.
    """
    if method not in ("pca", "tsne"):
        raise ValueError(f"scatter is {method!r}, but must be 'pca' or 'tsne'")
    order = _drawing_order(labels_N)
    chosen = [some(labels_N, label) for label in order]
    picked = np.concatenate(chosen)
    if method == "pca":
        centred_ND = rows_ND - rows_ND.mean(axis=0)
        directions = np.linalg.svd(centred_ND, full_matrices=False)[2][:2]
        points = centred_ND[picked] @ _oriented(directions).T
        if points.shape[1] == 1:
            points = np.pad(points, ((0, 0), (0, 1)))
        reach = max(0.1, 1.08 * float(np.abs(points).max()))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.locator_params(nbins=5)
        axes.tick_params(labelsize=8)
    else:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, max(1.0, (len(picked) - 1) / 3))
        # The start from principal components divides by their spread, which a full collapse does not have.
        start = "pca" if np.ptp(rows_ND[picked], axis=0).max() > 1e-12 else "random"
        points = TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(rows_ND[picked])
        axes.set(xticks=[], yticks=[])
    ends = np.cumsum([len(part) for part in chosen])
    for rank, (label, part) in enumerate(zip(order, np.split(points, ends[:-1]), strict=True)):
        _dots(axes, part, label, 2 + rank)


def draw_cosines(
    axes: Axes, rows_ND: Floats, labels_N: Ints, class_names: Sequence[str], *, legend: bool = True
) -> None:
    """Draw histograms of the cosines of pairs of different samples, within each class and between classes.

    Each histogram is scaled to a peak of 1: its place and width matter, and classes differ a hundredfold in pairs.
    """
    edges = np.linspace(-1, 1, 81)
    order = _drawing_order(labels_N)
    parts = {label: rows_ND[some(labels_N, label)] for label in order}
    histograms = []
    between = np.zeros(len(edges) - 1)
    for index, label in enumerate(order):
        cosines = parts[label] @ parts[label].T
        inside = cosines[np.triu_indices(len(cosines), k=1)]
        histograms.append((f"within {short_name(class_names[label], 24)}", colour_of(label), _count(inside, edges)))
        for other in order[index + 1 :]:
            between += _count(parts[label] @ parts[other].T, edges)
    if len(order) > 1:
        histograms.insert(0, ("between classes", PAIR_COLOUR, between))
    for name, colour, counts in histograms:
        if counts.any():
            heights = counts / counts.max()
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(heights, edges, color=colour, linewidth=1.2, label=name)
    axes.set(xlim=(-1.04, 1.04), ylim=(0, 1.45 if legend else 1.06), xticks=[-1, 0, 1], yticks=[0, 0.5, 1])
    axes.set_xlabel("cosine", fontsize=9)
    axes.set_ylabel("pairs (peak = 1)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(loc="upper left", fontsize=8, frameon=False)


def first_view(embeddings: ArrayLike, labels: ArrayLike, class_names: Sequence[str]) -> tuple[Floats, Ints]:
    """Return the first view as unit rows, and the labels."""
    rows_VND, labels_N = np.asarray(embeddings, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if rows_VND.ndim != 3 or labels_N.shape != rows_VND.shape[1:2] or labels_N.max() >= len(class_names):
        raise ValueError(
            f"embeddings {rows_VND.shape}, labels {labels_N.shape} and {len(class_names)} class names do not fit; "
            "need [views, samples, dimensions], [samples] and one name per class"
        )
    rows_ND = rows_VND[0]
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True), labels_N


def _plane(rows_ND: Floats, labels_N: Ints, prototypes_CD: Floats | None) -> Floats:
    """Return [2, D]: the class axis and the principal direction of the rows orthogonal to it."""
    present = np.unique(labels_N)
    if prototypes_CD is not None:
        axis_D = prototypes_CD[1] - prototypes_CD[0]
    elif len(present) > 1:
        axis_D = rows_ND[labels_N == present[1]].mean(axis=0) - rows_ND[labels_N == present[0]].mean(axis=0)
    else:
        axis_D = rows_ND[0]
    axis_D = axis_D / max(float(np.linalg.norm(axis_D)), 1e-300)
    rest_ND = rows_ND - np.outer(rows_ND @ axis_D, axis_D)
    _, lengths, directions = np.linalg.svd(rest_ND, full_matrices=False)
    # Rows that all lie on the axis have no second direction.
    second_D = directions[0] if lengths[0] > 1e-9 * lengths.size else np.zeros_like(axis_D)
    if (rows_ND @ second_D).mean() < 0:
        second_D = -second_D
    return np.stack([axis_D, second_D])


def _bars(axes: Axes, points: Sequence[tuple[int, Floats]], bins: int = 48) -> None:
    """Draw, inside the circle, bars whose area grows with the share of a class that points there.

    Args:
        axes: the panel.
        points: label and points [P, 2] on the circle of each class.
        bins: directions.
    """
    from matplotlib.patches import Wedge

    shares = [
        np.histogram(np.arctan2(*points_P2.T[::-1]), bins, (-np.pi, np.pi))[0] / len(points_P2)
        for _, points_P2 in points
    ]
    largest = max(float(share.max()) for share in shares)
    edges = np.linspace(-180, 180, bins + 1)
    for (label, _), shares_K in zip(points, shares, strict=True):
        for share, first, last in zip(shares_K, edges[:-1], edges[1:], strict=True):
            # The area between rim and inner end is in proportion to the share.
            width = _RIM * (1.0 - float(np.sqrt(1.0 - 0.94 * share / largest)))
            axes.add_patch(
                Wedge((0, 0), _RIM, first, last, width=width, color=colour_of(label), alpha=0.4, linewidth=0)
            )


def _dots(axes: Axes, points_P2: Floats, label: int, layer: int) -> None:
    """Draw the points of a class; a few points are larger and more opaque than many."""
    few = len(points_P2) < 200
    x_P, y_P = points_P2.T
    axes.scatter(
        x_P, y_P, s=13 if few else 7, alpha=0.75 if few else 0.45, color=colour_of(label), linewidths=0, zorder=layer
    )


def _onto_circle(points_P2: Floats) -> Floats:
    """Scale points of the plane to length 1."""
    scaled: Floats = points_P2 / np.maximum(np.linalg.norm(points_P2, axis=1, keepdims=True), 1e-300)
    return scaled


def _oriented(directions: Floats) -> Floats:
    """Flip each direction so that its largest entry is positive: the sign of a singular vector is arbitrary."""
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return np.asarray(directions * np.where(largest < 0, -1.0, 1.0))


def _count(values: Floats, edges: Floats) -> Floats:
    """Count the values per bin; cosines that rounding puts outside [-1, 1] belong to the outer bins."""
    return np.histogram(np.clip(values, -1, 1), bins=edges)[0].astype(np.float64)


def _drawing_order(labels_N: Ints) -> list[int]:
    """Order the classes from many samples to few, so that the minority is drawn on top."""
    present, counts = np.unique(labels_N, return_counts=True)
    return [int(label) for label in present[np.argsort(-counts, kind="stable")]]


def some(labels_N: Ints, label: int, most: int = _POINTS_PER_CLASS) -> Ints:
    """Return the positions of a class, evenly thinned out when there are too many to draw."""
    positions = np.flatnonzero(labels_N == label)
    return positions[:: -(-len(positions) // most)]
