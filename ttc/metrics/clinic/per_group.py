"""One score per group: of a patient, a breast or a camera event with several images.

Shape suffixes: N samples, G groups, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttc.metrics.intervals import Floats, Ints, numbered

POOLS, LABELS = ("mean", "max"), ("any", "all")
"""How the scores of a group become one, and when a group is positive."""


def pool_groups(
    labels_N: Ints,
    scores_NK: Floats,
    groups: Sequence[str],
    pool: str,
    group_label: str = "any",
    positive_class: int = 1,
) -> tuple[Ints, Floats, list[str]]:
    """Return one score and one label per group.

    Args:
        labels_N: [N] classes.
        scores_NK: [N, K] class probabilities, or raw ones.
        groups: [N] group of each sample.
        pool: "mean" of the scores, or "max": the highest score of the positive class.
        group_label: a group is positive if "any" or if "all" of its samples are.
        positive_class: of two classes.

    Returns:
        labels [G], scores [G, K] that sum to 1, and the names of the groups, in the order of their first samples.

    Raises:
        ValueError: "max" for more than two classes, or a group with samples of several of more than two classes.
    """
    groups_N = numbered(groups, len(labels_N))
    assert groups_N is not None
    names = list(dict.fromkeys(groups))
    sizes_G, classes = np.bincount(groups_N).astype(np.float64), scores_NK.shape[1]
    counts_GK = np.zeros((len(names), classes))
    np.add.at(counts_GK, (groups_N, labels_N), 1.0)
    if pool == "max" and classes > 2:
        raise ValueError(f"--per-group max is defined for two classes, not {classes}; use mean")
    if pool == "max":
        highest_G = np.full(len(names), -np.inf)
        np.maximum.at(highest_G, groups_N, scores_NK[:, positive_class])
        pooled_GK = np.empty((len(names), 2))
        pooled_GK[:, positive_class], pooled_GK[:, 1 - positive_class] = highest_G, 1.0 - highest_G
    else:
        sums_GK = np.zeros((len(names), classes))
        np.add.at(sums_GK, groups_N, scores_NK)
        pooled_GK = sums_GK / sizes_G[:, None]
    if classes == 2:
        share_G = counts_GK[:, positive_class] / sizes_G
        positive_G = share_G == 1.0 if group_label == "all" else share_G > 0.0
        return np.where(positive_G, positive_class, 1 - positive_class).astype(np.int64), pooled_GK, names
    if mixed := [name for name, counts_K in zip(names, counts_GK, strict=True) if (counts_K > 0).sum() > 1]:
        raise ValueError(
            f"--per-group: group {mixed[0]!r} has samples of several classes, so it has no class of its own"
        )
    return counts_GK.argmax(axis=1).astype(np.int64), pooled_GK, names
