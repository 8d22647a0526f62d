"""The classifiers of the floor: linear models and SVMs on raw pixels and on their principal components.

Shape suffixes: N training samples, W samples to predict, D pixel values, F features, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ttc.evaluation.probe import auroc
from ttc.metrics.clinic.calibrators import fit_calibrator
from ttc.metrics.clinic.per_group import pool_groups

if TYPE_CHECKING:
    from sklearn.svm import SVC

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Transform = Callable[[Floats], Floats]
Candidate = tuple[float, Floats, Callable[[], Transform]]
"""C, class probabilities of the judged samples, and what finishes the model and gives what predicts."""

COMPONENTS = 50
LINEAR_STRENGTHS, SVM_STRENGTHS = (0.001, 0.01, 0.1, 1.0), (0.1, 1.0, 10.0)
"""Inverse strengths C of the penalty that validation chooses from."""
UNCHOSEN = ("pca", "svm", 1.0)
"""Features, model and C where there is no validation to choose with."""

_ITERATIONS, _FOLDS = 100, 5
_LEAST_VARIANCE = 1e-6
"""Share of all variance below which a principal component is rounding, which whitening would blow up."""
_CHUNK = 4096


@dataclass(frozen=True)
class Chosen:
    """The classifier that validation chose.

    Attributes:
        features: "pixels" or "pca".
        model: "linear" or "svm".
        strength: C.
        validation: its AUROC there, of groups where they have one class each; None without validation.
        scores_WK: raw class probabilities of the samples that were asked for.
    """

    features: str
    model: str
    strength: float
    validation: float | None
    scores_WK: Floats


def choose(
    train: tuple[Floats, Ints],
    validation: tuple[Floats, Ints, Sequence[str] | None] | None,
    wanted_WD: Floats,
) -> Chosen:
    """Fit every candidate, each class with the same total weight, and predict with the one that validation chooses.

    Args:
        train: pixels [N, D] and labels [N], 0 .. K - 1, all present.
        validation: pixels, labels and groups (or None) to choose with, of every class; None takes `UNCHOSEN`.
        wanted_WD: pixels of the samples to predict.

    Returns:
        The best; the first of equals, where the simpler ones come first.
    """
    train_ND, labels_N = train
    best: tuple[float, Chosen, Transform, Callable[[], Transform]] | None = None
    for features, fit_space in (("pixels", standardised), ("pca", principal)):
        to_features = fit_space(train_ND)
        known_NF = to_features(train_ND)
        judged_VF = known_NF[:0] if validation is None else to_features(validation[0])
        for model, fit in (("linear", _linear), ("svm", _svm)):
            for strength, judged_VK, finish in fit(known_NF, labels_N, judged_VF):
                reached = None if validation is None else unit_auroc(judged_VK, *validation[1:])
                score = float((features, model, strength) == UNCHOSEN) if reached is None else reached
                if best is None or score > best[0]:
                    best = score, Chosen(features, model, strength, reached, judged_VK[:0]), to_features, finish
    assert best is not None
    _, chosen, to_features, finish = best
    predict = finish()
    parts = [predict(to_features(wanted_WD[at : at + _CHUNK])) for at in range(0, len(wanted_WD), _CHUNK)]
    return replace(chosen, scores_WK=np.concatenate(parts))


def unit_auroc(scores_NK: Floats, labels_N: Ints, groups: Sequence[str] | None) -> float:
    """Return the AUROC of the mean score of each group where groups have one class each, else of each sample."""
    if groups is not None and len(set(zip(groups, labels_N.tolist(), strict=True))) == len(set(groups)):
        labels_N, scores_NK, _ = pool_groups(labels_N, scores_NK, groups, "mean")
    return auroc(torch.from_numpy(labels_N), scores_NK)


def standardised(pixels_ND: Floats) -> Transform:
    """Return what gives every pixel mean 0 and variance 1 over these samples."""
    mean_D, scale_D = pixels_ND.mean(0), pixels_ND.std(0)
    scale_D[scale_D == 0] = 1.0
    return lambda values: (values - mean_D) / scale_D


def principal(pixels_ND: Floats) -> Transform:
    """Return what gives the first principal components of these samples, each with variance 1."""
    from sklearn.decomposition import PCA

    model = PCA(min(COMPONENTS, len(pixels_ND) - 1, pixels_ND.shape[1]), random_state=0).fit(pixels_ND)
    kept_F = model.explained_variance_ > _LEAST_VARIANCE * max(pixels_ND.var(0).sum(), np.finfo(np.float64).tiny)
    kept_F[0] = True
    scale_F = np.sqrt(model.explained_variance_[kept_F])
    scale_F[scale_F == 0] = 1.0
    return lambda values: np.asarray(model.transform(values)[:, kept_F] / scale_F)


def _linear(known_NF: Floats, labels_N: Ints, judged_VF: Floats) -> Iterator[Candidate]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    for strength in LINEAR_STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=_ITERATIONS)
        with warnings.catch_warnings():
            # The weakest penalties need not converge to be a candidate: validation judges them all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(known_NF, labels_N)

        def predict(features_WF: Floats, model: LogisticRegression = model) -> Floats:
            return _probabilities(model.decision_function(features_WF))

        yield strength, predict(judged_VF) if len(judged_VF) else judged_VF, partial(_same, predict)


def _same(predict: Transform) -> Transform:
    return predict


def _svm(known_NF: Floats, labels_N: Ints, judged_VF: Floats) -> Iterator[Candidate]:
    """Yield SVMs; the kernels are computed once for all of them."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVC

    gamma = 1.0 / (known_NF.shape[1] * (known_NF.var() or 1.0))  # scikit-learn's "scale"
    kernel_NN = rbf_kernel(known_NF, known_NF, gamma)
    judged_VN = rbf_kernel(judged_VF, known_NF, gamma) if len(judged_VF) else judged_VF
    for strength in SVM_STRENGTHS:
        model = SVC(C=strength, kernel="precomputed", class_weight="balanced").fit(kernel_NN, labels_N)

        def finish(model: SVC = model) -> Transform:
            to_scores = _balanced_scores(model, kernel_NN, labels_N)
            return lambda values: to_scores(
                _probabilities(model.decision_function(rbf_kernel(values, known_NF, gamma)))
            )

        judged_VK = _probabilities(model.decision_function(judged_VN)) if len(judged_VF) else judged_VF
        yield strength, judged_VK, finish


def _balanced_scores(model: SVC, kernel_NN: Floats, labels_N: Ints) -> Transform:
    """Return what makes scores of an SVM's decisions that answer "if all classes were equally frequent".

    A decision is a distance and no log-odds: with a rare class nearly all of them can have one sign. Platt scaling of
    decisions about training samples that were left out, as in scikit-learn's `SVC(probability=True)`, mends that; the
    order of the samples stays.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(_FOLDS, int(np.bincount(labels_N).min()))
    if folds < 2:
        return lambda scores_WK: scores_WK
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    decisions = cross_val_predict(model, kernel_NN, labels_N, cv=splitter, method="decision_function")
    fitted = fit_calibrator(labels_N, _probabilities(decisions), "platt")
    assert fitted is not None
    equal = np.full(len(fitted.prevalence), 1.0 / len(fitted.prevalence)).tolist()
    return lambda scores_WK: fitted(scores_WK, equal)


def _probabilities(decisions: Floats) -> Floats:
    """Return softmax [W, K] of decisions [W, K], or of 0 and the decision [W] of two classes."""
    logits_WK = np.stack([np.zeros_like(decisions), decisions], 1) if decisions.ndim == 1 else decisions
    return np.asarray(torch.softmax(torch.from_numpy(np.ascontiguousarray(logits_WK)), 1).numpy())
