"""Carve seeded, stratified validation and test sets out of the training side, by group where groups exist."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ttc.datasets.imbalance import apportion, hash_order, spread_groups
from ttc.run.escape import counted

log = logging.getLogger("ttc.splits")

DEFAULT_FRACTIONS = {"test": 0.2, "val": 0.1}
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "pool": "pool",
}
"""What a split is called in tables and folders, in lower case -> its name here."""

REST = "train"
"""What is not drawn for another part."""

NEWEST_RULE = 2
"""By which whole groups are drawn, see `hold_out`; a run keeps the rule that it began with."""


def hold_out(
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    splits: Sequence[str],
    parts: Mapping[str, int | float],
    seed: int,
    rule: int = NEWEST_RULE,
) -> list[str]:
    """Move samples of split "train" to held-out parts.

    Stratified by source label, so that the test set is the same for every grouping of the labels.

    Rule 2: without groups each part gets its share of each label, rounded so that the parts add up, and at least one
    sample where there are enough for all. With groups (patients, sites) whole groups move, such that the count of each
    label, the rarest first, comes as near to its share as whole groups allow: see `draw_groups`.
    Rule 1, of earlier versions: a group counts under its most frequent label, and a rare label may miss a part.

    Args:
        ids: Unique sample ids.
        labels: Source label per sample.
        groups: Group per sample, or None when each sample stands for itself.
        splits: Split per sample; only "train" rows move.
        parts: Size of each part, drawn in this order: a count, or a fraction of the "train" rows.
        seed: Seed of the order.
        rule: 1 or 2; what a run began with.

    Returns:
        Split per sample.
    """
    result = list(splits)
    available = sum(split == "train" for split in splits)
    wanted = {part: amount if isinstance(amount, int) else round(amount * available) for part, amount in parts.items()}
    if rule > 1 and groups is not None:
        rows = [row for row, split in enumerate(splits) if split == "train"]
        shares = {part: min(1.0, count / max(1, available)) for part, count in wanted.items()}
        drawn = draw_groups([groups[row] for row in rows], [labels[row] for row in rows], shares, seed)
        for row, part in zip(rows, drawn, strict=True):
            result[row] = part
        return result
    for position, (part, count) in enumerate(wanted.items()):
        rows = [row for row, split in enumerate(result) if split == "train"]
        # How many parts each label must still serve after this one; the last is the training side itself.
        later = None if rule == 1 else len(wanted) - position
        for row in _draw_part(rows, ids, labels, groups, min(count, len(rows)), seed, later):
            result[row] = part
    return result


def _draw_part(
    rows: Sequence[int],
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    wanted: int,
    seed: int,
    later: int | None,
) -> list[int]:
    strata: dict[str, list[list[int]]] = defaultdict(list)
    if groups is None:
        for position in hash_order([ids[row] for row in rows], seed, "split"):
            strata[labels[rows[position]]].append([rows[position]])
    else:
        units: dict[str, list[int]] = {}
        for row in rows:
            units.setdefault(groups[row], []).append(row)
        names = list(units)
        for position in hash_order(names, seed, "split"):
            members = units[names[position]]
            strata[_most_frequent([labels[row] for row in members])].append(members)
    # Hashed order of the labels: equal remainders must not always favour the first labels of the alphabet.
    stratum_names = sorted(strata)
    stratum_names = [stratum_names[k] for k in hash_order(stratum_names, seed, "strata")]
    sizes = [sum(map(len, strata[name])) for name in stratum_names]
    quotas = apportion(sizes, wanted)
    if later is not None:
        quotas = _one_of_each(quotas, sizes, later)
    drawn: list[int] = []
    for name, quota in zip(stratum_names, quotas, strict=True):
        drawn += _fill(strata[name], quota)
    return drawn


def _one_of_each(quotas: Sequence[int], sizes: Sequence[int], later: int) -> list[int]:
    """Give a label that would miss a part one sample of it, and leave one for each part that is drawn later.

    Args:
        quotas: Samples of each label for this part.
        sizes: Samples of each label that are left.
        later: Parts that are drawn after this one, the training side among them.

    Returns:
        Quotas with the same sum, as far as there is a label with more than one to take from.
    """
    result = list(quotas)
    for label, size in enumerate(sizes):
        if size > later:
            least, most = 1, size - later
            result[label] = min(max(result[label], least), most)
    surplus = sum(result) - sum(quotas)
    while surplus > 0:
        label = max(range(len(result)), key=lambda k: (result[k], -k))
        if result[label] < 2:
            break
        result[label] -= 1
        surplus -= 1
    return result


def _fill(units: Sequence[Sequence[int]], quota: int) -> list[int]:
    """Take whole units while each brings the total nearer to the quota; one at least when another one is left."""
    if sum(map(len, units)) == len(units):
        return [row for (row,) in units[:quota]]
    taken: list[int] = []
    for members in units:
        first_of_several = not taken and quota > 0 and len(units) > 1
        if first_of_several or 2 * len(taken) + len(members) <= 2 * quota:
            taken += members
    return taken


def _most_frequent(labels: Sequence[str]) -> str:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """Leave out what the run's own log says about how its data were split."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def missing_parts(splits: Sequence[str], fold: tuple[int, int] | None = None) -> dict[str, int | float]:
    """Return the parts to draw from the training side of a user's data where the data does not define them.

    Args:
        splits: Split per sample.
        fold: That takes the place of these parts, so that nothing is told about them; None without folds.
    """
    parts: dict[str, int | float] = {
        part: fraction for part, fraction in DEFAULT_FRACTIONS.items() if part not in splits
    }
    for part, fraction in parts.items() if fold is None else ():
        log.info("no split %r in the data: %.0f %% of the training side is drawn for it", part, 100 * fraction)
    return parts


def draw_groups(groups: Sequence[str], labels: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Assign whole groups to parts.

    Label by label, from the rarest to the most common, the groups that hold it and are still free go, in hashed order,
    where most of the label is missing; then single groups are moved as long as that brings the counts of the label
    nearer to what is due. So no part misses more of the rarest label than its largest group holds. A label that
    at least as many groups hold as there are parts is in every part.

    Args:
        groups: Group per sample.
        labels: Source label per sample.
        shares: Part -> share of the samples; what is left goes to "train".
        seed: Seed of the order.

    Returns:
        Part per sample; the same for any order of the samples.
    """
    return spread_groups(groups, labels, {REST: 1.0 - sum(shares.values()), **shares}, seed, "split", even=False)


def draw_folds(units: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> list[int]:
    """Assign whole groups to folds, as `draw_groups` does; of folds that miss equally many, the emptiest gets more.

    Args:
        units: Group per sample, or its id where each sample stands for itself.
        labels: Source label per sample.
        folds: K, at least 2.
        seed: Seed of the order.

    Returns:
        Fold per sample, 1 to K; the same for any order of the samples.
    """
    numbers = {f"{number:06d}": number for number in range(1, folds + 1)}  # as text, in the order of the numbers
    drawn = spread_groups(units, labels, dict.fromkeys(numbers, 1.0 / folds), seed, "fold", even=True)
    return [numbers[part] for part in drawn]


def describe_redrawn(splits: Sequence[str]) -> str:
    """Say what folds are drawn over, and which splits of the data they replace."""
    counts = Counter(splits)
    if len(counts) == 1:
        return f"folds are drawn over all {len(splits)} images"
    fixed = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"folds are drawn over all {len(splits)} images, and the splits of the data ({fixed}) are not used"


def draw_fold(
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    fold: tuple[int, int],
    val: int,
    seed: int,
    class_of: Mapping[str, str],
) -> list[str]:
    """Make one fold of an experiment the test set, and draw the validation set from the other ones.

    Args:
        ids: Unique sample ids.
        labels: Source label per sample.
        groups: Group per sample, or None when each sample stands for itself.
        fold: (I, K): fold I of K.
        val: Samples of the validation set.
        seed: Seed of the order.
        class_of: Source label -> name of its class, for labels that are in one.

    Returns:
        Split per sample.

    Raises:
        ValueError: A fold would lack a class.
    """
    (number, folds), units = fold, ids if groups is None else groups
    fold_of = draw_folds(units, labels, folds, seed)
    for name in dict.fromkeys(class_of.values()):
        rows = [row for row, label in enumerate(labels) if class_of.get(label) == name]
        count, what = len({units[row] for row in rows}), "image" if groups is None else "group"
        if count < folds:
            raise ValueError(
                f"--fold {number}/{folds}: class {name!r} has {counted(count, what)} only, so that a fold would lack "
                f"it; use at most {counted(count, 'fold')}"
            )
        if len({fold_of[row] for row in rows}) < folds:
            raise ValueError(
                f"--fold {number}/{folds}: the {what}s cannot be divided so that every fold has class {name!r}; use "
                "fewer folds"
            )
    splits = ["test" if drawn == number else "train" for drawn in fold_of]
    return hold_out(ids, labels, groups, splits, {"val": val}, seed)
