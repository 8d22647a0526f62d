"""Representation metrics of embeddings: alignment, consistency, uniformity, rank.

Shape suffixes: V views, N samples, D dimensions, M = V N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import torch

from ttc.metrics.checks import SupportsArray, checked_labels, unit_rows
from ttc.metrics.neighbours import ClassSums, default_block_rows, stream_class_sums
from ttc.metrics.portions import ALONE, Portion
from ttc.metrics.uniformity import effective_rank, entropy_uniformity

COLLAPSED_COSINE = 0.99
"""Embeddings count as collapsed from this mean cosine of all pairs on; 1 is a single point."""

USABLE_AUROC = 0.9
"""AUROC of a probe from which on the encoder below collapsed embeddings has kept the classes apart.

Of 142 runs in docs/results whose embeddings lie on one point, 140 stay below it, many beside an untrained encoder.
"""


def collapse_word(mean_cosine: float | None, auroc: float | None) -> str | None:
    """Say in one word whether a run has collapsed.

    Args:
        mean_cosine: of all pairs of embeddings, where the loss sees them: after the projection head.
        auroc: of a probe on the encoder's features, the best of those that were fitted; None if there is none.

    Returns:
        "no"; "yes": all embeddings are on one point; "head": they are, but only the projection head has lost the
        classes, since a probe finds them below it; None where nothing was measured.

    Note: the loss does not decide. Runs at 95 % of their collapse value, with a mean cosine of 0.93, separate the
    classes as well as others.
    """
    if mean_cosine is None:
        return None
    if mean_cosine < COLLAPSED_COSINE:
        return "no"
    return "head" if auroc is not None and auroc >= USABLE_AUROC else "yes"


class Summary(TypedDict):
    """One metric: by class, as the mean of the classes, and over all rows; None = not defined."""

    per_class: list[float | None]
    macro: float | None
    all: float | None


class CosineSummary(Summary):
    """Mean cosine of pairs of different rows: `all` over all pairs, `within` and `between` classes pooled."""

    within: float | None
    between: float | None


class NeighbourMetrics(TypedDict):
    """The metrics that compare pairs of rows."""

    SAA: Summary
    CAD: Summary
    CAC: Summary
    CAC_cap: Summary
    CAC_over_cap: Summary
    gaussian_potential: Summary


class RepresentationMetrics(NeighbourMetrics):
    """Result of `representation_metrics`."""

    SAD: Summary
    PEU: Summary | None
    effective_rank: Summary
    mean_cosine: CosineSummary
    rows: int
    views: int
    samples: int
    neighbours: int
    radius: float
    class_rows: list[int]


def representation_metrics(
    embeddings: SupportsArray,
    labels: SupportsArray,
    radius: float = 0.05,
    *,
    num_classes: int | None = None,
    peu_draws: int = 5,
    seed: int = 0,
    block_rows: int | None = None,
    device: torch.device | str | None = None,
    portion: Portion = ALONE,
    one_view: bool = False,
) -> RepresentationMetrics:
    """Measure how embeddings of several views per sample are arranged on the unit sphere.

    SAD: mean distance of a sample's first view to its other views. SAA: share of rows whose nearest other row
    is a view of the same sample. CAD: mean distance to the other rows of the class. CAC: mean share of the row's
    class among the k nearest other rows; CAC_cap: the highest CAC that the rows of a class allow.
    gaussian_potential: mean of exp(-2 d^2) over the pairs within a class. PEU: entropy of the rows' assignment
    to random points. effective_rank: of the centred rows. mean_cosine: over pairs of different rows.

    Distances are Euclidean, in [0, 2]. SAA, CAC, CAC_cap, CAC_over_cap and PEU are in percent.

    Args:
        embeddings: [V, N, D], V >= 2, any real type. Need not be normalised; no row may be zero. Never modified.
        labels: [N] integers in [0, num_classes).
        radius: Share of all M = V N rows that counts as near, in (0, 1]; k = max(1, floor(radius M)) <= M - 1.
        num_classes: Number of classes; by default the largest label + 1.
        peu_draws: Draws of random points for PEU; 0 leaves it out (None).
        seed: Seed of these draws, the only randomness.
        block_rows: Rows compared at a time: memory and speed, not the result. By default about 6 MiB on a CPU
            and 256 MiB on a GPU, where the pairs of up to 5,792 rows are one block.
        device: Where to compute; by default where the embeddings are.
        portion: Which part of the pairs this process compares, if several hold the same embeddings. The result is that
            of one process, to the last digit, and the same in all of them.
        one_view: whether V = 1 is enough; SAD and SAA, which compare the views of a sample, are then not defined.

    Returns:
        A nested dict of plain numbers (JSON-safe), None where a value is not defined. Each metric has `per_class`,
        `macro` (mean of the classes, None unless each has a value) and `all` (each row counts once, or for SAD
        each sample; rows of classes without a value are left out). PEU and effective_rank under `all` treat the
        rows of all classes as one set. A class with a single sample has SAD and SAA only.

    Raises:
        ValueError: For wrong shapes, fewer than two views, rows that are NaN, infinite or zero, labels out of
            range, or a bad radius.

    Source: Mildenberger et al., "A Tale of Two Classes: Adapting Supervised Contrastive Learning to Binary
        Imbalanced Datasets" (SAA, CAC, PEU); Wang and Isola, "Understanding Contrastive Representation Learning
        through Alignment and Uniformity on the Hypersphere" (gaussian_potential).

    Note: a row is never its own neighbour and never part of CAD; the published code counts it in some places.
        Rows at equal distance enter with their expected value under random tie-breaking, so that a full
        collapse scores chance exactly. k is at least 1.
    """
    unit_VND = unit_rows(embeddings, device, least=1 if one_view else 2)
    views, samples, dim = unit_VND.shape
    labels_N = checked_labels(labels, samples, num_classes).to(unit_VND.device)
    if not 0.0 < radius <= 1.0:
        raise ValueError(f"radius is {radius:g}, but must lie in (0, 1]: the share of rows that counts as near")
    if peu_draws < 0 or (block_rows is not None and block_rows < 1):
        raise ValueError(f"peu_draws is {peu_draws}, block_rows is {block_rows}; need >= 0 and >= 1")
    classes = num_classes or int(labels_N.max()) + 1
    order_N = labels_N.argsort(stable=True)
    unit_MD = unit_VND.transpose(0, 1)[order_N].reshape(-1, dim)
    del unit_VND
    rows = views * samples
    class_rows = [views * count for count in torch.bincount(labels_N, minlength=classes).tolist()]
    # The small addend undoes the rounding of products such as 0.29 * 100.
    neighbours = min(max(1, int(radius * rows + 1e-9)), rows - 1)
    if block_rows is None:
        block_rows = default_block_rows(rows, unit_MD.device.type)
    sums = stream_class_sums(unit_MD, class_rows, views, neighbours, block_rows, portion)
    # The views of its only sample say nothing about a class.
    enough = [count > views for count in class_rows]
    ranks = [
        effective_rank(part) if defined else None
        for part, defined in zip(torch.split(unit_MD, class_rows), enough, strict=True)
    ]
    alignment = _sample_alignment(unit_MD.view(samples, views, dim), class_rows)
    by_neighbour = _neighbour_metrics(sums, class_rows, enough, neighbours)
    if views == 1:
        alignment = by_neighbour["SAA"] = {"per_class": [None] * classes, "macro": None, "all": None}
    return {
        "SAD": alignment,
        **by_neighbour,
        "PEU": _uniformity(unit_MD, class_rows, enough, peu_draws, seed, portion) if peu_draws else None,
        "effective_rank": {"per_class": ranks, "macro": _macro(ranks), "all": effective_rank(unit_MD)},
        "mean_cosine": _mean_cosine(unit_MD, class_rows, enough),
        "rows": rows,
        "views": views,
        "samples": samples,
        "neighbours": neighbours,
        "radius": radius,
        "class_rows": class_rows,
    }


def undefined_metrics(views: int, radius: float, num_classes: int) -> RepresentationMetrics:
    """Return the metrics of no rows at all: every value None, every count 0.

    They stand for a network whose outputs are all zero, which have no direction and so no place on the sphere.
    """
    nothing: Summary = {"per_class": [None] * num_classes, "macro": None, "all": None}
    names = ("SAD", "SAA", "CAD", "CAC", "CAC_cap", "CAC_over_cap", "gaussian_potential", "PEU", "effective_rank")
    counts = {"rows": 0, "views": views, "samples": 0, "neighbours": 0, "radius": radius}
    cosine = {**nothing, "within": None, "between": None}
    return {**dict.fromkeys(names, nothing), "mean_cosine": cosine, **counts, "class_rows": [0] * num_classes}  # type: ignore[typeddict-item]


def _neighbour_metrics(
    sums: Sequence[ClassSums], class_rows: Sequence[int], enough: Sequence[bool], neighbours: int
) -> NeighbourMetrics:
    """Turn the sums by class into means; classes that are not `alike` get no within-class values."""
    weights = [count if enough else 0 for count, enough in zip(class_rows, enough, strict=True)]
    pairs = [count * (count - 1) for count in weights]
    hits = [_ratio(100.0 * part.view_hits, count) for part, count in zip(sums, class_rows, strict=True)]
    shares = [_ratio(100.0 * part.class_share, count) for part, count in zip(sums, weights, strict=True)]
    distances = [_ratio(part.distance, count) for part, count in zip(sums, pairs, strict=True)]
    potentials = [_ratio(part.potential, count) for part, count in zip(sums, pairs, strict=True)]
    consistency = _summary(shares, weights)
    caps = _summary([100.0 * min(1.0, (count - 1) / neighbours) if count else None for count in weights], weights)
    return {
        "SAA": _summary(hits, class_rows),
        "CAD": _summary(distances, weights),
        "CAC": consistency,
        "CAC_cap": caps,
        "CAC_over_cap": _share_of_cap(consistency, caps),
        "gaussian_potential": _summary(potentials, weights),
    }


def _ratio(total: float, count: int) -> float | None:
    """Return total / count, or None for a count of zero."""
    return total / count if count else None


def _macro(values: Sequence[float | None]) -> float | None:
    """Return the mean of the classes, or None when one of them is not defined."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if len(defined) == len(values) else None


def _summary(per_class: list[float | None], weights: Sequence[int]) -> Summary:
    """Add the mean of the classes and the mean by weight of the classes that have a value."""
    defined = [(value, weight) for value, weight in zip(per_class, weights, strict=True) if value is not None]
    weighted = math.fsum(value * weight for value, weight in defined)
    return {
        "per_class": per_class,
        "macro": _macro(per_class),
        "all": _ratio(weighted, sum(weight for _, weight in defined)),
    }


def _share_of_cap(consistency: Summary, caps: Summary) -> Summary:
    """Divide CAC by its cap, in percent."""
    shares = [
        None if value is None or cap is None else 100.0 * value / cap
        for value, cap in zip(
            [*consistency["per_class"], consistency["all"]], [*caps["per_class"], caps["all"]], strict=True
        )
    ]
    return {"per_class": shares[:-1], "macro": _macro(shares[:-1]), "all": shares[-1]}


def _sample_alignment(unit_NVD: torch.Tensor, class_rows: Sequence[int]) -> Summary:
    """Average the distance from view 0 of a sample to its other views."""
    views = unit_NVD.shape[1]
    distance_N = unit_NVD.new_zeros(len(unit_NVD))
    for view in range(1, views):
        distance_N += torch.linalg.vector_norm(unit_NVD[:, view] - unit_NVD[:, 0], dim=1) / (views - 1)
    counts = [rows // views for rows in class_rows]
    sums = [float(part_N.sum()) for part_N in torch.split(distance_N, counts)]
    return _summary([_ratio(total, count) for total, count in zip(sums, counts, strict=True)], counts)


def _uniformity(
    unit_MD: torch.Tensor, class_rows: Sequence[int], enough: Sequence[bool], draws: int, seed: int, portion: Portion
) -> Summary:
    """Return PEU, without a value for classes of a single sample."""
    values, overall = entropy_uniformity(unit_MD, class_rows, draws, seed, portion)
    per_class = [value if defined else None for value, defined in zip(values, enough, strict=True)]
    return {"per_class": per_class, "macro": _macro(per_class), "all": overall}


def _mean_cosine(unit_MD: torch.Tensor, class_rows: Sequence[int], enough: Sequence[bool]) -> CosineSummary:
    """Average the cosine of pairs of different rows, from the sums of the rows alone."""
    sums_CD = torch.stack([part_MD.sum(dim=0) for part_MD in torch.split(unit_MD, list(class_rows))])
    # The squared length of a sum of unit rows is the sum of all their cosines, each row with itself included.
    inside = [square - rows for square, rows in zip(sums_CD.square().sum(dim=1).tolist(), class_rows, strict=True)]
    pairs = [rows * (rows - 1) for rows in class_rows]
    total = len(unit_MD)
    everything = float(sums_CD.sum(dim=0).square().sum()) - total
    all_pairs = total * (total - 1)
    per_class = [
        cosine / count if defined else None for cosine, count, defined in zip(inside, pairs, enough, strict=True)
    ]
    return {
        "per_class": per_class,
        "macro": _macro(per_class),
        "all": everything / all_pairs,
        "within": _ratio(math.fsum(inside), sum(pairs)),
        "between": _ratio(everything - math.fsum(inside), all_pairs - sum(pairs)),
    }
