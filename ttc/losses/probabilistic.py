"""ProCo: the classes as von Mises-Fisher distributions, and the contrastive loss expected under them.

The normaliser of the distribution needs the modified Bessel function I_v of any order v from 0 on. With
G_v(k) = I_v(k) / k^v and x = k^2, log G_v is smooth in x, k = 0 included, and so is the ratio

    q_v(x) = I_{v+1}(k) / (k I_v(k)) = G_{v+1} / G_v,      d log G_v / dx = q_v / 2.

From the order 30 on, Debye's expansion is as exact as float64. A lower order follows from the recurrence
I_{v-1} - I_{v+1} = (2 v / k) I_v, downwards, where it is stable (Miller): q_{v-1} = 1 / (2 v + x q_v) and
G_{v-1} = G_v / q_{v-1}. All terms are positive, so nothing cancels, and no value leaves the range of float64.

Shape suffixes: P samples of all ranks, A local rows, V views, D dimensions, F features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .batch import Batch
from .classifier import checked_counts, logits_of, seeded_linear
from .contrastive import temperature_factor
from .objective import Objective
from .registry import method

_LARGEST_KAPPA = 1e5
_LEAST_ORDER = 30
_TERMS = 8


@method("proco", "expected contrast with a von Mises-Fisher distribution per class, plus adjusted cross-entropy")
class ProCo(Objective):
    """Contrast with infinitely many draws from each class's von Mises-Fisher distribution, beside cross-entropy.

    Each class has a mean direction and a concentration, estimated from the mean of its embeddings over the epoch before
    and this one so far. The expectation of exp(z . z' / tau) under it has a closed form, so a row is classified by
    log prior + log C(kappa) - log C(|kappa mu + z / tau|), with C the distribution's normaliser. View 0 feeds the
    classifier only, the further views the contrast only.

    Plain form: `reference.proco`.

    Source: Du et al., "Probabilistic Contrastive Learning for Long-Tailed Visual Recognition", TPAMI 2024 (L_ProCo in
        its L_in form, and the sum with the logit-adjusted cross-entropy).
    Note: kappa = R (p - R^2) / (1 - R^2) as in the paper; the published code takes p R / (1 - R^2), nearly the same for
    large p. All views of a batch enter the estimates before its loss; the published code adds one view at a time. A
    class not yet seen has kappa = 0, the uniform distribution, which has no gradient; there it starts in a random
    direction with R = 0.9. The prior is that of the batches, so balanced batches are not corrected twice.
    """

    views = 3
    student_views = 3
    needs_features = True

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None,
        feature_dim: int | None = None,
        projection_dim: int = 128,
        temperature: float = 0.1,
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class, whose shares are the prior.
            feature_dim: size of the encoder's features; None if `features` holds the logits.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            alpha: weight of the contrast; that of the cross-entropy is 1.
            seed: seed of the classifier's weights.

        Raises:
            ValueError: for values outside their range or missing.
        """
        super().__init__(num_classes=num_classes)
        temperature_factor(temperature, None)
        if not alpha >= 0:
            raise ValueError(f"alpha {alpha} is negative; give 0 to leave the contrast out, the published value is 1")
        if projection_dim < 2:
            raise ValueError(f"projection_dim {projection_dim} leaves no directions; proco needs at least 2")
        self.temperature, self.alpha = temperature, alpha
        self.head = None if feature_dim is None else seeded_linear(feature_dim, num_classes, seed)
        counts_K = checked_counts(class_counts, num_classes, "proco")
        self.log_prior_K: Tensor
        self.register_buffer("log_prior_K", (counts_K / counts_K.sum()).log())
        self.epoch = -1
        self.earlier_sums_KD: Tensor
        self.earlier_rows_K: Tensor
        self.sums_KD: Tensor
        self.rows_K: Tensor
        for which in ("earlier_", ""):  # the epoch before, and this one so far
            self.register_buffer(f"{which}sums_KD", torch.zeros(num_classes, projection_dim, dtype=torch.float64))
            self.register_buffer(f"{which}rows_K", torch.zeros(num_classes, dtype=torch.float64))
        self._of_batch: tuple[Tensor, Tensor] | None = None

    def classifier(self, features: Tensor) -> Tensor:
        """Return raw logits [..., K]; the prior enters in training only."""
        return logits_of(self.head, features)

    @torch.no_grad()
    def on_step(self, epoch: int, step: int) -> None:
        """Note the step; with a new epoch the sums so far become those of the epoch before."""
        super().on_step(epoch, step)
        if epoch != self.epoch:
            self.epoch = epoch
            self.earlier_sums_KD.copy_(self.sums_KD)
            self.earlier_rows_K.copy_(self.rows_K)
            self.sums_KD.zero_()
            self.rows_K.zero_()

    def loss(self, batch: Batch) -> Tensor:
        """Return cross-entropy + alpha * contrast."""
        if batch.views < 2:
            raise ValueError(f"proco got {batch.views} view; view 0 is for the classifier, give at least one more")
        assert batch.features_BVF is not None
        log_prior_K = self.log_prior_K.to(batch.z_BVD.dtype)
        logits_BK = self.classifier(batch.features_BVF[:, 0]) + log_prior_K
        classification = nn.functional.cross_entropy(logits_BK, batch.labels_B)
        logits_AK = self.log_expectations(batch.z_BVD[:, 1:].flatten(0, 1), self.natural_parameters(batch))
        labels_A = batch.labels_B.repeat_interleave(batch.views - 1, output_size=len(logits_AK))
        contrast = nn.functional.cross_entropy(logits_AK + log_prior_K, labels_A)
        self.terms["classification"], self.terms["contrast"] = classification.detach(), contrast.detach()
        return classification + self.alpha * contrast

    @torch.no_grad()
    def natural_parameters(self, batch: Batch) -> Tensor:
        """Return kappa * mu of each class [K, D] in float64, and note this batch's sums for `after_step`."""
        member_PK = batch.codes(self.num_classes).double()
        sums_KD = member_PK.T @ batch.pool_z_PVD[:, 1:].sum(1, dtype=torch.float64)
        rows_K = member_PK.sum(0) * (batch.views - 1)
        if self.training:
            self._of_batch = sums_KD, rows_K
        rows_K = rows_K + self.earlier_rows_K + self.rows_K
        means_KD = (sums_KD + self.earlier_sums_KD + self.sums_KD) / rows_K.clamp(min=1)[:, None]
        squared_K = torch.linalg.vecdot(means_KD, means_KD)
        tiny = torch.finfo(torch.float64).tiny
        # A class of one row has R = 1, or a little more by rounding: its kappa is the largest, as published.
        factors_K = (means_KD.shape[1] - squared_K) / (1.0 - squared_K).clamp(min=tiny)
        largest_K = _LARGEST_KAPPA / squared_K.sqrt().clamp(min=tiny)
        return means_KD * torch.minimum(factors_K, largest_K)[:, None]

    def log_expectations(self, rows_AD: Tensor, natural_KD: Tensor) -> Tensor:
        """Return log E exp(z . z' / tau) over z' of each class [A, K], in the type of the rows.

        With G the function of `log_bessel`, it is log G(|kappa mu + z / tau|) - log G(kappa).
        """
        products_AK = (rows_AD @ natural_KD.to(rows_AD.dtype).T).double()
        lengths_A = torch.linalg.vecdot(rows_AD, rows_AD).double()
        squared_K = torch.linalg.vecdot(natural_KD, natural_KD)
        inverse = 1.0 / self.temperature
        squared_AK = squared_K + 2.0 * inverse * products_AK + inverse**2 * lengths_A[:, None]
        values = log_bessel(torch.cat((squared_AK, squared_K[None])), rows_AD.shape[1] / 2 - 1)
        return (values[:-1] - values[-1]).to(rows_AD.dtype)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Add the rows of all ranks to the sums of this epoch."""
        if self._of_batch is not None:
            sums_KD, rows_K = self._of_batch
            self.sums_KD.add_(sums_KD)
            self.rows_K.add_(rows_K)
            self._of_batch = None

    def get_extra_state(self) -> dict[str, int]:
        """Return the epoch that the sums are of."""
        return {"epoch": self.epoch}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """Restore what `get_extra_state` returned."""
        self.epoch = int(state["epoch"])


def log_bessel(squared: Tensor, order: float) -> Tensor:
    """Return log( I_v(k) / k^v ) for x = k^2.

    Args:
        squared: x, at least 0, of any shape.
        order: v, at least 0; p / 2 - 1 for directions in p dimensions.

    Returns:
        float64 of the same shape. Its gradient is exact: half of I_{v+1}(k) / (k I_v(k)).

    Source: Olver et al., "NIST Handbook of Mathematical Functions", 2010, 10.29.1, 10.41.3 and 10.41.9.
    """
    values: Tensor = _LogBessel.apply(squared.double(), order)
    return values


class _Context(FunctionCtx):
    """The attributes that the function below hangs on autograd's context."""

    saved_tensors: tuple[Tensor, ...]


class _LogBessel(torch.autograd.Function):
    """The value and, for the gradient, the ratio, which the recurrence gives beside it."""

    @staticmethod
    def forward(ctx: _Context, squared: Tensor, order: float) -> Tensor:
        steps = max(0, math.ceil(_LEAST_ORDER - order))
        values, ratios = _debye(squared, order + steps)
        for step in range(steps, 0, -1):
            inverses = 2.0 * (order + step) + squared * ratios
            values, ratios = values + inverses.log(), inverses.reciprocal()
        ctx.save_for_backward(ratios)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        (ratios,) = ctx.saved_tensors
        return 0.5 * grad * ratios, None


def _debye(squared: Tensor, order: float) -> tuple[Tensor, Tensor]:
    """Return log( I_N(k) / k^N ), and twice its derivative by x, for a large order N."""
    s = (1.0 + squared / order**2).sqrt()
    t = s.reciprocal()
    *coefficients, highest = _series(order)
    series, slope = torch.full_like(t, highest), torch.zeros_like(t)
    for coefficient in reversed(coefficients):  # Horner's rule, for the series and its derivative by t
        slope = torch.addcmul(series, slope, t)
        series = series * t + coefficient
    values = order * (s - (1.0 + s).log() - math.log(order)) - 0.5 * math.log(2.0 * math.pi * order)
    values = values + 0.5 * t.log() + series.log()
    ratios = ((1.0 + s).reciprocal() - t**2 / (2.0 * order) - t**3 * slope / (order * series)) / order
    return values, ratios


@lru_cache(maxsize=64)
def _series(order: float) -> tuple[float, ...]:
    """Return the coefficients of 1, t, t^2, ... in the sum of u_m(t) / N^m, with the polynomials u_m of 10.41.9."""
    polynomial, total = {0: Fraction(1)}, [0.0] * (3 * _TERMS + 1)
    for term in range(_TERMS + 1):
        following: dict[int, Fraction] = {}
        for power, a in polynomial.items():
            total[power] += float(a) / order**term
            # u_{m+1} = t^2 (1 - t^2) u_m' / 2 + (1 / 8) integral of (1 - 5 t^2) u_m
            for change, factor in ((1, Fraction(power, 2) + Fraction(1, 8 * (power + 1))),
                                   (3, -Fraction(power, 2) - Fraction(5, 8 * (power + 3)))):  # fmt: skip
                following[power + change] = following.get(power + change, Fraction(0)) + a * factor
        polynomial = following
    return tuple(total)
