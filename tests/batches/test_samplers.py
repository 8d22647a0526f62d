"""Batches: shares, repetition, reproducibility, speed."""

from __future__ import annotations

import math
import time
from collections import Counter

import pytest
import torch
from torch import Tensor

from ttc.batches.samplers import SAMPLERS, BatchSampler, share_of_poor_batches

SEEDS = (0, 1, 17)


def make(kind: str, counts: tuple[int, ...], batch_size: int, seed: int = 0, min_minority: int = 0) -> BatchSampler:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    smallest = min(range(len(counts)), key=lambda label: counts[label])
    return BatchSampler(
        labels, batch_size=batch_size, kind=kind, seed=seed, minority_class=smallest, min_minority=min_minority
    )


def class_counts(sampler: BatchSampler, samples: Tensor) -> Tensor:
    """Count the classes of every batch, [S, K]."""
    return torch.nn.functional.one_hot(sampler.labels[samples], len(sampler.counts)).sum(1)


@pytest.mark.parametrize("min_minority", [0, 3])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_an_epoch_is_a_function_of_seed_and_epoch(kind: str, min_minority: int) -> None:
    first = make(kind, (90, 20), 16, seed=3, min_minority=min_minority)
    second = make(kind, (90, 20), 16, seed=3, min_minority=min_minority)
    later = first.epoch(5)
    assert not torch.equal(later.samples, first.epoch(4).samples)
    torch.manual_seed(99)
    again = second.epoch(5)  # never asked for another epoch before
    assert torch.equal(later.samples, again.samples)
    assert torch.equal(later.draws, again.draws)
    other = BatchSampler(
        first.labels, batch_size=16, kind=kind, seed=4, minority_class=1, min_minority=min_minority
    ).epoch(5)
    assert not torch.equal(later.samples, other.samples)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_planning_leaves_the_global_random_state_alone(kind: str) -> None:
    before = torch.get_rng_state()
    make(kind, (90, 20), 16, min_minority=4).epoch(0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["shuffle", "stratified"])
def test_without_repetition_every_sample_comes_at_most_once(kind: str, seed: int) -> None:
    sampler = make(kind, (83, 20), 10, seed)
    plan = sampler.epoch(2)
    assert plan.samples.shape == plan.draws.shape == (10, 10)
    assert len(set(plan.samples.flatten().tolist())) == 100
    assert set(plan.samples.flatten().tolist()) <= set(range(103))


@pytest.mark.parametrize("seed", SEEDS)
def test_full_epochs_are_permutations(seed: int) -> None:
    for kind in ("shuffle", "stratified"):
        assert make(kind, (80, 20), 10, seed).epoch(1).samples.flatten().sort().values.tolist() == list(range(100))


def test_shuffle_visits_all_places_evenly() -> None:
    sampler = make("shuffle", (35, 5), 10)
    place_of_first = Counter(int((sampler.epoch(e).samples.flatten() == 0).nonzero()) for e in range(2000))
    # 2000 epochs over 40 places: 50 each, standard deviation 7.
    assert all(abs(place_of_first[place] - 50) < 35 for place in range(40))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("counts", [(97, 3), (580, 17), (60, 40), (4950, 50), (50, 50)])
@pytest.mark.parametrize("batch_size", [7, 32])
def test_stratified_batches_have_the_shares_of_two_classes_to_one_sample(
    counts: tuple[int, int], batch_size: int, seed: int
) -> None:
    sampler = make("stratified", counts, batch_size, seed)
    for epoch in range(3):
        found = class_counts(sampler, sampler.epoch(epoch).samples).double()
        exact = batch_size * torch.tensor(counts).double() / sum(counts)
        assert (found - exact).abs().max() < 1, f"seed {seed} epoch {epoch}"


@pytest.mark.parametrize("seed", SEEDS)
def test_stratified_batches_have_the_shares_of_five_classes_to_two_samples(seed: int) -> None:
    counts = (900, 50, 25, 15, 10)
    sampler = make("stratified", counts, 40, seed)
    exact = 40 * torch.tensor(counts).double() / sum(counts)
    for epoch in range(5):
        found = class_counts(sampler, sampler.epoch(epoch).samples).double()
        assert (found - exact).abs().max() < 2, f"seed {seed} epoch {epoch}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("counts", "batch_size"), [((97, 3), 16), ((580, 17), 128), ((70, 20, 7), 8)])
def test_balanced_draws_every_member_equally_often(counts: tuple[int, ...], batch_size: int, seed: int) -> None:
    sampler = make("balanced", counts, batch_size, seed)
    assert sampler.steps_per_epoch == sum(counts) // batch_size
    epochs = [sampler.epoch(epoch).samples for epoch in range(7)]
    for samples in epochs:
        per_batch = class_counts(sampler, samples)
        assert (per_batch.max() - per_batch.min()) <= 1
        assert (per_batch == per_batch[0]).all()
    seen = torch.bincount(torch.cat(epochs).flatten(), minlength=sum(counts))
    for members in sampler.members:
        assert seen[members].max() - seen[members].min() <= 1, f"seed {seed}"


def test_balanced_repeats_nothing_before_the_class_is_exhausted() -> None:
    sampler = make("balanced", (50, 6), 8, seed=2)
    rows = torch.cat([sampler.epoch(epoch).samples for epoch in range(3)])
    rare = [set(row[sampler.labels[row] == 1].tolist()) for row in rows]
    # Four rare places a batch, six rare samples: two batches show every one of them, three batches two rounds.
    for first, second, third in zip(rare[::3], rare[1::3], rare[2::3], strict=True):
        assert first | second == second | third == set(sampler.members[1].tolist())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["shuffle", "stratified"])
@pytest.mark.parametrize("least", [1, 4, 30])
def test_min_minority_is_reached_with_as_few_repetitions_as_possible(kind: str, least: int, seed: int) -> None:
    plain = make(kind, (285, 15), 30, seed)
    raised = make(kind, (285, 15), 30, seed, min_minority=least)
    for epoch in range(3):
        before, after = plain.epoch(epoch).samples, raised.epoch(epoch).samples
        rare = class_counts(plain, before)[:, 1]
        assert torch.equal(class_counts(raised, after)[:, 1], rare.clamp(min=least))
        # Only majority places change, and the added samples share the repetitions evenly.
        changed = before != after
        assert (plain.labels[before[changed]] == 0).all()
        added = torch.bincount(after[changed], minlength=300)[plain.members[1]]
        assert added.max() - added.min() <= 1, f"seed {seed} epoch {epoch}"


@pytest.mark.parametrize("min_minority", [0, 12])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_no_sample_gets_the_same_draw_twice_in_a_run(kind: str, min_minority: int) -> None:
    sampler = make(kind, (120, 5), 25, min_minority=min_minority)
    seen: set[tuple[int, int]] = set()
    for epoch in range(12):
        plan = sampler.epoch(epoch)
        pairs = list(zip(plan.samples.flatten().tolist(), plan.draws.flatten().tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        assert not seen & set(pairs)
        seen |= set(pairs)
        assert plan.draws.min() >= 0


@pytest.mark.parametrize("kind", SAMPLERS)
def test_pieces_of_the_ranks_form_the_same_global_batch(kind: str) -> None:
    samples = make(kind, (90, 30), 12, min_minority=3).epoch(0).samples
    for world in (2, 3, 4):
        share = 12 // world
        pieces = [
            make(kind, (90, 30), 12, min_minority=3).epoch(0).samples[:, r * share : (r + 1) * share]
            for r in range(world)
        ]
        assert torch.equal(torch.cat(pieces, 1), samples)


def test_balanced_gives_every_rank_both_classes() -> None:
    sampler = make("balanced", (400, 20), 32)
    for epoch in range(4):
        samples = sampler.epoch(epoch).samples
        for piece in samples.chunk(2, dim=1):
            assert (class_counts(sampler, piece) > 0).all()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"batch_size": 0}, "--batch-size 0 holds no sample"),
        ({"min_minority": -1}, "--min-minority-per-batch -1 is negative"),
        ({"minority_class": 2}, "--minority-class 2 has no training sample"),
        ({"minority_class": -1}, "--minority-class -1 has no training sample"),
        ({"kind": "weighted"}, "--batch-sampler weighted is unknown"),
        ({"batch_size": 41}, "--batch-size 41 is larger than the training set"),
        ({"kind": "balanced", "batch_size": 1}, "--batch-size 1 cannot hold 2 classes"),
        ({"min_minority": 2, "minority_class": None}, "--min-minority-per-batch needs a minority class"),
        ({"min_minority": 9}, "--min-minority-per-batch 9 is larger than --batch-size 8"),
        ({"kind": "balanced", "min_minority": 5}, "--min-minority-per-batch 5: balanced batches hold 4"),
    ],
)
def test_impossible_requests_name_the_flag(settings: dict[str, object], part: str) -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    usual: dict[str, object] = {"batch_size": 8, "kind": "shuffle", "seed": 0, "minority_class": 1}
    with pytest.raises(ValueError, match=part):
        BatchSampler(labels, **(usual | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("empty", [0, 1])
def test_a_class_without_samples_is_refused(kind: str, empty: int) -> None:
    labels = torch.tensor([1 - empty] * 20 + [2] * 20)
    with pytest.raises(ValueError, match=f"class {empty} of 0 to 2 has no training sample"):
        BatchSampler(labels, batch_size=8, kind=kind, seed=0)


def test_one_batch_may_hold_all_samples() -> None:
    plan = make("shuffle", (30, 10), 40).epoch(0)
    assert plan.samples.flatten().sort().values.tolist() == list(range(40))


def test_share_of_poor_batches_of_the_design() -> None:
    assert round(share_of_poor_batches(500, 50_000, 64), 2) == 0.87
    assert share_of_poor_batches(50, 5000, 64) == pytest.approx(0.86, abs=0.01)
    assert share_of_poor_batches(50, 5000, 256) == pytest.approx(0.27, abs=0.01)


@pytest.mark.parametrize(("minority", "total", "batch", "at_most"), [(17, 597, 128, 1), (3, 40, 8, 0), (20, 60, 30, 9)])
def test_share_of_poor_batches_is_the_exact_sum(minority: int, total: int, batch: int, at_most: int) -> None:
    ways = sum(math.comb(minority, k) * math.comb(total - minority, batch - k) for k in range(at_most + 1))
    assert share_of_poor_batches(minority, total, batch, at_most) == pytest.approx(ways / math.comb(total, batch))


def test_share_of_poor_batches_is_what_the_sampler_does() -> None:
    sampler = make("shuffle", (594, 6), 60)
    rare = torch.cat([class_counts(sampler, sampler.epoch(epoch).samples)[:, 1] for epoch in range(400)])
    expected = share_of_poor_batches(6, 600, 60)
    assert float((rare <= 1).double().mean()) == pytest.approx(expected, abs=4 * (0.25 / len(rare)) ** 0.5)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_millions_of_samples_are_planned_in_seconds(kind: str) -> None:
    labels = (torch.arange(2_700_000) % 100 == 0).long()
    sampler = BatchSampler(labels, batch_size=1024, kind=kind, seed=0, minority_class=1, min_minority=64)
    started = time.process_time()
    plan = sampler.epoch(3)
    assert time.process_time() - started < 3
    assert plan.samples.shape == (2636, 1024)


@pytest.mark.parametrize(
    ("kind", "least"), [("shuffle", 0), ("stratified", 0), ("balanced", 0), ("shuffle", 9), ("stratified", 9)]
)
def test_presented_counts_are_the_shares_of_the_batches(kind: str, least: int) -> None:
    labels = torch.tensor([0] * 400 + [1] * 80 + [2] * 20)
    sampler = BatchSampler(
        labels, batch_size=50, kind=kind, seed=3, minority_class=2 if least else None, min_minority=least
    )
    seen = torch.cat([labels[sampler.epoch(epoch).samples].flatten() for epoch in range(40)])
    expected = torch.bincount(seen).double() / len(seen)
    found = torch.tensor(sampler.presented_counts()).double() / len(labels)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    if kind == "shuffle" and not least:
        assert sampler.presented_counts() == [400, 80, 20]
