"""Several processes share the pairs and find what one finds, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.ranks.launch import on_ranks
from ttc import distributed
from ttc.metrics.portions import ALONE, Portion
from ttc.metrics.representation import RepresentationMetrics, representation_metrics


def measure(portion: Portion) -> RepresentationMetrics:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(300) % 10 == 0).long()
    embeddings = torch.randn(2, 300, 16, generator=generator) + 3 * torch.randn(300, 16, generator=generator)
    embeddings[:, 200:] = embeddings[:1, 200:201]  # ties
    return representation_metrics(embeddings, labels, block_rows=32, peu_draws=2, portion=portion)


def one_rank(world: distributed.World) -> RepresentationMetrics:
    return measure(Portion(world.rank, world.size, distributed.sum_with_gradient))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_find_what_one_process_finds(ranks: int, tmp_path: Path) -> None:
    expected = measure(ALONE)
    assert on_ranks(ranks, one_rank, tmp_path) == [expected] * ranks


def test_each_block_has_one_holder() -> None:
    for size in (1, 2, 5):
        holders = [[Portion(rank, size).holds(block) for rank in range(size)] for block in range(11)]
        assert all(sum(each) == 1 for each in holders)
