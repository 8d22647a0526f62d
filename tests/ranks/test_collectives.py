"""Collectives on real gloo processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.ranks.launch import on_ranks
from ttc import distributed


@dataclass
class Seen:
    """What a rank saw."""

    gathered: Tensor
    gathered_gradient: Tensor
    uneven: Tensor
    uneven_empty: Tensor
    json: list[object]
    total: Tensor
    total_gradient: Tensor
    mean: Tensor
    broadcast: Tensor
    any_rank: tuple[bool, bool]
    averaged: Tensor
    pool_first: int
    acted: bool


def rows_of(rank: int) -> Tensor:
    return torch.arange(6, dtype=torch.float64).view(2, 3) + 10 * rank


def weights_of(rank: int, size: int) -> Tensor:
    made = torch.Generator().manual_seed(rank)
    return torch.randn(2 * size, 3, generator=made, dtype=torch.float64)


def look(world: distributed.World) -> Seen:
    rank, size = world.rank, world.size
    assert (distributed.rank(), distributed.world_size()) == (rank, size)
    rows = rows_of(rank).requires_grad_()
    gathered = distributed.gather_with_gradient(rows)
    (gathered * weights_of(rank, size)).sum().backward()
    summand = rows_of(rank).requires_grad_()
    total = distributed.sum_with_gradient(summand)
    (total * (rank + 1)).sum().backward()
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([float(rank), 1.0])
    distributed.average_gradients([parameter, nn.Parameter(torch.zeros(1))])
    pool = distributed.pool_of(rows.view(2, 1, 3), torch.tensor([rank, 1]), torch.tensor([rank, rank + 100]))
    assert pool is not None
    assert torch.equal(pool.labels, torch.tensor([[r, 1] for r in range(size)]).flatten())
    assert torch.equal(pool.sample_ids, torch.tensor([[r, r + 100] for r in range(size)]).flatten())
    acted: list[int] = []
    distributed.first_rank_first(lambda: acted.append(1), torch.device("cpu"))
    assert rows.grad is not None
    assert summand.grad is not None
    assert parameter.grad is not None
    return Seen(
        gathered=gathered.detach(),
        gathered_gradient=rows.grad,
        uneven=distributed.gather_uneven(torch.full((rank, 2), rank)),
        uneven_empty=distributed.gather_uneven(torch.zeros(0, 2)),
        json=distributed.gather_json({"rank": rank, "text": "ü" * rank, "list": [None, 1.5]}, world.device),
        total=total.detach(),
        total_gradient=summand.grad,
        mean=distributed.mean(torch.tensor(float(rank))),
        broadcast=distributed.broadcast(torch.tensor([rank + 7])),
        any_rank=(distributed.any_rank(rank == 1, world.device), distributed.any_rank(False, world.device)),
        averaged=parameter.grad,
        pool_first=pool.first,
        acted=bool(acted),
    )


@pytest.mark.parametrize("size", [2, 3])
def test_collectives(size: int, tmp_path: Path) -> None:
    everything = torch.cat([rows_of(rank) for rank in range(size)])
    for rank, seen in enumerate(on_ranks(size, look, tmp_path)):
        assert torch.equal(seen.gathered, everything)
        # A row's gradient is the sum of what every rank's loss sends back.
        gradient = sum(weights_of(other, size)[2 * rank : 2 * rank + 2] for other in range(size))
        torch.testing.assert_close(seen.gathered_gradient, gradient, rtol=0, atol=1e-12)
        assert seen.uneven.tolist() == [[r, r] for r in range(size) for _ in range(r)]
        assert seen.uneven_empty.shape == (0, 2)
        assert seen.json == [{"rank": r, "text": "ü" * r, "list": [None, 1.5]} for r in range(size)]
        assert torch.equal(seen.total, everything.view(size, 2, 3).sum(0))
        assert torch.equal(seen.total_gradient, torch.full((2, 3), float(sum(range(1, size + 1))), dtype=torch.float64))
        assert float(seen.mean) == (size - 1) / 2
        assert seen.broadcast.item() == 7
        assert seen.any_rank == (True, False)
        assert seen.averaged.tolist() == [(size - 1) / 2, 1.0]
        assert seen.pool_first == 2 * rank
        assert seen.acted == (rank == 0)


def test_without_a_process_group_collectives_do_nothing() -> None:
    rows = rows_of(0).requires_grad_()
    assert distributed.gather_with_gradient(rows) is rows
    assert distributed.sum_with_gradient(rows) is rows
    for function in (distributed.gather, distributed.gather_uneven, distributed.mean, distributed.broadcast):
        assert torch.equal(function(rows), rows)
    assert distributed.gather_json({"a": 1}, torch.device("cpu")) == [{"a": 1}]
    assert distributed.any_rank(True, torch.device("cpu"))
    assert not distributed.any_rank(False, torch.device("cpu"))
    assert distributed.pool_of(rows.view(2, 1, 3), torch.tensor([0, 1]), torch.tensor([0, 1])) is None
    distributed.wait()
    distributed.stop()
