"""Carve seeded, stratified validation and test sets out of the training side, by group where groups exist."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ttc.datasets.imbalance import apportion, hash_order

log = logging.getLogger("ttc")

DEFAULT_FRACTIONS = {"test": 0.2, "val": 0.1}


def hold_out(
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    splits: Sequence[str],
    parts: Mapping[str, int | float],
    seed: int,
) -> list[str]:
    """Move samples of split "train" to held-out parts.

    Stratified by source label, so that the test set is the same for every grouping of the labels. With groups
    (patients, sites) whole groups move, each counted under its most frequent label, until the quota is met as
    closely as whole groups allow.

    Args:
        ids: Unique sample ids.
        labels: Source label per sample.
        groups: Group per sample, or None when each sample stands for itself.
        splits: Split per sample; only "train" rows move.
        parts: Size of each part, drawn in this order: a count, or a fraction of the "train" rows.
        seed: Seed of the order.

    Returns:
        Split per sample.
    """
    result = list(splits)
    available = sum(split == "train" for split in splits)
    for part, amount in parts.items():
        rows = [row for row, split in enumerate(result) if split == "train"]
        wanted = amount if isinstance(amount, int) else round(amount * available)
        for row in _draw_part(rows, ids, labels, groups, min(wanted, len(rows)), seed):
            result[row] = part
    return result


def _draw_part(
    rows: Sequence[int],
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    wanted: int,
    seed: int,
) -> list[int]:
    units: dict[str, list[int]] = {}
    for row in rows:
        units.setdefault(ids[row] if groups is None else groups[row], []).append(row)
    names = list(units)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for position in hash_order(names, seed, "split"):
        members = units[names[position]]
        strata[_most_frequent([labels[row] for row in members])].append(members)
    # Hashed order of the labels: equal remainders must not always favour the first labels of the alphabet.
    stratum_names = sorted(strata)
    stratum_names = [stratum_names[k] for k in hash_order(stratum_names, seed, "strata")]
    quotas = apportion([sum(map(len, strata[name])) for name in stratum_names], wanted)
    drawn: list[int] = []
    for name, quota in zip(stratum_names, quotas, strict=True):
        drawn += _fill(strata[name], quota)
    return drawn


def _fill(units: Sequence[Sequence[int]], quota: int) -> list[int]:
    """Take whole units while each brings the total nearer to the quota; one at least when another one is left."""
    taken: list[int] = []
    for members in units:
        first_of_several = not taken and quota > 0 and len(units) > 1
        if first_of_several or 2 * len(taken) + len(members) <= 2 * quota:
            taken += members
    return taken


def _most_frequent(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def missing_parts(splits: Sequence[str]) -> dict[str, int | float]:
    """Return the parts to draw from the training side of a user's data where the data does not define them."""
    parts: dict[str, int | float] = {
        part: fraction for part, fraction in DEFAULT_FRACTIONS.items() if part not in splits
    }
    for part, fraction in parts.items():
        log.info("no split %r in the data: %.0f %% of the training side is drawn for it", part, 100 * fraction)
    return parts
