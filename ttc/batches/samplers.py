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
class EpochBatches:
    """The batches of one epoch, or one rank's piece of each of them.

    Attributes:
        samples: [S, B] int64, positions in the labels that the sampler was given; [S, B / ranks] for one rank.
        draws: int64 of the same shape, see the module's text.
    """

    samples: Tensor
    draws: Tensor


class BatchSampler:
    """Puts the global batches of each epoch together.

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
            ValueError: unknown kind, a class without samples, or a batch that the data cannot fill.
        """
        if kind not in SAMPLERS:
            raise ValueError(f"--batch-sampler {kind} is unknown; choose {', '.join(SAMPLERS)}")
        if batch_size < 1:
            raise ValueError(f"--batch-size {batch_size} holds no sample; use at least 1")
        if min_minority < 0:
            raise ValueError(f"--min-minority-per-batch {min_minority} is negative; use 0 for no guarantee")
        if batch_size > len(labels):
            raise ValueError(f"--batch-size {batch_size} is larger than the training set; use at most {len(labels)}")
        self.counts = torch.bincount(labels).tolist()
        if 0 in self.counts:
            raise ValueError(
                f"class {self.counts.index(0)} of 0 to {len(self.counts) - 1} has no training sample; "
                "leave it out with --classes, or take more with --train-samples"
            )
        if minority_class is not None and not 0 <= minority_class < len(self.counts):
            raise ValueError(f"--minority-class {minority_class} has no training sample; name a class that has some")
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
        self._is_minority = labels == -1 if minority_class is None else labels == minority_class
        self.members = [torch.nonzero(labels == c).flatten() for c in range(len(self.counts))]
        self.steps_per_epoch = len(labels) // batch_size
        quota = 0 if minority_class is None else batch_size // len(self.counts)
        if kind == "balanced" and min_minority > quota:
            raise ValueError(
                f"--min-minority-per-batch {min_minority}: balanced batches hold {quota}; lower it or use stratified"
            )

    def epoch(self, epoch: int, rank: int = 0, ranks: int = 1) -> EpochBatches:
        """Return the batches of an epoch; equal arguments give equal batches in every process.

        They take a few vectorised passes over the samples; only the piece of one rank is kept.

        Args:
            epoch: from 0.
            rank: whose piece of the batches is wanted.
            ranks: number of equal pieces, which divides B; 1 for whole batches.
        """
        length = self.batch_size // ranks
        piece = slice(rank * length, (rank + 1) * length)
        if self.kind == "balanced":
            return self._balanced(epoch, piece)
        generator = _generator(self.seed, epoch)
        if self.kind == "shuffle":
            order = torch.randperm(len(self.labels), generator=generator)
        else:
            order = self._stratified_order(generator)
        samples = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)
        draws = torch.tensor(epoch * _MAX_PASSES).expand_as(samples)
        if self.min_minority:
            draws = self._raise_minority(samples, epoch)
        # A copy, because a view would keep the whole order for as long as the epoch lasts.
        return EpochBatches(samples[:, piece].clone(), draws[:, piece].clone())

    def quota(self, label: int) -> int:
        """Return how many samples of a class a balanced batch has."""
        # Where the classes do not divide the batch, the first ones get one sample more.
        classes = len(self.members)
        return self.batch_size // classes + (label < self.batch_size % classes)

    def presented_counts(self) -> list[int]:
        """Return how many samples of each class an epoch of as many images as the data presents on average.

        Methods that weigh by class frequency need these: with the counts of the data they would correct a second time
        what balanced batches have corrected.
        """
        total = sum(self.counts)
        if self.kind == "balanced":
            shares = [self.quota(label) / self.batch_size for label in range(len(self.counts))]
        elif self.min_minority:
            assert self.minority_class is not None
            rare_share = self.minority_per_batch() / self.batch_size
            others = total - self.counts[self.minority_class]
            shares = [(1 - rare_share) * count / others for count in self.counts]
            shares[self.minority_class] = rare_share
        else:
            return list(self.counts)
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
        size = len(members)
        first_pass, last_pass = first // size, (first + count - 1) // size
        orders = torch.empty(last_pass - first_pass + 1, size, dtype=torch.int64)
        for order, number in zip(orders, range(first_pass, last_pass + 1), strict=True):
            torch.randperm(size, generator=_generator(self.seed, label, number, key), out=order)
        skip = first - first_pass * size
        numbers = torch.arange(first, first + count).div_(size, rounding_mode="floor")
        return members[orders.flatten()[skip : skip + count]], numbers

    def _balanced(self, epoch: int, piece: slice) -> EpochBatches:
        steps = self.steps_per_epoch
        # One shuffle of the columns, so that every rank's piece of the batch has all classes.
        columns = torch.randperm(self.batch_size, generator=_generator(self.seed, epoch))[piece]
        samples = torch.empty(steps, len(columns), dtype=torch.int64)
        draws = torch.empty_like(samples)
        first = 0
        for label in range(len(self.members)):
            quota = self.quota(label)
            sample, number = self._stream(label, epoch * steps * quota, steps * quota, key=0)
            place = ((first <= columns) & (columns < first + quota)).nonzero().flatten()
            samples[:, place] = sample.view(steps, quota)[:, columns[place] - first]
            draws[:, place] = number.view(steps, quota)[:, columns[place] - first]
            first += quota
        return EpochBatches(samples, draws)

    def _raise_minority(self, samples: Tensor, epoch: int) -> Tensor:
        """Put minority samples in the place of majority samples where there are too few; return the draws."""
        draws = torch.full_like(samples, epoch * _MAX_PASSES)
        assert self.minority_class is not None
        minority = self._is_minority[samples]
        missing = (self.min_minority - minority.sum(1)).clamp(min=0)
        total = int(missing.sum())
        if total == 0:
            return draws
        sample, number = self._stream(self.minority_class, 0, total, key=epoch + 1)
        # The order within a shuffled batch is random already, so the first majority places of a batch are random ones.
        rank_of_majority = (~minority).cumsum(1, dtype=torch.int32)
        replaced = ~minority & (rank_of_majority <= missing[:, None])
        samples[replaced] = sample
        draws[replaced] = epoch * _MAX_PASSES + 1 + number
        return draws

    def minority_per_batch(self) -> float:
        """Return the expected number of minority samples in a batch."""
        assert self.minority_class is not None
        if self.kind == "balanced":
            return float(self.quota(self.minority_class))
        minority, total = self.counts[self.minority_class], sum(self.counts)
        expected: float = self.batch_size * minority / total
        if self.kind == "stratified":
            return max(expected, self.min_minority)
        # Raising X to at least K adds the sum of P(X <= k) over k < K to its mean.
        at_most = _minority_distribution(minority, total, self.batch_size).cumsum(0)
        missing = self.min_minority - len(at_most)
        return expected + float(at_most[: self.min_minority].sum()) + max(0, missing)


def _minority_distribution(minority: int, total: int, batch_size: int) -> Tensor:
    """Return the probability that a random batch holds 0, 1, ... minority samples (hypergeometric), float64."""

    def log_ways(of: Tensor, take: Tensor) -> Tensor:
        return torch.lgamma(of + 1) - torch.lgamma(take + 1) - torch.lgamma(of - take + 1)

    minority_counts = torch.arange(min(minority, batch_size) + 1, dtype=torch.float64)
    rare, all_samples, batch = (minority_counts.new_tensor(number) for number in (minority, total, batch_size))
    log_probability = (
        log_ways(rare, minority_counts)
        + log_ways(all_samples - rare, batch - minority_counts)
        - log_ways(all_samples, batch)
    )
    return log_probability.exp()


def share_of_poor_batches(minority: int, total: int, batch_size: int, at_most: int = 1) -> float:
    """Return the share of randomly shuffled batches that hold at most `at_most` minority samples.

    Source: the hypergeometric distribution; at 1 % minority 0.86 of batches of 64 and 0.27 of batches of 256.
    """
    return float(_minority_distribution(minority, total, batch_size)[: at_most + 1].sum())
