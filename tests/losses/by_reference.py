"""Evaluate `ttc.losses.reference` with the state and settings of an objective: the oracle of the tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ttc.losses import METHODS, Batch, Objective, reference

Call = Callable[..., Tensor]


def reference_loss(
    objective: Objective,
    z: Tensor,
    labels: Tensor,
    *,
    features: Tensor | None = None,
    sample_ids: Tensor | None = None,
) -> Tensor:
    """Return what the method's function in reference.py says about the arguments of `objective(...)`."""
    names = [name for name, method in METHODS.items() if method.objective is type(objective)]
    if names[0] not in CALLS:
        raise AssertionError(f"{names[0]} has no reference")
    return CALLS[names[0]](objective, z, labels, features, sample_ids)


def supmin(o: Objective, z: Tensor, y: Tensor, *_: object) -> Tensor:
    supervised = o.supervised(Batch(z, y, z, y))
    return o.factor * reference.supmin(z, y, supervised=supervised, tau=o.temperature)


def drawn(o: Objective, z: Tensor, y: Tensor) -> Tensor:
    """Return the rows that each anchor draws, bool [N, N], which have to be of its class and of other images."""
    index, valid = o.draw(Batch(z.detach(), y, z.detach(), y))
    _, _, _, other_views, same_class = reference.pairs(z, y)
    chosen = torch.zeros_like(same_class, dtype=torch.int64).scatter_add_(1, index, valid.long())
    available = same_class & ~other_views
    assert not bool((chosen > available.long()).any()), "a row was drawn twice, or is no candidate"
    assert torch.equal(chosen.sum(1), available.sum(1).clamp(max=o.k))
    return chosen.bool()


def supproto(o: Objective, z: Tensor, y: Tensor, *_: object) -> Tensor:
    return o.factor * reference.supproto(
        z, y, prototypes=o.prototypes_KD.to(z.dtype), margins=o.margins_K, tau=o.temperature
    )


def tsc(o: Objective, z: Tensor, y: Tensor, *_: object) -> Tensor:
    targets = o.prototypes_KD[o.assignment_K].to(z.dtype)
    return o.factor * reference.tsc(
        z, y, drawn=drawn(o, z, y), targets=targets, weight=o.target_weight, tau=o.temperature
    )


def bcl(o: Objective, z: Tensor, y: Tensor, features: Tensor | None, _: object) -> Tensor:
    without = torch.zeros(len(y), o.num_classes, dtype=z.dtype)
    g = without if features is None else 30 * cosines(features[:, 0], o.class_weights_KF)
    log_prior = without[0] if o.log_prior_K is None else o.log_prior_K
    return reference.bcl(
        z,
        y,
        g=g,
        log_prior=log_prior,
        centres=o.centres_KD(z.dtype),
        alpha=o.alpha,
        beta=o.beta,
        tau_la=o.tau_la,
        tau=o.temperature,
        factor=o.factor,
    )


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T


def paco(o: Objective, z: Tensor, y: Tensor, features: Tensor, _: object) -> Tensor:
    rows = len(y) * z.shape[1] + o.filled
    alpha = torch.full((len(y),), o.alpha, dtype=z.dtype)
    if o.rescale_alpha:
        alpha = alpha / (o.log_prior_K.exp() * rows).clamp(min=1)[y]
    return o.factor * reference.paco(
        z,
        y,
        g=o.classifier(features[:, 0]),
        log_prior=o.log_prior_K,
        queue=o.queue_QD[: o.filled],
        queue_y=o.queue_labels_Q[: o.filled],
        alpha=alpha,
        beta=o.beta,
        gamma=o.gamma,
        tau=o.temperature,
        tau_g=o.classifier_temperature,
    )


def proco(o: Objective, z: Tensor, y: Tensor, features: Tensor, _: object) -> Tensor:
    means = torch.zeros(o.num_classes, z.shape[2], dtype=z.dtype)
    for label in range(o.num_classes):
        rows = z.detach()[y == label, 1:].flatten(0, 1)
        count = len(rows) + float(o.earlier_rows_K[label] + o.rows_K[label])
        if count:
            means[label] = (rows.sum(0) + o.earlier_sums_KD[label] + o.sums_KD[label]) / count
    return reference.proco(
        z,
        y,
        g=o.classifier(features[:, 0]),
        log_prior=o.log_prior_K,
        means=means,
        alpha=o.alpha,
        tau=o.temperature,
    )


def sbc(o: Objective, z: Tensor, y: Tensor, _: object, sample_ids: Tensor) -> Tensor:
    lookup = dict(zip(o.known_ids_N.tolist(), o.sub_classes_N.tolist(), strict=True))
    return reference.sbc(
        z,
        y,
        sub_class=torch.tensor([lookup[i] for i in sample_ids.tolist()]),
        class_tau=o.class_temperatures_K,
        tau=o.temperature,
        factor=o.inside_factor,
        weight=o.weight,
        second_term=o.second_term,
    )


def ldam(o: Objective, z: Tensor, y: Tensor, *_: object) -> Tensor:
    late = o.first_weighted_step is not None and o.step >= o.first_weighted_step
    return reference.ldam_drw(
        cosines(z.flatten(0, 1), o.class_weights_KF),
        y.repeat_interleave(z.shape[1]),
        margins=o.margins_K,
        weights=o.class_weights_K if late else torch.ones_like(o.class_weights_K),
        scale=o.scale,
    )


def classified(function: Call, settings: Callable[[Objective], dict[str, object]]) -> Call:
    return lambda o, z, y, *_: function(o.classifier(z).flatten(0, 1), y.repeat_interleave(z.shape[1]), **settings(o))


CALLS: dict[str, Call] = {
    "simclr": lambda o, z, y, *_: o.factor * reference.simclr(z, y, tau=o.temperature),
    "supcon": lambda o, z, y, *_: o.factor * reference.supcon(z, y, tau=o.temperature),
    "supmin": supmin,
    "supproto": supproto,
    "kcl": lambda o, z, y, *_: o.factor * reference.kcl(z, y, drawn=drawn(o, z, y), tau=o.temperature),
    "tsc": tsc,
    "bcl": bcl,
    "paco": paco,
    "sbc": sbc,
    "proco": proco,
    "ce": classified(reference.ce, lambda _: {}),
    "weighted-ce": classified(reference.weighted_ce, lambda o: {"weights": o.class_weights_K}),
    "focal": classified(reference.focal, lambda o: {"weights": o.class_weights_K, "gamma": o.gamma}),
    "logit-adjusted-ce": classified(
        reference.logit_adjusted_ce, lambda o: {"log_prior": o.log_prior_K, "tau_la": o.tau_la}
    ),
    "ldam-drw": ldam,
}
