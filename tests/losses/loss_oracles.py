"""Every method as a naive double loop in float64, straight from the one form

    l_i = sum_j t_ij * (log sum_k d_ik exp(x_ik) - x_ij),   t divided by its row sum.

Shape suffixes: A rows in sample-major order, X columns, B samples, V views, D dimensions, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ttc.losses import Batch, Objective

Weights = list[list[float]]


def one_form(x_AX: Tensor, d: Weights, t: Weights) -> Tensor:
    """Return the mean of l_i over all anchors; anchors without positives or without columns count as zero."""
    total = x_AX.sum() * 0
    for i in range(len(x_AX)):
        columns = [k for k in range(x_AX.shape[1]) if d[i][k] > 0]
        weight = sum(t[i])
        if not columns or weight == 0:
            continue
        denominator = x_AX.new_zeros(())
        for k in columns:
            denominator = denominator + d[i][k] * x_AX[i, k].exp()
        for j in range(x_AX.shape[1]):
            if t[i][j] > 0:
                total = total + t[i][j] / weight * (denominator.log() - x_AX[i, j])
    return total / len(x_AX)


class Rows:
    """The rows of a batch with the sets of the notation."""

    def __init__(self, z: Tensor, labels: Tensor) -> None:
        self.views = z.shape[1]
        self.z = z.flatten(0, 1)
        self.n = len(self.z)
        self.y = [int(labels[i // self.views]) for i in range(self.n)]
        self.products = torch.stack([torch.stack([(a * b).sum() for b in self.z]) for a in self.z])

    def weights(self, rule: Callable[[int, int], bool | float]) -> Weights:
        return [[float(rule(i, j)) for j in range(self.n)] for i in range(self.n)]

    def in_a(self, i: int, j: int) -> bool:
        return i != j

    def in_w(self, i: int, j: int) -> bool:
        return i != j and i // self.views == j // self.views

    def in_c(self, i: int, j: int) -> bool:
        return i != j and self.y[i] == self.y[j]


def simclr(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    return o.factor * one_form(r.products / o.temperature, r.weights(r.in_a), r.weights(r.in_w))


def supcon(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    return o.factor * one_form(r.products / o.temperature, r.weights(r.in_a), r.weights(r.in_c))


def supmin(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    minority = {c for c in range(o.num_classes) if bool(o.minority_K[c])}
    t = r.weights(lambda i, j: r.in_c(i, j) if r.y[i] in minority else r.in_w(i, j))
    return o.factor * one_form(r.products / o.temperature, r.weights(r.in_a), t)


def supproto(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    to_prototypes = r.z @ o.prototypes_KD.T
    t, d = r.weights(r.in_w), r.weights(r.in_a)
    for i in range(r.n):
        own = float(to_prototypes[i, r.y[i]])
        nearest = max(float(to_prototypes[i, c]) for c in range(o.num_classes) if c != r.y[i])
        pulled = own <= nearest + float(o.margins_K[r.y[i]])
        t[i] += [float(pulled and c == r.y[i]) for c in range(o.num_classes)]
        d[i] += [0.0] * o.num_classes
    return o.factor * one_form(torch.cat((r.products, to_prototypes), 1) / o.temperature, d, t)


def drawn(o: Objective, z: Tensor, labels: Tensor) -> Weights:
    """Return KCL's targets: the other views and the rows that the objective draws."""
    r = Rows(z, labels)
    t = r.weights(r.in_w)
    index, valid = o.draw(Batch(z.detach(), labels, z.detach(), labels))
    for i in range(r.n):
        chosen = {int(j) for j, v in zip(index[i], valid[i], strict=True) if v}
        available = [j for j in range(r.n) if r.in_c(i, j) and not r.in_w(i, j)]
        assert chosen <= set(available), f"anchor {i} drew rows outside its class"
        assert len(chosen) == int(valid[i].sum()) == min(o.k, len(available)), f"anchor {i} drew a row twice"
        for j in chosen:
            t[i][j] = 1.0
    return t


def kcl(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    return o.factor * one_form(r.products / o.temperature, r.weights(r.in_a), drawn(o, z, labels))


def tsc(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    t, d = drawn(o, z, labels), r.weights(r.in_a)
    for i in range(r.n):
        t[i] += [o.target_weight * (c == r.y[i]) for c in range(o.num_classes)]
        d[i] += [1.0] * o.num_classes
    targets = o.prototypes_KD[o.assignment_K]
    return o.factor * one_form(torch.cat((r.products, r.z @ targets.T), 1) / o.temperature, d, t)


def bcl(o: Objective, z: Tensor, labels: Tensor, features: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z[:, 1:], labels)
    counts = [r.y.count(c) for c in range(o.num_classes)]
    t = r.weights(r.in_c)
    d = r.weights(lambda i, j: (i != j) / max(1, counts[r.y[j]] + 1 - (r.y[i] == r.y[j])))
    for i in range(r.n):
        t[i] += [float(c == r.y[i]) for c in range(o.num_classes)]
        d[i] += [1 / max(1, counts[c] + 1 - (c == r.y[i])) for c in range(o.num_classes)]
    centres = o.centres_KD()
    contrast = one_form(torch.cat((r.products, r.z @ centres.T), 1) / o.temperature, d, t)
    weights = o.class_weights_KF / o.class_weights_KF.norm(dim=1, keepdim=True)
    cosines = (features[:, 0] / features[:, 0].norm(dim=1, keepdim=True)) @ weights.T
    return o.alpha * ce_of(30 * cosines + o.tau_la * o.log_prior_K, labels) + o.beta * o.factor * contrast


def paco(o: Objective, z: Tensor, labels: Tensor, features: Tensor, **_: Tensor) -> Tensor:
    queue = o.queue_QD[: o.filled]
    keys = z[:, 1:].detach()
    rows = torch.cat((z[:, 0], keys.flatten(0, 1), queue))
    y = [*labels.tolist(), *labels.repeat_interleave(keys.shape[1]).tolist(), *o.queue_labels_Q[: o.filled].tolist()]
    logits = (o.classifier(features[:, 0]) + o.log_prior_K) / o.classifier_temperature
    d, t = [], []
    for i, label in enumerate(labels.tolist()):
        alpha = o.alpha
        if o.rescale_alpha:
            alpha = o.alpha / max(1.0, float(o.log_prior_K[label].exp()) * len(rows))
        d.append([1.0] * o.num_classes + [o.gamma * (i != j) for j in range(len(rows))])
        own = [o.beta * (c == label) for c in range(o.num_classes)]
        t.append(own + [alpha * (i != j and y[j] == label) for j in range(len(rows))])
    return o.factor * one_form(torch.cat((logits, z[:, 0] @ rows.T / o.temperature), 1), d, t)


def sbc(o: Objective, z: Tensor, labels: Tensor, sample_ids: Tensor, **_: Tensor) -> Tensor:
    r = Rows(z, labels)
    lookup = dict(zip(o.known_ids_N.tolist(), o.sub_classes_N.tolist(), strict=True))
    u = [lookup[int(sample_ids[i // r.views])] for i in range(r.n)]

    def in_s(i: int, j: int) -> bool:
        return i != j and u[i] == u[j]

    inside = o.factor * one_form(r.products / o.temperature, r.weights(r.in_a), r.weights(in_s))
    tau2 = torch.stack([o.class_temperatures_K[y] for y in r.y])
    t = r.weights(lambda i, j: r.in_w(i, j) or (r.in_c(i, j) and not in_s(i, j)))
    d = r.weights(lambda i, j: r.in_w(i, j) or (i != j and not in_s(i, j)))
    return inside + o.weight * one_form(r.products / tau2[:, None], d, t)


def ce_of(logits: Tensor, labels: Tensor, weights: list[float] | None = None, gamma: float = 0.0) -> Tensor:
    """Return the mean over rows of w_y (1 - p_y)^gamma (-log p_y)."""
    total = logits.sum() * 0
    for row, label in zip(logits, labels.tolist(), strict=True):
        p = row[label].exp() / sum(row[c].exp() for c in range(len(row)))
        total = total - (weights[label] if weights else 1.0) * (1 - p) ** gamma * p.log()
    return total / len(logits)


def ce(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    return ce_of(o.classifier(z[:, 0]), labels)


def weighted_ce(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    weights = o.class_weights_K.tolist()
    mean = sum(weights[int(y)] for y in labels) / len(labels)
    return ce_of(o.classifier(z[:, 0]), labels, weights) / mean


def focal(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    return ce_of(o.classifier(z[:, 0]), labels, o.class_weights_K.tolist(), o.gamma)


def logit_adjusted_ce(o: Objective, z: Tensor, labels: Tensor, **_: Tensor) -> Tensor:
    return ce_of(o.classifier(z[:, 0]) + o.tau_la * o.log_prior_K, labels)


ORACLES: dict[str, Callable[..., Tensor]] = {
    "simclr": simclr,
    "supcon": supcon,
    "supmin": supmin,
    "supproto": supproto,
    "kcl": kcl,
    "tsc": tsc,
    "bcl": bcl,
    "paco": paco,
    "sbc": sbc,
    "ce": ce,
    "weighted-ce": weighted_ce,
    "focal": focal,
    "logit-adjusted-ce": logit_adjusted_ce,
}
