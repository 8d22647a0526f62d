"""The pass over all pairs: the selection of the smallest values of a row, and how many rows are compared at a time."""

from __future__ import annotations

import pytest
import torch

from ttc.metrics import neighbours


@pytest.mark.parametrize("count", [1, 40, 200])
def test_a_sample_of_the_columns_limits_the_search_for_the_smallest(count: int) -> None:
    """Also where the sample misleads: rows whose smallest values are all in it, or none of them."""
    scores = torch.randn(6, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    scores[2, ::8] -= 100.0
    scores[3] = torch.round(scores[3])
    for rows in (scores[:4], scores.index_fill(1, torch.arange(0, 4000, 8), 9.0)):
        found = neighbours._smallest(rows, count)
        assert torch.equal(found.sort(dim=1).values, rows.sort(dim=1).values[:, :count])


@pytest.mark.parametrize(("device", "most"), [("cpu", 886), ("cuda", 5792), ("another", 886)])
def test_all_rows_are_one_block_up_to_a_size(device: str, most: int) -> None:
    assert neighbours.default_block_rows(most, device) >= most
    assert neighbours.default_block_rows(most + 1, device) <= most
    assert neighbours.default_block_rows(10**9, device) == 16
