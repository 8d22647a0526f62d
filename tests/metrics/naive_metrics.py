"""Representation metrics by double loops over exact fractions or floats, as slow and as plain as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def naive_metrics(embeddings, labels, radius=0.05, tie=1e-12):
    """Return {metric: value per class}; neighbours tie when their squared distances differ by at most `tie`."""
    views, samples, _ = embeddings.shape
    rows = [row / math.sqrt(float(row @ row)) for view in np.asarray(embeddings, dtype=np.float64) for row in view]
    squared = [[float(((a - b) ** 2).sum()) for b in rows] for a in rows]
    return summarise(squared, views, samples, labels, radius, tie)


def exact_squared_distances(integer_rows: Sequence[Sequence[int]]) -> list[list[Fraction]]:
    """Return squared distances of normalised integer rows whose lengths are integers, without any rounding."""
    unit = []
    for row in integer_rows:
        length = math.isqrt(sum(x * x for x in row))
        assert length**2 == sum(x * x for x in row)
        unit.append([Fraction(x, length) for x in row])
    return [[sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0)) for b in unit] for a in unit]


def summarise(squared, views, samples, labels, radius, tie):
    """Evaluate the definitions on a matrix of squared distances of view-major rows."""
    total = views * samples
    neighbours = min(total - 1, max(1, math.floor(Fraction(str(radius)) * total)))
    classes = range(int(max(labels)) + 1)
    found = {name: [] for name in ("SAD", "SAA", "CAD", "CAC", "gaussian_potential")}
    for label in classes:
        members = [row for row in range(total) if labels[row % samples] == label]
        sad = [
            math.sqrt(squared[row][view * samples + row])
            for row in members
            if row < samples
            for view in range(1, views)
        ]
        saa, cac, cad, potential = [], [], [], []
        for row in members:
            others = [other for other in range(total) if other != row]
            own = {other for other in others if labels[other % samples] == label}
            own_views = {other for other in others if other % samples == row % samples}
            saa.append(expected_share(squared[row], others, own_views, 1, tie))
            cac.append(expected_share(squared[row], others, own, neighbours, tie))
            cad += [math.sqrt(squared[row][other]) for other in own]
            potential += [math.exp(-2 * squared[row][other]) for other in own]
        for name, values in zip(found, (sad, saa, cad, cac, potential), strict=True):
            scale = 100 if name in ("SAA", "CAC") else 1
            found[name].append(scale * math.fsum(values) / len(values) if values else None)
    return found


def expected_share(squared, others, wanted, count, tie):
    """Return the expected share of `wanted` among the `count` nearest, when ties are broken at random."""
    limit = sorted(squared[other] for other in others)[count - 1]
    below = [other for other in others if squared[other] < limit - tie]
    tied = [other for other in others if abs(squared[other] - limit) <= tie]
    inside = sum(other in wanted for other in below)
    at_edge = sum(other in wanted for other in tied)
    return (inside + (count - len(below)) * at_edge / len(tied)) / count
