"""Every method as its paper writes it, in plain torch over all pairs of rows: to read, not to train with.

The classes of the other files compute the same values and gradients in less memory and time, which the tests compare
case by case. These functions in turn are compared with recorded values and gradients of the published code.

Notation, after Khosla et al. (SupCon):
    z       [B, V, D]  unit embeddings of B images in V views each; N = B V rows in the order image by image
    y       [B]        class of each image, 0 .. K - 1
    i, j    rows;  z_i . z_j is their cosine
    A       [N, N]     A_ij: j is another row than i
    W       [N, N]     W_ij: j is another view of i's image
    C       [N, N]     C_ij: j is another row of i's class (so W lies in C)
    tau     temperature
    t       [N, X]     weights of the positives of anchor i among X columns, divided by their sum
    d       [N, X]     weights of the columns in anchor i's denominator
    g       [B, K]     logits of a classifier;  log_prior [K]: logarithms of the classes' shares in the training set
Published code multiplies a contrastive loss by tau / base temperature; here the factor is 1 unless it is an argument.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pairs(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the rows [N, D], their classes [N], and the sets A, W and C as bool [N, N]."""
    image = torch.arange(len(y), device=y.device).repeat_interleave(z.shape[1])
    rows, classes = z.flatten(0, 1), y[image]
    A = ~torch.eye(len(rows), dtype=torch.bool, device=y.device)
    return rows, classes, A, A & (image[:, None] == image), A & (classes[:, None] == classes)


def contrast(logits: Tensor, t: Tensor, d: Tensor) -> Tensor:
    """Return mean_i -sum_j t_ij / (sum_j t_ij) log( exp(x_ij) / sum_k d_ik exp(x_ik) ) for logits x.

    An anchor without positives, or without any column, counts as 0 and stays in the mean.
    """
    usable = (t.sum(1) > 0) & (d.sum(1) > 0)
    x, t, d = logits[usable], t[usable].to(logits.dtype), d[usable].to(logits.dtype)
    log_p = x - (x + d.log()).logsumexp(1, keepdim=True)
    return -((t * log_p).sum(1) / t.sum(1)).sum() / len(logits)


def one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """Return bool [N, K] with True in the column of each row's class."""
    return classes[:, None] == torch.arange(num_classes, device=classes.device)


def simclr(z: Tensor, y: Tensor, *, tau: float = 0.07) -> Tensor:
    """NT-Xent, Chen et al. 2020, equation 1: the positives are the other views of the image."""
    rows, _, A, W, _ = pairs(z, y)
    return contrast(rows @ rows.T / tau, t=W, d=A)


def supcon(z: Tensor, y: Tensor, *, tau: float = 0.07) -> Tensor:
    """SupCon, Khosla et al. 2020, equation 2 (L_out): the positives are all other rows of the class."""
    rows, _, A, _, C = pairs(z, y)
    return contrast(rows @ rows.T / tau, t=C, d=A)


def supmin(z: Tensor, y: Tensor, *, supervised: Tensor, tau: float = 0.07) -> Tensor:
    """SupMin, Mildenberger et al. 2025: SupCon for anchors of the minority, NT-Xent for the others.

    `supervised` [B] tells the images of the minority (and those of the majority that are drawn with a ratio above 0,
    which then are positives of the drawn ones of their class).
    """
    rows, _, A, W, C = pairs(z, y)
    supervised = supervised.repeat_interleave(z.shape[1])
    positives = torch.where(supervised[:, None], C & supervised, W)
    return contrast(rows @ rows.T / tau, t=positives, d=A)


def supproto(z: Tensor, y: Tensor, *, prototypes: Tensor, margins: Tensor, tau: float = 0.07) -> Tensor:
    """SupProto, Mildenberger et al. 2025: NT-Xent, and a fixed prototype per class that pulls rows not yet near it.

    A row is pulled while z . p_y <= max_{c != y} z . p_c + margin_y. Prototypes [K, D] are never in the denominator.
    """
    rows, classes, A, W, _ = pairs(z, y)
    to_prototypes, its_class = rows @ prototypes.T, one_hot(classes, len(prototypes))
    cosine = to_prototypes.detach()
    nearest_other = cosine.masked_fill(its_class, -torch.inf).amax(1)
    pulled = cosine[its_class] <= nearest_other + margins[classes]
    logits = torch.cat((rows @ rows.T, to_prototypes), 1) / tau
    t = torch.cat((W, its_class & pulled[:, None]), 1)
    return contrast(logits, t, d=torch.cat((A, torch.zeros_like(its_class)), 1))


def kcl(z: Tensor, y: Tensor, *, drawn: Tensor, tau: float = 0.07) -> Tensor:
    """KCL, Kang et al. 2021: the other views, and up to k rows of the class, drawn [N, N] anew for each anchor."""
    rows, _, A, W, _ = pairs(z, y)
    return contrast(rows @ rows.T / tau, t=W | drawn, d=A)


def tsc(z: Tensor, y: Tensor, *, drawn: Tensor, targets: Tensor, weight: float = 1.0, tau: float = 0.07) -> Tensor:
    """TSC, Li et al. 2022: KCL, with the class's target [K, D] as a positive and all targets in the denominator."""
    rows, classes, A, W, _ = pairs(z, y)
    its_class = one_hot(classes, len(targets))
    logits = torch.cat((rows @ rows.T, rows @ targets.T), 1) / tau
    t = torch.cat((W | drawn, weight * its_class.to(z.dtype)), 1)
    return contrast(logits, t, d=torch.cat((A, torch.ones_like(its_class)), 1))


def bcl(
    z: Tensor,
    y: Tensor,
    *,
    g: Tensor,
    log_prior: Tensor,
    centres: Tensor,
    alpha: float = 1.0,
    beta: float = 0.35,
    tau_la: float = 1.0,
    tau: float = 0.07,
    factor: float = 1.0,
) -> Tensor:
    """BCL, Zhu et al. 2022: SupCon whose denominator averages over each class, with centres [K, D] as further rows.

    View 0 is that of the classifier; the other views are contrasted. A class's average does not count the anchor.
    """
    rows, classes, A, _, C = pairs(z[:, 1:], y)
    its_class = one_hot(classes, len(centres))
    size = (its_class.sum(0) + 1 - its_class.to(z.dtype)).clamp(min=1)  # [N, K], the centre counts as a row
    logits = torch.cat((rows @ rows.T, rows @ centres.T), 1) / tau
    d = torch.cat((A / size[:, classes], 1 / size), 1)
    contrastive = factor * contrast(logits, torch.cat((C, its_class), 1), d)
    return alpha * logit_adjusted_ce(g, y, log_prior=log_prior, tau_la=tau_la) + beta * contrastive


def paco(
    z: Tensor,
    y: Tensor,
    *,
    g: Tensor,
    log_prior: Tensor,
    queue: Tensor,
    queue_y: Tensor,
    alpha: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    tau: float = 0.2,
    tau_g: float = 1.0,
) -> Tensor:
    """PaCo, Cui et al. 2021: class logits, queries (view 0), keys (the other views) and the queue in one softmax.

    Keys and queue carry no gradient. `alpha` [B] weighs rows of the anchor's class, beta its class logit, tau_g
    divides the class logits, and gamma weighs rows in the denominator.
    """
    query, keys = z[:, 0], z[:, 1:].detach()
    rows = torch.cat((query, keys.flatten(0, 1), queue))
    rows_y = torch.cat((y, y.repeat_interleave(keys.shape[1]), queue_y))
    other = ~torch.eye(len(y), len(rows), dtype=torch.bool, device=y.device)
    its_class = one_hot(y, g.shape[1])
    logits = torch.cat(((g + log_prior) / tau_g, query @ rows.T / tau), 1)
    t = torch.cat((beta * its_class.to(z.dtype), alpha[:, None] * (other & (y[:, None] == rows_y))), 1)
    return contrast(logits, t, d=torch.cat((torch.ones_like(its_class), gamma * other.to(z.dtype)), 1))


def sbc(
    z: Tensor,
    y: Tensor,
    *,
    sub_class: Tensor,
    class_tau: Tensor,
    tau: float = 0.1,
    factor: float = 1.0,
    weight: float = 0.25,
    second_term: str = "rank",
) -> Tensor:
    """SBCL, Hou et al. 2023: SupCon inside the sub-class [B], and weaker inside the class [K temperatures].

    The second term ranks the class outside of the sub-class above other sub-classes ("rank"), or is SupCon ("ccl").
    """
    rows, classes, A, W, C = pairs(z, y)
    S = A & (sub_class[:, None] == sub_class).repeat_interleave(z.shape[1], 0).repeat_interleave(z.shape[1], 1)
    inside = factor * contrast(rows @ rows.T / tau, t=S, d=A)
    if second_term == "ccl":
        return inside + weight * contrast(rows @ rows.T / tau, t=C, d=A)
    between = contrast(rows @ rows.T / class_tau[classes][:, None], t=W | (C & ~S), d=W | (A & ~S))
    return inside + weight * between


def proco(
    z: Tensor, y: Tensor, *, g: Tensor, log_prior: Tensor, means: Tensor, alpha: float = 1.0, tau: float = 0.1
) -> Tensor:
    """ProCo, Du et al. 2024: infinitely many contrasts with a von Mises-Fisher distribution per class.

    View 0 is that of the classifier. `means` [K, D] are the means of each class's rows over the epoch before and this
    one so far, without gradient.
    """
    rows, classes = z[:, 1:].flatten(0, 1), y.repeat_interleave(z.shape[1] - 1)
    R = means.norm(dim=1, keepdim=True)
    natural = means * (z.shape[2] - R**2) / (1 - R**2)  # kappa mu
    kappa, moved = natural.norm(dim=1), (natural + rows[:, None] / tau).norm(dim=2)
    log_expectation = log_inverse_normaliser(moved, z.shape[2]) - log_inverse_normaliser(kappa, z.shape[2])
    return logit_adjusted_ce(g, y, log_prior=log_prior) + alpha * ce(log_expectation + log_prior, classes)


def log_inverse_normaliser(kappa: Tensor, p: int, terms: int = 1000) -> Tensor:
    """Return log( I_v(kappa) / kappa^v ) for v = p / 2 - 1, without a constant, by the power series of I.

    The terms are enough up to kappa = 1000.
    """
    m = torch.arange(terms, dtype=kappa.dtype, device=kappa.device)
    log_terms = 2 * m * (kappa[..., None] / 2).log().clamp(min=-99) - (m + 1).lgamma() - (m + p / 2).lgamma()
    return log_terms.logsumexp(-1)


def ce(g: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, Bishop 2006, equation 4.108: the mean of -log p(y) for p = softmax(g)."""
    return -g.log_softmax(1).gather(1, y[:, None]).mean()


def weighted_ce(g: Tensor, y: Tensor, *, weights: Tensor) -> Tensor:
    """Cross-entropy weighted by class, King and Zeng 2001: sum w_y (-log p(y)) / sum w_y, for w_c as 1 / n_c."""
    nll = -g.log_softmax(1).gather(1, y[:, None])[:, 0]
    return (weights[y] * nll).sum() / weights[y].sum()


def focal(g: Tensor, y: Tensor, *, weights: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss, Lin et al. 2017, equation 5: the mean of w_y (1 - p(y))^gamma (-log p(y))."""
    log_p = g.log_softmax(1).gather(1, y[:, None])[:, 0]
    return -(weights[y] * (1 - log_p.exp()) ** gamma * log_p).mean()


def logit_adjusted_ce(g: Tensor, y: Tensor, *, log_prior: Tensor, tau_la: float = 1.0) -> Tensor:
    """Logit adjustment, Menon et al. 2021, equation 10: cross-entropy of g + tau_la log prior."""
    return ce(g + tau_la * log_prior, y)


def ldam_drw(cosines: Tensor, y: Tensor, *, margins: Tensor, weights: Tensor, scale: float = 30.0) -> Tensor:
    """LDAM, Cao et al. 2019: cross-entropy after the class's margin is taken from its cosine, weighted by class.

    `margins` [K] are C / n_c^(1/4). `weights` [K] are equal, or later in the schedule (DRW) (1 - b) / (1 - b^n_c).
    """
    reduced = cosines - margins * one_hot(y, len(margins)).to(cosines.dtype)
    return weighted_ce(scale * reduced, y, weights=weights)
