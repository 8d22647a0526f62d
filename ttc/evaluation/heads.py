"""Classifiers on frozen features besides logistic regression (ttc/evaluation/probe.py); the file heads.pt.

Legend: N samples, F features, K classes, D dimensions of the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ttc.evaluation.probabilities import read_calibrators
from ttc.evaluation.probe import FittedProbe, auroc, linear_probe
from ttc.losses.prototypes import PrototypePull, SupProto
from ttc.metrics.clinic.calibrators import Calibrator
from ttc.models.layers import OUTPUTS, WithStages
from ttc.models.optim import build_optimizer, learning_rate, set_learning_rate
from ttc.models.pretrained import Pretrained, embed, stored_objective
from ttc.run import checkpoint
from ttc.run.readers import Source

Predict = Callable[[Tensor], NDArray[np.float64]]
"""From features [N, F] to class probabilities [N, K]."""

PAPER_LR, PAPER_BATCH, PAPER_EPOCHS = 3e-4, 1024, 100
"""Source: linear probe of the configurations published with Mildenberger et al., CVPR 2025."""

VOTE_TEMPERATURE = 0.07
"""Divides the cosine of a neighbour's vote, exp(cosine / 0.07).

Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018.
"""

_CHUNK = 1024


DEFAULT_NEIGHBOURS = 20
"""By default; all samples where there are fewer."""


def knn_classifier(features: Tensor, labels: Tensor, classes: int, *, neighbours: int | None, votes: str) -> Predict:
    """Return the classifier that lets the nearest labelled samples vote, by cosine similarity.

    Args:
        features: [N, F] of the labelled samples.
        labels: [N] int64, 0 .. K - 1.
        classes: K.
        neighbours: how many vote, >= 1; None takes 20, or all where there are fewer.
        votes: "similarity" (a vote weighs exp(cosine / 0.07)) or "equal".

    Returns:
        From features to the share of the votes of each class.

    Raises:
        ValueError: `neighbours` is not a whole number from 1 to N, or `votes` has another value.
    """
    if votes not in ("similarity", "equal"):
        raise ValueError(f"votes {votes!r} do not exist; choose similarity or equal")
    if len(features) == 0:
        raise ValueError("--head knn has no samples to choose neighbours from; give more training samples")
    if neighbours is None:
        neighbours = min(DEFAULT_NEIGHBOURS, len(features))
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise ValueError(f"--neighbours {neighbours} is not a number of samples; give a whole number from 1 on")
    if neighbours > len(features):
        raise ValueError(f"--neighbours {neighbours} is more than the {len(features)} samples to choose from; lower it")
    features_NF = functional.normalize(features.double(), dim=1)
    votes_NK = functional.one_hot(labels, classes).double()

    def predict(queries: Tensor) -> NDArray[np.float64]:
        shares = []
        for queries_QF in torch.split(functional.normalize(queries.double(), dim=1), _CHUNK):
            cosines_QA, nearest_QA = (queries_QF @ features_NF.T).topk(neighbours, dim=1)
            if votes == "equal":
                weights_QA = torch.full_like(cosines_QA, 1.0 / neighbours)
            else:
                weights_QA = (cosines_QA / VOTE_TEMPERATURE).softmax(1)
            shares.append((weights_QA[:, :, None] * votes_NK[nearest_QA]).sum(1))
        out: NDArray[np.float64] = torch.cat(shares).numpy()
        return out

    return predict


def prototype_classifier(run: Pretrained) -> Predict:
    """Return supproto's own prediction: the class of the nearest fixed prototype on the projection.

    Returns:
        From projections [N, D] to softmax(cosine / temperature) [N, K], with the temperature of the objective.

    Raises:
        ValueError: the objective has no prototypes.
    """
    owners = [module for module in stored_objective(run).modules() if isinstance(module, SupProto | PrototypePull)]
    if not owners:
        raise ValueError(
            f"--head prototype: --method {run.description.method} has no prototypes; use --head linear or knn"
        )
    prototypes_KD, temperature = owners[0].prototypes_KD.cpu().double(), owners[0].temperature

    def predict(projections: Tensor) -> NDArray[np.float64]:
        cosines_NK = functional.normalize(projections.double(), dim=1) @ prototypes_KD.T
        out: NDArray[np.float64] = (cosines_NK / temperature).softmax(1).numpy()
        return out

    return predict


def train_paper_probe(
    run: Pretrained,
    rows: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    *,
    layer: str,
    seed: int,
    num_workers: int,
) -> FittedProbe:
    """Train a linear layer with Adam on one augmented view per epoch; validation AUROC chooses the epoch.

    Args:
        run: the checkpoint.
        rows: [N] int64, rows of the dataset to learn from.
        validation: features [N, F] and labels [N] to choose with; None takes the last epoch.
        layer: "encoder", "projection" or a module of the encoder.
        seed: of the weights and the order.
        num_workers: processes that decode image files.
    """
    device, generator = next(run.network.parameters()).device, torch.Generator().manual_seed(seed)
    labels = run.dataset.labels[rows].to(device)
    network = WithStages(run.network, [] if layer in OUTPUTS else [layer])

    def features_of(subset: Tensor, **views: int) -> Tensor:
        outputs = embed(network, run.dataset, run.views, subset, num_workers=num_workers, **views)
        return torch.cat([(z if layer == "projection" else network.split(f)[layer])[:, 0] for f, z in outputs])

    head = torch.nn.Linear(features_of(rows[:1], views=0).shape[1], len(run.description.class_names))
    torch.nn.init.normal_(head.weight, std=0.01, generator=generator)
    torch.nn.init.zeros_(head.bias)
    optimizer = build_optimizer("adam", [head.to(device)], lr=PAPER_LR, weight_decay=0.0)

    def predict(features: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            out: NDArray[np.float64] = head(features.to(device)).double().softmax(1).cpu().numpy()
        return out

    best, best_state = -1.0, {}
    for epoch in range(PAPER_EPOCHS):
        set_learning_rate(optimizer, learning_rate(epoch, peak=PAPER_LR, steps=PAPER_EPOCHS, warmup_steps=0))
        features = features_of(rows, views=1, draw=-2 - epoch).to(device)
        # The incomplete batch stays: a small set would have no batch at all without it.
        for batch in torch.split(torch.randperm(len(rows), generator=generator), PAPER_BATCH):
            loss = functional.cross_entropy(head(features[batch]), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimizer.step()
        score = float(epoch) if validation is None else auroc(validation[1], predict(validation[0]))
        if score > best:
            best, best_state = score, {name: value.clone() for name, value in head.state_dict().items()}
    return linear_probe(best_state["weight"], best_state["bias"])


# Linear heads on disk: what linear_eval.py fits on the encoder's features, for use on new images.

KIND = "heads"
"""Kind of the files that `save_heads` writes."""

_ARRAYS = ("mean", "scale", "weight", "bias")


@dataclass(frozen=True)
class Heads:
    """Linear heads that belong to one encoder.

    Attributes:
        heads: by the name of the probe.
        class_names: in label order.
        positive_class: the class whose probability is the score.
        encoder_sha256: `module_digest` of the network that the heads were fitted on.
        calibrators: by the name of the probe, also of heads that the checkpoint holds ("own"); empty in files of
            earlier versions.
        natural_counts: samples per class of the source data, see `Description`; None in files of earlier versions.
    """

    heads: dict[str, FittedProbe]
    class_names: list[str]
    positive_class: int
    encoder_sha256: str
    calibrators: dict[str, Calibrator] = field(default_factory=dict)
    natural_counts: list[int] | None = None


def save_heads(
    path: Path,
    heads: Mapping[str, FittedProbe],
    class_names: list[str],
    positive_class: int,
    *,
    encoder_sha256: str,
    calibrators: Mapping[str, Calibrator] | None = None,
    natural_counts: Sequence[int] | None = None,
) -> None:
    """Write heads as a checkpoint of plain tensors; see `Heads` for the arguments."""
    tensors = {
        name: {array: torch.from_numpy(getattr(head, array)) for array in _ARRAYS} | {"strength": head.strength}
        for name, head in heads.items()
    }
    description = {"class_names": class_names, "positive_class": positive_class, "encoder_sha256": encoder_sha256}
    fitted = {name: calibrator.plain() for name, calibrator in (calibrators or {}).items()}
    counts = None if natural_counts is None else list(natural_counts)
    checkpoint.save(path, KIND, {"heads": tensors, **description, "calibrators": fitted, "natural_counts": counts})


def load_heads(path: Path, within: Path | None = None) -> Heads:
    """Read what `save_heads` wrote.

    Args:
        path: the file.
        within: the run folder that it was found in; None for a file that the user named.

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its numbers do not describe a head.
    """
    state = checkpoint.load(path, KIND, within=within)
    source = Source(path, "run linear_eval.py again in a new folder", what="--head")
    names = source.texts(state.get("class_names"), "class_names")
    positive = source.part(state, "positive_class", (int,))
    assert isinstance(positive, int)
    if not 0 <= positive < len(names):
        source.refuse(f"is damaged: there is no class {positive}", "positive_class")
    digest = str(source.part(state, "encoder_sha256", (str,)))
    stored = source.mapping(state.get("heads"), "heads")
    heads = {name: _head(source, source.mapping(parts, name), name, len(names)) for name, parts in stored.items()}
    fitted = read_calibrators(source.mapping(state.get("calibrators", {}), "calibrators"), path)
    if strange := [name for name, calibrator in fitted.items() if len(calibrator.prevalence) != len(names)]:
        source.refuse(f"is damaged: a calibrator of other than {len(names)} classes", strange[0])
    counts = state.get("natural_counts")
    if counts is not None and not (
        isinstance(counts, list) and len(counts) == len(names) and all(type(n) is int and n >= 0 for n in counts)
    ):
        source.refuse("is damaged: these are no numbers of samples per class", "natural_counts")
    return Heads(heads, names, positive, digest, fitted, counts)


def _head(source: Source, stored: Mapping[str, object], name: str, classes: int) -> FittedProbe:
    """Return a head; refuse arrays that are not finite or do not fit each other."""
    arrays = {}
    for part in _ARRAYS:
        value = stored.get(part)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            source.refuse("is damaged: no array of numbers", f"{name}/{part}")
        if not value.isfinite().all():
            source.refuse("is damaged: not all numbers are finite", f"{name}/{part}")
        arrays[part] = value.double().numpy()
    rows = 1 if classes == 2 and len(arrays["weight"]) == 1 else classes
    width = arrays["mean"].shape
    expected = {"mean": width, "scale": width, "weight": (rows, *width), "bias": (rows,)}
    if (
        len(width) != 1
        or {part: array.shape for part, array in arrays.items()} != expected
        or not arrays["scale"].all()
    ):
        shapes = ", ".join(f"{part} {list(array.shape)}" for part, array in arrays.items())
        source.refuse(f"is damaged: these arrays are no head for {classes} classes: {shapes}", name)
    strength = source.part(stored, "strength", (int, float), name)
    assert isinstance(strength, int | float)
    mean, scale, weight, bias = (arrays[part] for part in _ARRAYS)
    return FittedProbe(mean, scale, weight, bias, float(strength))
