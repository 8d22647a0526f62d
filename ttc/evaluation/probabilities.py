"""Probabilities of a head: the class shares for which it was fitted, and those for which they are to hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttc.metrics.clinic.calibrators import Calibrator, binary, shares
from ttc.models.description import Description

log = logging.getLogger("ttc")

NO_CALIBRATOR = "%s has no calibrator (of an earlier version, or never calibrated): probability is left empty; %s"
"""Warning: which head, and the remedy."""


def classifier_prior(
    description: Description, objective: Mapping[str, Tensor], arguments: Mapping[str, object]
) -> list[float]:
    """Return the share of each class for which a network's own classifier was fitted.

    That is the share in the batches, times the weight of the class in the loss. Losses with weights of inverse
    frequency, and those that add the logarithm of the frequency to the logits in training, are left with equal shares.

    Args:
        description: of the run.
        objective: state of the objective that holds the classifier.
        arguments: flag -> value of the run that trained it.
    """
    counts_K = np.asarray(description.class_counts, dtype=np.float64)
    drawn_K = np.ones_like(counts_K) if arguments.get("batch_sampler") == "balanced" else counts_K
    drawn_K = drawn_K / drawn_K.sum()
    least, size = arguments.get("min_minority_per_batch"), arguments.get("batch_size")
    minority = description.minority_class
    if isinstance(least, int) and isinstance(size, int) and minority is not None and least / size > drawn_K[minority]:
        rest = 1.0 - drawn_K[minority]
        drawn_K = drawn_K * (1.0 - least / size) / rest
        drawn_K[minority] = least / size
    weights = objective.get("class_weights_K")
    log_prior = objective.get("log_prior_K")
    if weights is not None:
        drawn_K = drawn_K * weights.double().cpu().numpy()
    elif log_prior is not None:
        drawn_K = drawn_K / log_prior.double().exp().cpu().numpy()
    return (drawn_K / drawn_K.sum()).tolist()  # type: ignore[no-any-return]  # NumPy's stub


def deploy_shares(
    natural_counts: Sequence[int] | None, calibrator: Calibrator, prevalence: float | None, positive_class: int
) -> tuple[tuple[float, ...], str]:
    """Return the share of each class where new images come from, and the source of these shares in words.

    Args:
        natural_counts: images per class of the source data; None in files of earlier versions.
        calibrator: of the head.
        prevalence: of the positive class, from --deploy-prevalence; None for the natural one of the source data, or
            that of validation where it is not known.
        positive_class: label of the positive class.
    """
    if prevalence is not None:
        return binary(prevalence, positive_class), "--deploy-prevalence"
    if natural_counts is None or not all(natural_counts):
        return calibrator.prevalence, "validation"
    return tuple(count / sum(natural_counts) for count in natural_counts), "the source data"


def held_at(calibrator: Calibrator, labels_N: NDArray[np.int64]) -> tuple[float, ...]:
    """Return the class shares at which labelled samples are measured: their own, if no class is missing."""
    sample_shares = shares(labels_N, len(calibrator.prevalence))
    return sample_shares if all(sample_shares) else calibrator.prevalence


def read_calibrators(values: Mapping[str, object], path: Path) -> dict[str, Calibrator]:
    """Return the calibrators of a file, by the name of the head.

    Raises:
        ValueError: the file is damaged.
    """
    calibrators = {}
    for name, fields in values.items():
        try:
            calibrators[str(name)] = Calibrator.of(fields)  # type: ignore[arg-type]  # `of` refuses what is not a mapping
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: calibrator of {name}: {error}; evaluate the run again") from None
    return calibrators


def columns(name: str, values_NK: NDArray[np.float64], positive_class: int) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a table by name: one of the positive class, or one per class for more than two classes."""
    if values_NK.shape[1] == 2:
        return {name: values_NK[:, positive_class]}
    return {f"{name}_{label}": values_NK[:, label] for label in range(values_NK.shape[1])}


def check_prevalences(prevalences: Sequence[float] | None, classes: int) -> None:
    """Refuse --deploy-prevalence for more than two classes.

    Raises:
        ValueError: there are more than two.
    """
    if prevalences and classes > 2:
        raise ValueError("--deploy-prevalence is defined for two classes only; leave it out")
