"""Which samples form which batch: a pure function of the labels, the seed and the epoch.

The same GLOBAL batches for any number of ranks: a batch is a row of a table, and rank r of W takes the r-th of W equal
pieces of the row. Beside every sample stands its `draw`, a number that differs between two appearances of the same
sample in a run, so that a repeated image gets other augmentations (see augment.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLERS = ("shuffle", "stratified", "balanced")

_MAX_PASSES = 1 << 20
"""More passes over a class than this within one epoch do not occur; draws of different epochs stay apart."""


def _generator(*key: int) -> torch.Generator:
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (part + 1)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        state ^= state >> 31
    return torch.Generator().manual_seed(state % (1 << 63))


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one epoch.

    Attributes:
        samples: [S, B] int64, positions in the labels that the sampler was given.
        draws: [S, B] int64, see the module's text.
    """

    samples: Tensor
    draws: Tensor


class BatchSampler:
    """Plans epochs of global batches.

    * "shuffle": a fresh order of all samples each epoch; the incomplete batch at the end is left out.
    * "stratified": the same, but every batch has the class shares of the data, as nearly as whole samples allow.
    * "balanced": every batch has equally many samples of each class, drawn without replacement from the class and
      reshuffled when it is exhausted; an epoch has as many batches as with "shuffle", so that the budget is equal.

    `min_minority` guarantees a number of minority samples per batch: where "shuffle" or "stratified" gave fewer,
    majority samples at random places give way to minority samples, which therefore repeat, but only as much as needed.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        batch_size: int,
        kind: str,
        seed: int,
        minority_class: int | None = None,
        min_minority: int = 0,
    ) -> None:
        """Check the request.

        Args:
            labels: [N] int64 of the training samples; every class 0 .. max has a sample.
            batch_size: B, samples of the GLOBAL batch.
            kind: one of SAMPLERS.
            seed: of the run.
            minority_class: needed for `min_minority`.
            min_minority: least minority samples per batch, 0 .. B.

        Raises:
            ValueError: unknown kind, or a batch that the data cannot fill.
        """
        if kind not in SAMPLERS:
            raise ValueError(f"--batch-sampler {kind} is unknown; choose {', '.join(SAMPLERS)}")
        if batch_size > len(labels):
            raise ValueError(f"--batch-size {batch_size} is larger than the training set; use at most {len(labels)}")
        self.counts = torch.bincount(labels).tolist()
        if kind == "balanced" and batch_size < len(self.counts):
            raise ValueError(f"--batch-size {batch_size} cannot hold {len(self.counts)} classes; use a larger one")
        if min_minority and minority_class is None:
            raise ValueError("--min-minority-per-batch needs a minority class; name it with --minority-class")
        if min_minority > batch_size:
            raise ValueError(
                f"--min-minority-per-batch {min_minority} is larger than --batch-size {batch_size}; lower it"
            )
        self.batch_size, self.kind, self.seed = batch_size, kind, seed
        self.minority_class, self.min_minority = minority_class, min_minority
        self.labels = labels
        self.members = [torch.nonzero(labels == c).flatten() for c in range(len(self.counts))]
        self.steps_per_epoch = len(labels) // batch_size
        share = 0 if minority_class is None else batch_size // len(self.counts)
        if kind == "balanced" and min_minority > share:
            raise ValueError(
                f"--min-minority-per-batch {min_minority}: balanced batches hold {share}; lower it or use stratified"
            )

    def epoch(self, epoch: int) -> EpochPlan:
        """Plan one epoch; equal arguments give equal plans in every process."""
        if self.kind == "balanced":
            return self._balanced(epoch)
        generator = _generator(self.seed, epoch)
        if self.kind == "shuffle":
            order = torch.randperm(len(self.labels), generator=generator)
        else:
            order = self._stratified_order(generator)
        samples = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size).clone()
        draws = torch.full_like(samples, epoch * _MAX_PASSES)
        if self.min_minority:
            self._raise_minority(samples, draws, epoch)
        return EpochPlan(samples, draws)

    def presented_counts(self) -> list[int]:
        """Return how many samples of each class an epoch of as many images as the data presents on average.

        Methods that weigh by class frequency need these: with the counts of the data they would correct a second time
        what balanced batches have corrected.
        """
        total, batch = sum(self.counts), self.batch_size
        if self.kind == "balanced":
            quotas = [batch // len(self.counts) + (c < batch % len(self.counts)) for c in range(len(self.counts))]
            return [max(1, round(total * quota / batch)) for quota in quotas]
        if not self.min_minority:
            return list(self.counts)
        assert self.minority_class is not None
        planned = self.labels[self.epoch(0).samples] == self.minority_class
        rare, others = float(planned.float().mean()), total - self.counts[self.minority_class]
        shares = [(1 - rare) * count / others for count in self.counts]
        shares[self.minority_class] = rare
        return [max(1, round(total * share)) for share in shares]

    def _stratified_order(self, generator: torch.Generator) -> Tensor:
        # Each class is spread evenly over [0, 1): any window of the merged order then has the class shares, to less
        # than one sample of two classes, and to two samples of more.
        places = torch.empty(len(self.labels), dtype=torch.float64)
        for members in self.members:
            shuffled = members[torch.randperm(len(members), generator=generator)]
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            places[shuffled] = (torch.arange(len(members), dtype=torch.float64) + offset) / len(members)
        return places.argsort(stable=True)

    def _stream(self, label: int, first: int, count: int, key: int) -> tuple[Tensor, Tensor]:
        """Return members of a class and their pass numbers, from place `first` of its endless reshuffled sequence."""
        members = self.members[label]
        passes = range(first // len(members), (first + count - 1) // len(members) + 1)
        drawn = [
            members[torch.randperm(len(members), generator=_generator(self.seed, label, each, key))] for each in passes
        ]
        numbers = torch.tensor(passes).repeat_interleave(len(members))
        skip = first - passes[0] * len(members)
        return torch.cat(drawn)[skip : skip + count], numbers[skip : skip + count]

    def _balanced(self, epoch: int) -> EpochPlan:
        classes, steps = len(self.members), self.steps_per_epoch
        samples, draws = [], []
        for label in range(classes):
            # Where the classes do not divide the batch, the first ones get one sample more.
            quota = self.batch_size // classes + (label < self.batch_size % classes)
            sample, number = self._stream(label, epoch * steps * quota, steps * quota, key=0)
            samples.append(sample.view(steps, quota))
            draws.append(number.view(steps, quota))
        # One shuffle of the columns, so that every rank's piece of the batch has all classes.
        column = torch.randperm(self.batch_size, generator=_generator(self.seed, epoch))
        return EpochPlan(torch.cat(samples, 1)[:, column], torch.cat(draws, 1)[:, column])

    def _raise_minority(self, samples: Tensor, draws: Tensor, epoch: int) -> None:
        assert self.minority_class is not None
        minority = self.labels[samples] == self.minority_class
        missing = (self.min_minority - minority.sum(1)).clamp(min=0)
        total = int(missing.sum())
        if total == 0:
            return
        sample, number = self._stream(self.minority_class, 0, total, key=epoch + 1)
        # The order within a shuffled batch is random already, so the first majority places of a batch are random ones.
        rank_of_majority = (~minority).cumsum(1)
        replaced = ~minority & (rank_of_majority <= missing[:, None])
        samples[replaced] = sample
        draws[replaced] = epoch * _MAX_PASSES + 1 + number


def share_of_poor_batches(minority: int, total: int, batch_size: int, at_most: int = 1) -> float:
    """Return the share of randomly shuffled batches that hold at most `at_most` minority samples.

    Source: the hypergeometric distribution; at 1 % minority 0.86 of batches of 64 and 0.27 of batches of 256.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(at_most, total, minority, batch_size))
