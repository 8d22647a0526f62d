"""How much of the sphere and of its dimensions the rows occupy: PEU and effective rank.

Shape suffixes: M rows (samples x views), D dimensions, P points of one block, B rows of one block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ttc.metrics.portions import ALONE, Portion

POINTS_PER_ROW = 10
_POINT_BLOCK = 2048  # fixed: the points that a seed gives depend on it
# Rows that are compared with the points of a block at a time: a GPU waits for the host after each of them.
_ROW_BLOCK = {"cpu": 512, "cuda": 8192}
_SINGLE_PRECISION_DIM = 16


def effective_rank(rows_MD: torch.Tensor) -> float | None:
    """Return exp(entropy of the normalised singular values) of the centred rows.

    Args:
        rows_MD: [M, D] float64.

    Returns:
        A value in [1, min(M - 1, D)], or None for fewer than two rows or rows that coincide up to rounding.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1.
    """
    if len(rows_MD) < 2:
        return None
    centred = rows_MD - rows_MD.mean(dim=0)
    # The singular values are those of R. LAPACK makes it by itself before it iterates, a GPU's solver does not.
    singular = torch.linalg.svdvals(centred if centred.device.type == "cpu" else torch.linalg.qr(centred, mode="r").R)
    if float(singular[0]) <= 1e-14 * math.sqrt(len(rows_MD)):
        return None
    return math.exp(float(torch.special.entr(singular / singular.sum()).sum()))


def entropy_uniformity(
    unit_MD: torch.Tensor, class_rows: Sequence[int], draws: int, seed: int, portion: Portion = ALONE
) -> tuple[list[float | None], float | None]:
    """Measure how evenly the rows spread over random points of the sphere (PEU).

    In each draw, 10 M points are uniform on the sphere and each row goes to its nearest point; the entropy of
    the points' shares is divided by the largest entropy that so many rows can have. The draws are averaged.

    Args:
        unit_MD: [M, D] float64, unit rows, grouped by class.
        class_rows: Number of rows of each class, in the order of the rows.
        draws: Number of draws, >= 1.
        seed: Seed of the points, which are drawn on the CPU whatever the device of the rows.
        portion: Which rows this process assigns to points.

    Returns:
        The value in percent of each class and of all rows; None where there are fewer than two rows.

    Note: the products are float32 from 16 dimensions on, where the gap between the nearest and the second
        nearest of 10 M points is far above float32 rounding. In fewer dimensions they are float64.
    """
    dtype = torch.float32 if unit_MD.shape[1] >= _SINGLE_PRECISION_DIM else torch.float64
    rows_MD = unit_MD.to(dtype)
    generator = torch.Generator().manual_seed(seed)
    groups = [*class_rows, len(unit_MD)]
    totals = [0.0] * len(groups)
    for _ in range(draws):
        nearest_M = portion.total(_nearest_point(rows_MD, generator, portion))
        parts = [*torch.split(nearest_M, list(class_rows)), nearest_M]
        for group, part in enumerate(parts):
            if len(part) > 1:
                shares_P = torch.bincount(part).double() / len(part)
                totals[group] += float(torch.special.entr(shares_P).sum()) / math.log(len(part))
    values = [100.0 * total / draws if rows > 1 else None for total, rows in zip(totals, groups, strict=True)]
    return values[:-1], values[-1]


def _nearest_point(rows_MD: torch.Tensor, generator: torch.Generator, portion: Portion = ALONE) -> torch.Tensor:
    """Draw the points block by block and return [M] the index of each row's nearest one, 0 for rows of others."""
    total, dim = rows_MD.shape
    best_M = rows_MD.new_full((total,), -math.inf)
    nearest_M = torch.zeros(total, dtype=torch.long, device=rows_MD.device)
    points, rows = POINTS_PER_ROW * total, _ROW_BLOCK.get(rows_MD.device.type, _ROW_BLOCK["cpu"])
    for offset in range(0, points, _POINT_BLOCK):
        count = min(_POINT_BLOCK, points - offset)
        drawn_PD = torch.randn(count, dim, generator=generator, dtype=torch.float64).to(rows_MD.device)
        points_DP = torch.nn.functional.normalize(drawn_PD, dim=1).to(rows_MD.dtype).T
        for start in range(portion.rank * rows, total, portion.size * rows):
            stop = min(start + rows, total)
            cosine_BP = rows_MD[start:stop] @ points_DP
            # Few rows improve in a late block, and a maximum without its position is several times cheaper.
            improved_B = (cosine_BP.amax(dim=1) > best_M[start:stop]).nonzero().squeeze(1)
            value_B, index_B = cosine_BP[improved_B].max(dim=1)
            best_M[start + improved_B] = value_B
            nearest_M[start + improved_B] = offset + index_B
    return nearest_M
