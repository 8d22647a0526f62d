"""Cross-validation folds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified_folds(
    labels_N: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Divide samples into folds with the same class shares, as far as whole groups allow.

    Args:
        labels_N: [N] classes.
        groups: group (patient, site) of each sample, which never has samples in two folds; None without groups.
        folds: number of folds, at least 3: one to test, one to choose with, the others to learn from.
        seed: of the draw.

    Returns:
        [N] the fold that tests each sample, 0 .. folds - 1.

    Raises:
        ValueError: a fold would lack a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units_N = np.arange(len(labels_N)) if groups is None else np.asarray(groups)
    for label in np.unique(labels_N).tolist():
        units = len(np.unique(units_N[labels_N == label]))
        if units < folds:
            kind = "samples" if groups is None else "groups"
            raise ValueError(f"--folds {folds}: class {label} has {units} {kind}, so a fold would lack it; lower it")
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    fold_N = np.full(len(labels_N), -1)
    with warnings.catch_warnings():
        # It warns when groups cannot be balanced; what matters here is checked below.
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, tested) in enumerate(splitter.split(labels_N, labels_N, units_N)):
            fold_N[tested] = fold
    for fold in range(folds):
        if len(np.unique(labels_N[fold_N == fold])) < len(np.unique(labels_N)):
            raise ValueError(
                f"--folds {folds}: the groups cannot be divided so that every fold has all classes; lower it"
            )
    return fold_N
