"""What the plan of an epoch costs, in passes over the samples and memory, not time; and that its order stays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttc.batches.samplers import SAMPLERS, BatchSampler, EpochBatches

RANKS = 64
BATCHES = (256, 65_536)


class Cost(TorchDispatchMode):
    """Counts operators, permutations, and the bytes of storages that are alive at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.permutations = self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        self.permutations += func.overloadpacket.__name__ == "randperm"
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: (ref, size) for key, (ref, size) in self._alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def planned(samples: int, batch_size: int, kind: str, min_minority: int) -> tuple[Cost, EpochBatches]:
    labels = (torch.arange(samples) % 100 == 0).long()
    sampler = BatchSampler(
        labels, batch_size=batch_size, kind=kind, seed=0, minority_class=1, min_minority=min_minority
    )
    with Cost() as cost:
        plan = sampler.epoch(3, rank=5, ranks=RANKS)
    return cost, plan


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize(("kind", "least"), [*((kind, 0) for kind in SAMPLERS), ("shuffle", 64), ("stratified", 64)])
def test_a_rank_plans_in_a_few_passes_and_keeps_its_piece(kind: str, least: int, batch_size: int) -> None:
    samples = 2_700_000
    cost, plan = planned(samples, batch_size, kind, least)
    steps, share = samples // batch_size, batch_size // RANKS
    assert plan.samples.shape == plan.draws.shape == (steps, share)
    for kept in (plan.samples, plan.draws):
        assert kept.untyped_storage().nbytes() == 8 * steps * share
    # The permutations of a class that repeats: 50 of 27,000 rare samples make the half of an epoch.
    assert cost.permutations <= (55 if kind == "balanced" else 3 + (least > 0) * 30)
    assert cost.operators <= 40 + 6 * cost.permutations, cost.operators
    assert cost.peak <= 36 * samples, f"{cost.peak / samples:.0f} bytes a sample"


def digest(kind: str, counts: tuple[int, ...], batch_size: int, least: int) -> str:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    sampler = BatchSampler(
        labels, batch_size=batch_size, kind=kind, seed=2, minority_class=len(counts) - 1, min_minority=least
    )
    found = hashlib.sha256()
    for epoch in (0, 1, 7):
        plan = sampler.epoch(epoch)
        found.update(plan.samples.numpy().tobytes())
        found.update(plan.draws.numpy().tobytes())
    return found.hexdigest()[:16]


# Runs of the past are repeated only if these stay.
ORDERS = {
    ("shuffle", (580, 18), 128, 0): "96999bbcdfa0a38b",
    ("shuffle", (580, 18), 128, 20): "8de1c307ca798070",
    ("stratified", (580, 18), 128, 0): "3cccf3d3ca628031",
    ("stratified", (400, 60, 20), 64, 9): "3d43e07542d064a0",
    ("balanced", (580, 18), 128, 0): "ff5cfc5c0c497c3e",
    ("balanced", (4950, 50), 256, 0): "14c968facd05bfa5",
    ("balanced", (400, 60, 20), 32, 0): "f1d8a5ba920e7b82",
}


@pytest.mark.parametrize("case", ORDERS, ids=str)
def test_the_order_of_the_samples_is_what_it_was(case: tuple[str, tuple[int, ...], int, int]) -> None:
    assert digest(*case) == ORDERS[case]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_rank_gets_its_piece_of_the_whole_plan(kind: str, ranks: int) -> None:
    labels = (torch.arange(300) % 10 == 0).long()
    sampler = BatchSampler(labels, batch_size=24, kind=kind, seed=0, minority_class=1, min_minority=3)
    whole = sampler.epoch(2)
    pieces = [sampler.epoch(2, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat([piece.samples for piece in pieces], 1), whole.samples)
    assert torch.equal(torch.cat([piece.draws for piece in pieces], 1), whole.draws)


@pytest.mark.parametrize(
    ("kind", "least"), [("shuffle", 0), ("shuffle", 5), ("shuffle", 40), ("stratified", 5), ("balanced", 0)]
)
def test_the_expected_number_of_rare_samples_is_what_the_sampler_gives(kind: str, least: int) -> None:
    labels = (torch.arange(600) % 20 == 0).long()
    sampler = BatchSampler(labels, batch_size=60, kind=kind, seed=0, minority_class=1, min_minority=least)
    found = torch.stack([labels[sampler.epoch(epoch).samples].sum(1).double() for epoch in range(60)])
    assert float(found.mean()) == pytest.approx(sampler.minority_per_batch(), abs=4 * 1.7 / 600**0.5)
