"""KCL and TSC: a fixed number of positives per anchor, and fixed targets for the classes.

Shape suffixes: A local rows, M rows of all ranks, P samples of all ranks, V views, S slots for drawn positives,
K classes, D dimensions, R permutations.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .batch import Batch, at_class
from .contrastive import Contrastive, Positives, is_alone, mean_positives, same_class_products
from .draws import draw_positives
from .products import other_view_sums
from .prototypes import add_columns, simplex
from .registry import method


@method("kcl", "SupCon with at most k positives per image beside its other view")
class KCL(Contrastive):
    """SupCon with at most k positives per anchor beside the other views of its sample.

    Plain form: `reference.kcl`.

    Source: Kang et al., "Exploring Balanced Feature Spaces for Representation Learning", ICLR 2021.
    Note: k = 3 instead of KCL's own 6, as in the comparison of Mildenberger et al., CVPR 2025.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        k: int = 3,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            k: number of positives drawn anew for each anchor in each step; all that there are if fewer.
            seed: seed of the draws.

        Raises:
            ValueError: for k below 1.
        """
        super().__init__(num_classes=num_classes, temperature=temperature, base_temperature=base_temperature)
        if k < 1:
            raise ValueError(f"k {k} leaves no positives to draw; give at least 1, or use simclr")
        self.k = k
        self.seed = seed

    def draws_all(self, batch: Batch) -> bool:
        """Tell whether no class can have more than k candidates: the loss is then SupCon."""
        return self.k >= len(batch.columns_MD) - batch.views

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return this step's additional positives, see `draw_positives`."""
        return draw_positives(batch, self.k, self.num_classes, self.seed, self.step)

    def sum_positives(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the sum of dot products with the positives [B, V] and their number, [B, V] or [B, 1]."""
        if self.draws_all(batch):
            return same_class_products(batch, batch.codes(self.num_classes))
        index_AS, valid_AS = self.draw(batch)
        weight_AS = valid_AS.to(batch.z_BVD.dtype)
        drawn_A = drawn_products(batch.anchors_AD, batch.columns_MD, index_AS, weight_AS)
        products_BV = drawn_A.view(len(batch.labels_B), -1) + batch.other_view_products_BV
        return products_BV, weight_AS.sum(1).view_as(products_BV) + (batch.views - 1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        if is_alone(batch, self.temperature):
            return self.loss_at_once(batch, *self._positives(batch))
        products_BV, counts = self.sum_positives(batch)
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV / self.temperature, counts)

    @torch.no_grad()
    def _positives(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return what `loss_at_once` needs: each row's positives, and those with the rows whose positive it is."""
        if self.draws_all(batch):
            return mean_positives(batch.z_BVD, Positives(batch.codes(self.num_classes))), None
        index_AS, valid_AS = self.draw(batch)
        weight_AS = valid_AS.to(batch.z_BVD.dtype)
        share_A1 = (weight_AS.sum(1, keepdim=True) + (batch.views - 1)).reciprocal_()
        sums_BVD = other_view_sums(batch.z_BVD)
        _add_drawn(sums_BVD.flatten(0, 1), batch.anchors_AD, index_AS, weight_AS)
        shared_AD = batch.anchors_AD * share_A1
        positives_BVD = sums_BVD.mul_(share_A1.view(*sums_BVD.shape[:2], 1))
        both_BVD = other_view_sums(shared_AD.view_as(sums_BVD)).add_(positives_BVD)
        _add_to_drawn(both_BVD.flatten(0, 1), shared_AD, index_AS, weight_AS)
        return positives_BVD, both_BVD


@method("tsc", "KCL whose classes are also drawn to fixed, evenly spread targets")
class TSC(KCL):
    """KCL with one fixed target per class, which is a positive of its class and a negative of the others.

    Plain form: `reference.tsc`.

    Source: Li et al., "Targeted Supervised Contrastive Learning for Long-Tailed Recognition", CVPR 2022.
    Note: class c keeps target c, and the target counts like one positive, as in the comparison of Mildenberger et al.,
    CVPR 2025. TSC's own form: matching="ema", target_weight=0.2, k=6, and plain KCL for the first half of the epochs.
    The targets are a regular simplex in closed form instead of the result of an optimisation.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        projection_dim: int = 128,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        k: int = 3,
        target_weight: float = 1.0,
        matching: str = "fixed",
        matching_momentum: float = 0.9,
        kcl_epochs: int = 0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            k: number of positives drawn for each anchor.
            target_weight: weight of the target among the anchor's positives; 0 leaves the targets out.
            matching: "fixed" for target c to class c, "ema" for the assignment nearest to running class centroids.
            matching_momentum: share of a centroid that a step keeps, 0..1.
            kcl_epochs: epochs of plain KCL before the targets are used.
            seed: seed of the draws and targets.

        Raises:
            ValueError: for values outside their range.
        """
        super().__init__(
            num_classes=num_classes, temperature=temperature, base_temperature=base_temperature, k=k, seed=seed
        )
        if not target_weight >= 0:
            raise ValueError(f"target_weight {target_weight} is negative; give 0 to leave the targets out")
        if matching not in ("fixed", "ema"):
            raise ValueError(f"matching {matching!r} does not exist; choose fixed or ema")
        if not 0 <= matching_momentum < 1:
            raise ValueError(f"matching_momentum {matching_momentum} is not within 0..1; the usual value is 0.9")
        if matching == "ema" and num_classes > 7:
            raise ValueError(f"matching ema tries all assignments, too many for {num_classes} classes; use fixed")
        if kcl_epochs < 0:
            raise ValueError(f"kcl_epochs {kcl_epochs} is negative; give 0 to use the targets from the start")
        self.target_weight = target_weight
        self.matching_momentum = matching_momentum
        self.kcl_epochs = kcl_epochs
        self.epoch = kcl_epochs
        self.prototypes_KD: Tensor
        self.assignment_K: Tensor
        self.centroids_KD: Tensor
        self.register_buffer("prototypes_KD", simplex(num_classes, projection_dim, seed))
        self.register_buffer("assignment_K", torch.arange(num_classes))
        self.register_buffer("centroids_KD", torch.zeros(num_classes, projection_dim))
        orders = list(itertools.permutations(range(num_classes))) if matching == "ema" else []
        self.permutations_RK: Tensor
        self.register_buffer("permutations_RK", torch.tensor(orders, dtype=torch.int64), persistent=False)
        self._class_sums: tuple[Tensor, Tensor] | None = None

    def on_step(self, epoch: int, step: int) -> None:
        """Note the step, and the epoch that decides whether the targets are used."""
        super().on_step(epoch, step)
        self.epoch = epoch

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        if self.training and len(self.permutations_RK):
            member_PK = batch.codes(self.num_classes)
            sums_KD = (member_PK.T @ batch.pool_z_PVD.detach().sum(1)).to(self.centroids_KD.dtype)
            self._class_sums = sums_KD, member_PK.sum(0).to(sums_KD.dtype) * batch.views
        if self.target_weight == 0 or self.epoch < self.kcl_epochs:
            return super().loss(batch)
        products_BV, counts = self.sum_positives(batch)
        targets_KD = self.prototypes_KD[self.assignment_K].to(batch.z_BVD.dtype)
        logits_AK = batch.anchors_AD @ targets_KD.T / self.temperature
        lse_A = add_columns(batch.log_sum_exp(self.temperature), logits_AK)
        target_A = at_class(logits_AK, batch.anchor_labels_A)
        logits_BV = products_BV / self.temperature + self.target_weight * target_A.view_as(products_BV)
        return self.mean_loss(batch, lse_A, logits_BV, counts + self.target_weight)

    def collapse_value(self, samples: int) -> float | None:
        """Return None with targets: the value depends on where the rows lie relative to them."""
        return super().collapse_value(samples) if self.target_weight == 0 else None

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move the class centroids and assign the targets so that the sum of centroid . target is largest."""
        if self._class_sums is None:
            return
        sums_KD, rows_K = self._class_sums
        self._class_sums = None
        means_KD = sums_KD / rows_K.clamp(min=1)[:, None]
        moved_KD = self.centroids_KD.lerp(means_KD, 1.0 - self.matching_momentum)
        self.centroids_KD.copy_(torch.where(rows_K[:, None] > 0, moved_KD, self.centroids_KD))
        agreement_KK = self.centroids_KD @ self.prototypes_KD.T
        scores_R = agreement_KK.gather(1, self.permutations_RK.T).sum(0)
        self.assignment_K.copy_(self.permutations_RK.index_select(0, scores_R.argmax(0, keepdim=True)).squeeze(0))


def drawn_products(anchors_AD: Tensor, columns_MD: Tensor, index_AS: Tensor, weight_AS: Tensor) -> Tensor:
    """Return each anchor's product with the weighted sum of the columns that were drawn for it.

    Args:
        anchors_AD: local rows.
        columns_MD: rows of all ranks; may be the same tensor object.
        index_AS: int64 indices into the columns.
        weight_AS: their weights, of the anchors' type.

    Returns:
        [A].
    """
    shared = columns_MD is anchors_AD
    columns_MD = columns_MD.detach() if shared else columns_MD
    products_A: Tensor = _Drawn.apply(anchors_AD, columns_MD, index_AS, weight_AS, shared)
    return products_A


class _Context(FunctionCtx):
    """The attributes that the function below hangs on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    shared: bool


class _Drawn(torch.autograd.Function):
    """z . sum_s w_s z_s, one slot after the other, so that beside the rows there are two matrices of their size."""

    @staticmethod
    def forward(
        ctx: _Context, anchors_AD: Tensor, columns_MD: Tensor, index_AS: Tensor, weight_AS: Tensor, shared: bool
    ) -> Tensor:
        sums_AD = torch.zeros_like(anchors_AD)
        _add_drawn(sums_AD, columns_MD, index_AS, weight_AS)
        ctx.save_for_backward(anchors_AD, sums_AD, index_AS, weight_AS, columns_MD)
        ctx.shared = shared
        products_A: Tensor = torch.linalg.vecdot(anchors_AD, sums_AD)
        return products_A

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_A: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        anchors_AD, sums_AD, index_AS, weight_AS, columns_MD = ctx.saved_tensors
        grad_anchors_AD = sums_AD * grad_A[:, None]
        grad_columns_MD = grad_anchors_AD if ctx.shared else torch.zeros_like(columns_MD)
        _add_to_drawn(grad_columns_MD, anchors_AD, index_AS, weight_AS * grad_A[:, None])
        return grad_anchors_AD, None if ctx.shared else grad_columns_MD, None, None, None


def _add_drawn(sums_AD: Tensor, columns_MD: Tensor, index_AS: Tensor, weight_AS: Tensor) -> None:
    """Add to each anchor's sum its drawn columns, each times its weight."""
    for index_A, weight_A in zip(index_AS.unbind(1), weight_AS.unbind(1), strict=True):
        sums_AD.addcmul_(columns_MD.index_select(0, index_A), weight_A[:, None])


def _add_to_drawn(sums_MD: Tensor, anchors_AD: Tensor, index_AS: Tensor, weight_AS: Tensor) -> None:
    """Add each anchor, times its weight, to the sums of the columns that were drawn for it."""
    for index_A, weight_A in zip(index_AS.unbind(1), weight_AS.unbind(1), strict=True):
        sums_MD.index_add_(0, index_A, anchors_AD * weight_A[:, None])
