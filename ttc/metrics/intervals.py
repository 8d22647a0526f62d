"""Stratified bootstrap intervals of classification metrics, one matrix operation for many draws.

A draw is held as the number of times that it picks each sample: every metric is then a weighted one.

Shape suffixes: R draws, N samples, K classes, U units that are drawn (samples or groups).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Estimate(TypedDict):
    """A metric and its 95 % interval; None = not defined on these samples."""

    value: float | None
    low: float | None
    high: float | None


FEW = 20
"""With fewer positive samples, or fewer groups that hold one, bootstrap intervals are rough."""


class Basis(TypedDict):
    """What intervals rest on.

    Attributes:
        resampled: what is taken as independent, "samples" or "groups".
        units: how many of them there are.
        smallest: samples of the smallest class.
        smallest_groups: groups that hold one of them; None without groups.
        rough: whether that is fewer than FEW.
        rests_on: the same in words, such as "11 positives of 9 groups: rough".
    """

    resampled: str
    units: int
    smallest: int
    smallest_groups: int | None
    rough: bool
    rests_on: str


def basis(labels_N: Ints, classes: int, groups_N: Ints | None = None, units: str = "groups") -> Basis:
    """Say what the intervals of a split rest on.

    Args:
        labels_N: [N] class numbers; of two, 1 is the positive one.
        classes: how many there are.
        groups_N: [N] number of each sample's group, or None.
        units: what a group is, in the plural, for `rests_on`: "groups", "patients", "sites".
    """
    counts = np.bincount(labels_N, minlength=classes)
    label = int(counts.argmin()) if classes > 2 or counts[0] < counts[1] else 1
    name = ("negatives", "positives")[label] if classes == 2 else f"samples of class {label}"
    smallest, smallest_groups = int(counts[label]), None
    if groups_N is not None:
        smallest_groups = len(np.unique(groups_N[labels_N == label]))
    rough = (smallest if smallest_groups is None else smallest_groups) < FEW
    of_groups = "" if smallest_groups is None else f" of {smallest_groups} {_noun(smallest_groups, units)}"
    return {
        "resampled": "samples" if groups_N is None else "groups",
        "units": len(labels_N) if groups_N is None else int(groups_N.max()) + 1,
        "smallest": smallest,
        "smallest_groups": smallest_groups,
        "rough": rough,
        "rests_on": f"{smallest} {_noun(smallest, name)}{of_groups}{': rough' if rough else ''}",
    }


def _noun(number: int, plural: str) -> str:
    first, _, rest = plural.partition(" ")
    return f"{first.removesuffix('s')} {rest}".rstrip() if number == 1 else plural


_CHUNK_BYTES = 32 * 2**20
_KEPT_BYTES = 128 * 2**20
_COUNT = np.uint32


def numbered(groups: Sequence[str] | None, samples: int) -> Ints | None:
    """Give each group a number, in the order of their first samples.

    Args:
        groups: group (patient, site) of each sample, or None.
        samples: N.

    Returns:
        [N] from 0, or None.

    Raises:
        ValueError: there is not one group per sample.
    """
    if groups is None:
        return None
    if len(groups) != samples:
        raise ValueError(f"groups has {len(groups)} entries for {samples} labels")
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def shared(groups_N: Ints | None) -> Ints | None:
    """Return the groups, or None where none holds two samples: samples are then independent."""
    return None if groups_N is None or len(np.unique(groups_N)) == len(groups_N) else groups_N


def bootstrap_counts(labels_N: Ints, draws: int, seed: int, groups_N: Ints | None = None) -> Iterator[Floats]:
    """Yield how often each draw picks each sample.

    Samples are resampled with replacement within each class. With groups it is whole groups, since samples of one
    patient are no independent observations; they are resampled among those that hold the same classes. Every draw then
    has every class, and classes keep their number of samples (without groups) or of groups.

    Args:
        labels_N: [N] class numbers.
        draws: Number of draws, >= 1.
        seed: Seed of the draws.
        groups_N: [N] number of each sample's group, from 0 and without gaps; None takes samples as independent.

    Yields:
        [R, N] counts, in chunks of a few MiB; the R of all chunks sum to `draws`.

    Source: Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007): the cluster bootstrap.
    """
    strata_U = np.ascontiguousarray(labels_N if groups_N is None else _held_classes(labels_N, groups_N), dtype=np.int64)
    small = draws * len(strata_U) * np.dtype(_COUNT).itemsize <= _KEPT_BYTES
    drawn: Iterable[Floats] | Iterable[NDArray[np.uint32]] = (
        _kept_draws(strata_U.tobytes(), draws, seed) if small else _draw(strata_U, draws, seed)
    )
    for counts_RU in drawn:
        if groups_N is None:
            yield counts_RU.astype(np.float64, copy=False)
            continue
        size = max(1, _CHUNK_BYTES // (8 * len(groups_N)))
        for first in range(0, len(counts_RU), size):
            yield counts_RU[first : first + size].take(groups_N, axis=1).astype(np.float64)


def _held_classes(labels_N: Ints, groups_N: Ints) -> Ints:
    """Return [U] one number per group, equal for groups that hold samples of the same classes."""
    held_UK = np.zeros((int(groups_N.max()) + 1, int(labels_N.max()) + 1), dtype=np.bool_)
    held_UK[groups_N, labels_N] = True
    # Groups of class 0 alone come before those of class 1 alone, as samples do.
    return np.unique(held_UK[:, ::-1], axis=0, return_inverse=True)[1].reshape(-1)


@lru_cache(maxsize=1)
def _kept_draws(strata: bytes, draws: int, seed: int) -> list[Floats] | list[NDArray[np.uint32]]:
    """Keep the draws of the last call: an evaluation asks for the same ones for every probe."""
    drawn = list(_draw(np.frombuffer(strata, dtype=np.int64), draws, seed))
    if 2 * sum(counts_RU.nbytes for counts_RU in drawn) > _KEPT_BYTES:
        return drawn
    return [counts_RU.astype(np.float64) for counts_RU in drawn]


def _draw(strata_U: Ints, draws: int, seed: int) -> Iterator[NDArray[np.uint32]]:
    """Draw units with replacement within each stratum; yield counts [R, U] in chunks."""
    generator = np.random.default_rng(seed)
    strata = [np.flatnonzero(strata_U == stratum) for stratum in np.unique(strata_U)]
    chunk = max(1, _CHUNK_BYTES // (8 * len(strata_U)))
    for first in range(0, draws, chunk):
        size = min(chunk, draws - first)
        counts_RU = np.zeros((size, len(strata_U)), dtype=_COUNT)
        for units in strata:
            picks = generator.integers(len(units), size=(size, len(units)))
            flat = (picks + len(units) * np.arange(size)[:, None]).ravel()
            counts_RU[:, units] = np.bincount(flat, minlength=size * len(units)).reshape(size, -1)
        yield counts_RU


def bootstrap(
    statistics: Callable[[Floats], Mapping[str, Floats]],
    labels_N: Ints,
    draws: int,
    seed: int,
    groups_N: Ints | None = None,
) -> dict[str, Floats]:
    """Compute statistics on every draw of the stratified bootstrap.

    Args:
        statistics: from counts [R, N] to values [R] by name.
        labels_N: [N] class numbers.
        draws: Number of draws; 0 gives an empty dict.
        seed: Seed of the draws; equal labels, groups and seeds give equal draws.
        groups_N: [N] number of each sample's group, see `bootstrap_counts`.

    Returns:
        Values [draws] by name; empty with a single group, which says nothing about others.
    """
    if not draws or (groups_N is not None and not groups_N.any()):
        return {}
    chunks = [statistics(counts_RN) for counts_RN in bootstrap_counts(labels_N, draws, seed, groups_N)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}


def estimate(value: float | None, draws_R: Floats | None) -> Estimate:
    """Join a point value with the 2.5 % and 97.5 % percentiles of its draws, between which it always lies.

    Args:
        value: the point value; None or NaN where it is not defined.
        draws_R: the draws, or None without an interval; those in which the metric is not defined (NaN) are left out.

    Returns:
        No interval where all draws agree, as after perfect separation: they say nothing about other samples.
    """
    if value is None or np.isnan(value):
        return {"value": None, "low": None, "high": None}
    defined_R = np.empty(0) if draws_R is None else draws_R[~np.isnan(draws_R)]
    if not len(defined_R):
        return {"value": float(value), "low": None, "high": None}
    low, high = np.percentile(defined_R, [2.5, 97.5]).tolist()
    return within(float(value), low, high)


def within(value: float, low: float, high: float) -> Estimate:
    """Return an estimate whose interval holds its value; no interval where that has no width."""
    low, high = min(low, value), max(high, value)
    if high - low < 1e-12:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": low, "high": high}


def weighted_confusion(labels_N: Ints, predictions_N: Ints, counts_RN: Floats, classes: int) -> Floats:
    """Return [R, K, K] the number of samples of each true class (rows) that got each prediction (columns)."""
    cells_N = labels_N * classes + predictions_N
    one_hot = np.zeros((len(labels_N), classes * classes))
    one_hot[np.arange(len(labels_N)), cells_N] = 1.0
    return (counts_RN @ one_hot).reshape(-1, classes, classes)


def accuracy(confusion_RKK: Floats) -> Floats:
    """Return the share of correct predictions of each draw."""
    shares_R: Floats = np.trace(confusion_RKK, axis1=1, axis2=2) / confusion_RKK.sum(axis=(1, 2))
    return shares_R


def balanced_accuracy(confusion_RKK: Floats) -> Floats:
    """Return the mean recall of the classes that have samples."""
    totals_RK = confusion_RKK.sum(axis=2)
    present_K = totals_RK[0] > 0  # the same in each draw: every draw has every class
    recall_RK: Floats = np.diagonal(confusion_RKK, axis1=1, axis2=2)[:, present_K] / totals_RK[:, present_K]
    return np.asarray(recall_RK.mean(axis=1))


def f1(confusion_R22: Floats) -> Floats:
    """Return F1 of class 1; 0 when it is neither present nor predicted."""
    hits = confusion_R22[:, 1, 1]
    total = 2.0 * hits + confusion_R22[:, 0, 1] + confusion_R22[:, 1, 0]
    return np.divide(2.0 * hits, total, out=np.zeros_like(hits), where=total > 0)


def matthews(confusion_RKK: Floats) -> Floats:
    """Return Matthews' correlation coefficient; 0 when only one class is present or predicted."""
    true_RK, predicted_RK = confusion_RKK.sum(axis=2), confusion_RKK.sum(axis=1)
    correct_R, total_R = np.trace(confusion_RKK, axis1=1, axis2=2), confusion_RKK.sum(axis=(1, 2))
    covariance_R = correct_R * total_R - (true_RK * predicted_RK).sum(axis=1)
    spread_R = (total_R**2 - (predicted_RK**2).sum(axis=1)) * (total_R**2 - (true_RK**2).sum(axis=1))
    defined_R = spread_R > 0
    quotient_R = np.divide(covariance_R, np.sqrt(spread_R), out=np.zeros(len(confusion_RKK)), where=defined_R)
    return np.asarray(quotient_R)
