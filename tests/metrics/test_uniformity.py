from __future__ import annotations

import math

import pytest
import torch

from ttc.metrics import uniformity
from ttc.metrics.uniformity import effective_rank, entropy_uniformity


def unit_rows(seed, rows, dim):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("dim", [2, 3, 16, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_assignment_equals_full_matrix(dim, seed):
    rows = unit_rows(seed, 450, dim)
    nearest = uniformity._nearest_point(
        rows.to(torch.float32 if dim >= 16 else torch.float64), torch.Generator().manual_seed(7)
    )
    generator = torch.Generator().manual_seed(7)
    blocks = [2048, 2048, 404]
    drawn = [torch.randn(block, dim, generator=generator, dtype=torch.float64) for block in blocks]
    points = torch.nn.functional.normalize(torch.cat(drawn), dim=1)
    assert torch.equal(nearest, (rows @ points.T).argmax(dim=1))


def test_entropy_of_counted_shares():
    rows = unit_rows(2, 60, 5)
    per_class, overall = entropy_uniformity(rows, [40, 20, 0], 1, seed=3)
    nearest = uniformity._nearest_point(rows, torch.Generator().manual_seed(3)).tolist()
    for part, found in ((nearest[:40], per_class[0]), (nearest[40:], per_class[1]), (nearest, overall)):
        shares = [part.count(point) / len(part) for point in set(part)]
        expected = -100 * sum(share * math.log2(share) for share in shares) / math.log2(len(part))
        assert found == pytest.approx(expected, abs=1e-10)
    assert per_class[2] is None


@pytest.mark.parametrize("block", [1, 7, 64])
def test_row_blocks_do_not_change_the_value(monkeypatch, block):
    rows = unit_rows(4, 90, 20)
    expected = entropy_uniformity(rows, [50, 40], 3, seed=1)
    monkeypatch.setitem(uniformity._ROW_BLOCK, "cpu", block)
    assert entropy_uniformity(rows, [50, 40], 3, seed=1) == expected


def test_draws_are_averaged_and_spread_rows_score_higher():
    wide = unit_rows(5, 200, 16)
    tight = torch.nn.functional.normalize(wide + 5 * wide[:1], dim=1)
    values = [entropy_uniformity(rows, [200], 5, seed=0)[1] for rows in (wide, tight, wide[:1].expand(200, 16))]
    assert values[0] > values[1] > values[2] == 0


def test_effective_rank_closed_forms():
    square = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert effective_rank(square) == pytest.approx(2, abs=1e-12)
    line = torch.arange(5, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    assert effective_rank(line) == pytest.approx(1, abs=1e-9)
    # Singular values 3 and 1 after centring: entropy of (3/4, 1/4).
    uneven = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert effective_rank(uneven) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), abs=1e-12)
    assert effective_rank(square[:1]) is None
    assert effective_rank(square[:1].expand(4, 2)) is None
    # A far smaller cloud has the same rank: it depends on the shape, not on the size.
    assert effective_rank(torch.ones(2, dtype=torch.float64) + 1e-6 * uneven) == pytest.approx(
        effective_rank(uneven), abs=1e-6
    )
