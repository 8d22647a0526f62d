"""Pure index arithmetic behind splits and imbalanced subsets: hashed order, quotas, draws.

Nothing here holds random state. The order of the samples is a function of (seed, purpose, id) alone, so a draw
does not depend on the listing order, a library's version, the ratio or the method, and the draws for two sizes
are nested: the smaller one is a prefix of the larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import compress

RATIO_SUM_TOLERANCE = 1e-6


def hash_order(ids: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Order samples by a keyed hash of their ids.

    Args:
        ids: Unique sample ids.
        seed: Any integer.
        purpose: Keeps draws for different ends independent, for example "split" and "subset".

    Returns:
        Positions into `ids`, sorted by the 64-bit blake2b hash of `seed:purpose:id`; equal hashes by id.
    """
    prefix = f"{seed}:{purpose}:".encode()
    keys = [blake2b(prefix + i.encode(errors="surrogateescape"), digest_size=8).digest() for i in ids]
    if len(set(keys)) < len(keys):
        pairs = list(zip(keys, ids, strict=True))
        return sorted(range(len(pairs)), key=pairs.__getitem__)
    # Several times faster than pairs, and the same order where no two hashes are equal.
    return sorted(range(len(keys)), key=keys.__getitem__)


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` in proportion to `sizes` by the largest remainder, in integer arithmetic.

    Args:
        sizes: Stratum sizes, each >= 0.
        total: Number to hand out, 0 <= total <= sum(sizes).

    Returns:
        One quota per stratum, never above its size; they sum to `total`. Equal remainders favour the earlier one.
    """
    population = sum(sizes)
    assert 0 <= total <= population
    if population == 0:
        return [0] * len(sizes)
    quotas = [size * total // population for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda k: -(sizes[k] * total % population))
    for k in by_remainder[: total - sum(quotas)]:
        quotas[k] += 1
    return quotas


def subset_counts(
    class_sizes: Sequence[int],
    class_names: Sequence[str],
    class_ratios: Sequence[float] | None,
    train_samples: int | None,
) -> list[int]:
    """Say how many training samples of each class the subset takes.

    With ratios the total is M = min(smallest class, `train_samples`) for every ratio, and class c gets
    floor(M * ratio_c). Without ratios, `train_samples` caps the total and the classes keep their shares.

    Args:
        class_sizes: Samples per class on the training side.
        class_names: Names for the error messages.
        class_ratios: One share in (0, 1) per class, summing to 1; None keeps the natural shares.
        train_samples: Upper limit of the total; None for no limit.

    Returns:
        Samples per class.

    Raises:
        ValueError: If the ratios are malformed or a class would get no sample.
    """
    if class_ratios is None:
        cap = sum(class_sizes) if train_samples is None else min(train_samples, sum(class_sizes))
        counts = apportion(class_sizes, cap)
        reason = f"--train-samples {train_samples}"
    else:
        _check_ratios(class_ratios, len(class_sizes))
        total = min(class_sizes) if train_samples is None else min(min(class_sizes), train_samples)
        # Rounded before the floor: 0.29 * 100 is 28.999999999999996 in floating point.
        counts = [int(round(total * ratio, 6)) for ratio in class_ratios]
        reason = f"--class-ratios {_joined(class_ratios)} of {total} samples"
    for name, count in zip(class_names, counts, strict=True):
        if count == 0:
            raise ValueError(
                f"{reason} leaves class {name!r} without a training sample; "
                "raise its ratio or the number of training samples"
            )
    return counts


def draw_subset(ids: Sequence[str], labels: Sequence[int], counts: Sequence[int], seed: int) -> list[int]:
    """Take the first `counts[c]` samples of every class in hashed order.

    Args:
        ids: Unique ids of the training side.
        labels: Class index per sample.
        counts: Samples to take per class.
        seed: Seed of the order.

    Returns:
        Chosen positions into `ids`, ascending.
    """
    left = list(counts)
    chosen = [False] * len(ids)
    for row in hash_order(ids, seed, "subset"):
        if left[labels[row]] > 0:
            left[labels[row]] -= 1
            chosen[row] = True
    assert not any(left)
    return list(compress(range(len(ids)), chosen))


def _check_ratios(class_ratios: Sequence[float], classes: int) -> None:
    if len(class_ratios) != classes:
        raise ValueError(
            f"--class-ratios {_joined(class_ratios)} has {len(class_ratios)} values for {classes} classes; "
            "give one ratio per class in label order"
        )
    if not all(ratio > 0 for ratio in class_ratios):
        raise ValueError(f"--class-ratios {_joined(class_ratios)} must all be above 0; drop a class with --classes")
    if abs(sum(class_ratios) - 1) > RATIO_SUM_TOLERANCE:
        raise ValueError(
            f"--class-ratios {_joined(class_ratios)} sums to {sum(class_ratios):.6g}, not 1; "
            "give shares of the training set such as 0.99 0.01"
        )


def _joined(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
