"""Heads that learn from the natural class shares and are balanced afterwards, without the encoder and without training.

Both start from the linear classifier of all training images, each of which counts once. The balanced probe is the
third of this kind: it learns anew with balanced classes (cRT of Kang et al.).

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttc.evaluation.probe import FittedProbe

NATURAL_HEADS = ("tau-norm", "logit-adjusted")
"""They learn from probe "all" alone: a balanced draw would leave nothing to correct."""

TAUS = tuple(tenth / 10 for tenth in range(11))
"""Exponents that validation chooses from."""


def tau_normalised(natural: FittedProbe, tau: float) -> FittedProbe:
    """Divide the function of each class, w_k x + b_k, by |w_k|^tau.

    Args:
        natural: linear classifier learned from the natural shares; w_k are its weights of standardised features. For
            two classes the one row [1, F] stands for w_1 = -w_0 = w / 2, the weights of a softmax over both.
        tau: from 0, which changes nothing, to 1.

    Returns:
        The classifier, with a row per class.

    Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, section 4.
    Note: the paper leaves the bias out, as negligible. Here it is divided like the weights: the plane on which the
    function of a class is 0 stays, wherever the features have their origin, and tau = 0 is the classifier itself. For
    two classes both norms are equal, so that tau is a temperature and changes neither ranks nor decisions.
    """
    weight_KF, bias_K = _per_class(natural)
    norm_K = np.linalg.norm(weight_KF, axis=1)
    divisor_K = np.where(norm_K > 0, norm_K, 1.0) ** tau
    return replace(natural, weight=weight_KF / divisor_K[:, None], bias=bias_K / divisor_K, tau=tau)


def choose_tau(natural: FittedProbe, validation: tuple[Tensor, Tensor] | None) -> FittedProbe:
    """Return the tau-normalised classifier with the largest balanced accuracy on validation; the first of equals.

    Args:
        natural: see `tau_normalised`.
        validation: features [N, F] and labels [N].

    Raises:
        ValueError: there is no validation.
    """
    if validation is None:
        raise ValueError("--head tau-norm chooses its exponent on validation, which has no sample; leave it out")
    features, labels_N = validation[0], validation[1].numpy()
    fits = [tau_normalised(natural, tau) for tau in TAUS]
    recalls = [_mean_recall(labels_N, fit(features).argmax(axis=1)) for fit in fits]
    return fits[int(np.argmax(np.round(recalls, 12)))]


def logit_adjusted(natural: FittedProbe, shares_K: Sequence[float], tau: float = 1.0) -> FittedProbe:
    """Subtract tau times the logarithm of a class's share from its logit.

    With tau = 1 the largest probability minimises the balanced error, the mean over classes of their errors, if those
    of `natural` are right. Ranks of two classes stay: their logits move by one constant.

    Args:
        natural: linear classifier learned from the natural shares.
        shares_K: share of each class among the samples that it learned from, above 0.
        tau: weight of the correction.

    Returns:
        The classifier, with a row per class.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 9.
    """
    weight_KF, bias_K = _per_class(natural)
    return replace(natural, weight=weight_KF, bias=bias_K - tau * np.log(np.asarray(shares_K)), tau=tau)


def _per_class(probe: FittedProbe) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights [K, F] and biases [K] of a softmax over all classes."""
    if len(probe.weight) > 1:
        return probe.weight, probe.bias
    return np.concatenate([-probe.weight, probe.weight]) / 2.0, np.concatenate([-probe.bias, probe.bias]) / 2.0


def _mean_recall(labels_N: NDArray[np.int64], decisions_N: NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur of the share of their samples that are found."""
    return float(np.mean([(decisions_N[labels_N == label] == label).mean() for label in np.unique(labels_N)]))
