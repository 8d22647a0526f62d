"""Pure index arithmetic behind splits and imbalanced subsets: hashed order, quotas, draws.

Nothing here holds random state. The order of the samples is a function of (seed, purpose, id) alone, so a draw
does not depend on the listing order, a library's version, the ratio or the method, and the draws for two sizes
are nested: the smaller one is a prefix of the larger one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import combinations, compress

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIO_SUM_TOLERANCE = 1e-6
MOST_EXCHANGED = 500
"""Groups of which every pair is tried."""


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
    keys = b"".join([blake2b(prefix + i, digest_size=8).digest() for i in _encoded(ids)])
    keys_N = np.frombuffer(keys, ">u8").astype(np.uint64)
    order_N = keys_N.argsort(kind="stable")
    if (np.diff(keys_N[order_N]) == 0).any():
        return sorted(range(len(ids)), key=lambda row: (keys_N[row], ids[row]))
    order: list[int] = order_N.tolist()
    return order


def _encoded(ids: Sequence[str]) -> list[bytes]:
    """Return the bytes of each id; all at once, which takes a tenth of the time, unless one has a line feed."""
    encoded = "\n".join(ids).encode(errors="surrogateescape").split(b"\n")
    return encoded if len(encoded) == len(ids) else [i.encode(errors="surrogateescape") for i in ids]


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


def spread_groups(
    groups: Sequence[str], labels: Sequence[str], due: Mapping[str, float], seed: int, purpose: str, *, even: bool
) -> list[str]:
    """Assign whole groups to parts, label by label from the rarest to the most common.

    Args:
        groups: Group per sample.
        labels: Source label per sample.
        due: Part -> share of each label.
        seed: Seed of the order.
        purpose: Of the draw, see `hash_order`.
        even: Whether of parts that miss equally many samples the one with the fewest comes first, and whether groups
            are exchanged in the end, such that all labels are near to what is due and not the rarest ones alone.

    Returns:
        Part per sample.
    """
    content: dict[str, Counter[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        content.setdefault(group, Counter())[label] += 1
    names = list(content)
    order = [names[position] for position in hash_order(names, seed, purpose)]
    totals = Counter(labels)
    part_of: dict[str, str] = {}
    load = dict.fromkeys(due, 0)
    for label in sorted(totals, key=lambda label: (totals[label], label)):
        targets = {part: share * totals[label] for part, share in due.items()}
        free = {group: content[group][label] for group in order if label in content[group] and group not in part_of}
        for group, part in part_of.items():
            targets[part] -= content[group][label]
        served = {part_of[group] for group in part_of if label in content[group]}
        drawn = _assign(free, targets, set(due) - served, load)
        part_of |= drawn
        for group, part in drawn.items() if even else ():
            load[part] += content[group].total()
    if even and len(order) < len(groups):
        counts_GL = np.array([[content[group][label] for label in sorted(totals)] for group in order], dtype=np.float64)
        parts = list(due)
        owners_G = np.array([parts.index(part_of[group]) for group in order])
        _exchange(counts_GL, owners_G, np.array(list(due.values())))
        part_of = {group: parts[owner] for group, owner in zip(order, owners_G.tolist(), strict=True)}
    return [part_of[group] for group in groups]


def _exchange(counts_GL: Floats, owners_G: NDArray[np.int64], due_P: Floats) -> None:
    """Exchange or move groups while that lowers the sum of squares of the relative deviations of all labels.

    No part loses its last group with a label. With many groups, where parts are even anyway, they are only moved.

    Args:
        counts_GL: [G, L] samples of each label in each group.
        owners_G: [G] number of each group's part; changed in place.
        due_P: [P] share of each part.
    """
    groups, parts = len(counts_GL), range(len(due_P))
    shares_GL = np.concatenate([counts_GL / counts_GL.sum(axis=0), np.zeros((1, counts_GL.shape[1]))])
    none = np.array([groups])
    while True:
        members = [np.append(np.flatnonzero(owners_G == part), groups) for part in parts]  # and no group at all
        beyond_PL = np.stack([shares_GL[rows].sum(axis=0) for rows in members]) - due_P[:, None]
        holding_PL = np.stack([(shares_GL[rows] > 0).sum(axis=0) for rows in members])
        best = (-1e-12, -1, -1, 0, 0)
        for one, other in combinations(parts, 2):
            sides = [(members[one], members[other])]
            if groups > MOST_EXCHANGED:
                sides = [(members[one], none), (none, members[other])]
            for rows, partners in sides:
                leaving, coming = shares_GL[rows][:, None], shares_GL[partners][None]
                given = leaving - coming
                change = 2.0 * (given * (given - beyond_PL[one] + beyond_PL[other])).sum(axis=2)
                kept = (coming > 0).astype(np.int64) - (leaving > 0)
                for holding, sign in ((holding_PL[one], 1), (holding_PL[other], -1)):
                    change[((holding > 0) & (holding + sign * kept < 1)).any(axis=2)] = np.inf
                row, column = np.unravel_index(np.argmin(change), change.shape)
                best = min(best, (float(change[row, column]), int(rows[row]), int(partners[column]), one, other))
        _, first, second, one, other = best
        if first < 0:
            return
        for group, part in ((first, other), (second, one)):
            if group < groups:
                owners_G[group] = part


def _assign(
    sizes: Mapping[str, int], targets: Mapping[str, float], empty: set[str], load: Mapping[str, int]
) -> dict[str, str]:
    """Assign groups to parts.

    Args:
        sizes: Group -> its samples of the label, in the order of the draw.
        targets: Part -> samples that are due; below 0 where it has too many from other groups.
        empty: Parts that have none yet.
        load: Part -> what it holds already; of parts that miss equally much the one with less comes first.
    """
    missing, members = dict(targets), dict.fromkeys(targets, 0)
    part_of: dict[str, str] = {}
    lacking = {part for part in empty if targets[part] > 0}
    for number, (group, size) in enumerate(sizes.items()):
        # The last groups go to the parts that still have none.
        choice = lacking if 0 < len(lacking) >= len(sizes) - number else missing
        part = max(choice, key=lambda name: (missing[name], -load[name], name))
        part_of[group] = part
        missing[part] -= size
        members[part] += 1
        lacking.discard(part)
    while move := _best_move(sizes, part_of, missing, {part for part in empty if members[part] < 2}):
        group, part = move
        for name, sign in ((part_of[group], 1), (part, -1)):
            missing[name] += sign * sizes[group]
            members[name] -= sign
        part_of[group] = part
    return part_of


def _best_move(
    sizes: Mapping[str, int], part_of: Mapping[str, str], missing: Mapping[str, float], keep: set[str]
) -> tuple[str, str] | None:
    """Return the group and the part by whose union the sum of squares of what is missing falls most, if it falls.

    Args:
        sizes: Group -> samples.
        part_of: Group -> part.
        missing: Part -> samples that are still due.
        keep: Parts that no group may leave.
    """
    best, gain = None, 1e-9
    for group, size in sizes.items():
        source = part_of[group]
        if source in keep:
            continue
        for part in missing:
            # (m_s^2 + m_p^2) - ((m_s + size)^2 + (m_p - size)^2)
            won = 2 * size * (missing[part] - missing[source] - size)
            if part != source and won > gain:
                best, gain = (group, part), won
    return best


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
