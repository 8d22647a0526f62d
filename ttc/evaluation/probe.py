"""Linear probes: which samples they learn from, and the logistic regression itself.

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

import hashlib
import logging
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttc.datasets import Dataset
from ttc.datasets.imbalance import hash_order
from ttc.datasets.registry import MEDMNIST_NAMES
from ttc.metrics.points import ranking_values
from ttc.run.escape import counted

log = logging.getLogger("ttc")

PROBES = ("all", "minority", "fraction")
"""all: every training sample. minority: as many of each class as the smallest class has in training. fraction: a share
of all labelled images outside of validation and test, equally many of each class."""

_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the L2 penalty that validation chooses from; 1 where there is no validation."""


def module_digest(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers: equal before and after an evaluation, or the result is void."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


FEWEST_PER_CLASS = 10
"""A probe with fewer training images per class is left out, unless it is asked for."""


def usual_probes(dataset: Dataset, probes: Sequence[str], *, fraction: float) -> list[str]:
    """Return the probes with enough images of each class; "all" where there is none.

    Args:
        dataset: the data of the run.
        probes: of PROBES, those to choose from.
        fraction: as for `probe_rows`.
    """
    # A run of an earlier version is evaluated as it was, whatever that is worth.
    fewest = FEWEST_PER_CLASS if dataset.settings.split_rule > 1 else 1
    per_class_of = {probe: _balanced_draw(dataset, probe, fraction)[1] for probe in probes if probe != "all"}
    for probe, per_class in per_class_of.items():
        if per_class < fewest:
            log.warning(
                "probe %s is left out: it would learn from %s of each class; --probes %s asks for it all the same%s",
                probe,
                counted(per_class, "image"),
                probe,
                ", and --probe-fraction for more" if probe == "fraction" else "",
            )
    return [probe for probe in probes if per_class_of.get(probe, fewest) >= fewest] or ["all"]


def paper_probes(dataset: Dataset) -> list[str]:
    """Return the probes of the paper's protocol: "fraction", or "all" for the data sets that it uses whole.

    A run of an earlier version is evaluated as it was.
    """
    settings = dataset.settings
    whole = settings.name == "fracatlas" or settings.name in MEDMNIST_NAMES
    return ["all"] if whole and settings.split_rule > 1 else ["fraction"]


def _balanced_draw(dataset: Dataset, probe: str, fraction: float) -> tuple[Tensor, int]:
    """Return the rows that a balanced probe draws from, and how many of each class it takes."""
    rows = dataset.indices("train")
    if probe == "fraction":
        rows = torch.cat([rows, dataset.indices("pool")]).sort().values
    counts = torch.bincount(dataset.labels[rows], minlength=len(dataset.class_names)).tolist()
    per_class = min(counts)
    return rows, min(per_class, round(fraction * len(rows) / len(counts))) if probe == "fraction" else per_class


def probe_rows(dataset: Dataset, probe: str, *, fraction: float, seed: int) -> Tensor:
    """Return the rows of the dataset that a probe learns from.

    Args:
        dataset: the data of the run.
        probe: one of PROBES.
        fraction: for "fraction": share of train and pool together, over all classes.
        seed: of the draw; "all" has nothing to draw.

    Returns:
        int64, ascending.

    Raises:
        ValueError: the fraction leaves a class without a sample.
    """
    if probe == "all":
        return dataset.indices("train")
    rows, per_class = _balanced_draw(dataset, probe, fraction)
    if per_class < 1:
        raise ValueError(f"--probe-fraction {fraction:g} of {len(rows)} samples leaves no sample per class; raise it")
    return balanced_rows(dataset, rows, per_class, f"probe-{probe}", seed)


def balanced_rows(dataset: Dataset, rows: Tensor, per_class: int, purpose: str, seed: int) -> Tensor:
    """Draw `per_class` rows of each class.

    Args:
        dataset: the data.
        rows: [N] int64, to draw from.
        per_class: rows of each class; a smaller class gives all that it has.
        purpose: names the draw; draws of different names are independent.
        seed: of the draw.

    Returns:
        int64, ascending.
    """
    drawn = []
    for label in range(len(dataset.class_names)):
        members = rows[dataset.labels[rows] == label]
        order = hash_order([dataset.ids[row] for row in members.tolist()], seed, purpose)
        drawn.append(members[order[:per_class]])
    return torch.cat(drawn).sort().values


@dataclass(frozen=True)
class FittedProbe:
    """A logistic regression on standardised features.

    Attributes:
        mean: [F] of the samples it learned from.
        scale: [F] their standard deviation, 1 where it is 0.
        weight: [K, F], or [1, F] for two classes.
        bias: [K] or [1].
        strength: inverse strength of the penalty.
        tau: what a decoupled head was corrected with; None for other heads, and for all that are read from a file.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    tau: float | None = None

    def __call__(self, features: Tensor) -> NDArray[np.float64]:
        """Return [N, K] class probabilities of features [N, F]."""
        logits = (features.double().numpy() - self.mean) / self.scale @ self.weight.T + self.bias
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], 1)
        out: NDArray[np.float64] = torch.softmax(torch.from_numpy(logits), 1).numpy()
        return out


def linear_probe(weight: Tensor, bias: Tensor) -> FittedProbe:
    """Describe a linear layer on raw features, weight [K, F] and bias [K], as a probe."""
    width = weight.shape[1]
    values, offsets = (tensor.detach().double().cpu().numpy() for tensor in (weight, bias))
    return FittedProbe(np.zeros(width), np.ones(width), values, offsets, strength=1.0)


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    strengths: Sequence[float] = _STRENGTHS,
    *,
    balanced: bool = True,
) -> FittedProbe:
    """Fit an L2 logistic regression; validation AUROC chooses the penalty.

    Args:
        features: [N, F] float.
        labels: [N] int64, every class 0 .. K - 1 present.
        validation: features and labels to choose with; None takes strength 1.
        strengths: inverse penalties to choose from.
        balanced: whether each class has the same total weight, or each sample.

    Returns:
        The best fit; the first of equals.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    values = features.double().numpy()
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    best: tuple[float, FittedProbe] | None = None
    for strength in strengths if validation is not None else (1.0,):
        model = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=1000)
        with warnings.catch_warnings():
            # Weak penalties may fail to converge; validation judges them all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((values - mean) / scale, labels.numpy())
        fitted = FittedProbe(mean, scale, model.coef_, model.intercept_, strength)
        score = 0.0 if validation is None else auroc(validation[1], fitted(validation[0]))
        if best is None or score > best[0]:
            best = (score, fitted)
    assert best is not None
    return best[1]


def auroc(labels: Tensor, probabilities: NDArray[np.float64]) -> float:
    """Return the AUROC of [N, K] probabilities, for K > 2 the mean of one class against the rest.

    NaN where the labels lack a class.
    """
    if len(torch.unique(labels)) < probabilities.shape[1]:
        return math.nan
    ranked = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [ranking_values((labels == label).numpy(), probabilities[:, label])[0] for label in ranked]
    return float(np.mean(areas))


def evaluation_rows(dataset: Dataset, split: str, class_balance: str) -> Tensor:
    """Return the rows of a split, or equally many of each class, drawn by the data's seed.

    Args:
        dataset: the data.
        split: "train", "val" or "test".
        class_balance: "natural" or "balanced".

    Returns:
        int64, ascending; the same for every method and ratio.
    """
    rows = dataset.indices(split)
    if class_balance == "natural":
        return rows
    per_class = min(torch.bincount(dataset.labels[rows], minlength=len(dataset.class_names)).tolist())
    return balanced_rows(dataset, rows, per_class, f"balanced-{split}", dataset.settings.seed)


def summarise(draws: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Average the metrics of several probe draws, or folds.

    Args:
        draws: results of `clinical_metrics`.

    Returns:
        "draws", and what the draws hold: for an estimate, at any depth, the mean and standard deviation (n - 1) of the
        values, the means of the interval's ends, and the values; None where one of the draws does not define it. Other
        entries as they are where all draws agree, else one per draw. "details" is that of the first draw.
    """
    out: dict[str, object] = {"draws": len(draws)}
    for name, entry in draws[0].items():
        entries = [draw[name] for draw in draws]
        if name == "per_group":
            out[name] = summarise(entries)  # type: ignore[arg-type]  # results themselves
        else:
            out[name] = entry if name == "details" else _summary(entries)
    return out


def _summary(entries: list[object]) -> object:
    """Summarise one entry of all draws."""
    first = entries[0]
    if not isinstance(first, dict):
        return first if all(entry == first for entry in entries) else entries
    if "value" not in first:
        return {name: _summary([entry[name] for entry in entries]) for name in first}  # type: ignore[index]  # equal keys
    columns = {name: [entry[name] for entry in entries] for name in first}  # type: ignore[index]  # equal keys
    means = {name: None if None in column else statistics.fmean(column) for name, column in columns.items()}
    spread = None if None in columns["value"] else statistics.stdev(columns["value"]) if len(entries) > 1 else 0.0
    return {"values": columns["value"], "mean": means.pop("value"), "std": spread, **means}


def groups_of(dataset: Dataset, rows: Tensor) -> list[str] | None:
    """Return the group of each row, or None where the data have no groups."""
    return None if dataset.groups is None else [dataset.groups[row] for row in rows.tolist()]
