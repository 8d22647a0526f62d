"""PaCo: class logits, queries, keys of a momentum encoder and a queue of earlier keys in one softmax.

Shape suffixes: B local samples, P samples of all ranks, Q rows of the queue, R rows of keys and queue, V views,
D dimensions, F features, K classes.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .batch import Batch, at_class, one_hot
from .classifier import checked_counts, logits_of, seeded_linear
from .contrastive import anchor_losses, temperature_factor
from .logsumexp import log_sum_exp
from .objective import Objective
from .registry import method

_log = logging.getLogger(__name__)


@method("paco", "momentum queue and class logits in one softmax")
class PaCo(Objective):
    """Parametric contrast: queries against class logits, all queries and keys, and a labelled queue.

    View 0 is the query, embedded by the trained network; the further views are keys of its moving average.

    Plain form: `reference.paco`.

    Source: Cui et al., "Parametric Contrastive Learning", ICCV 2021 (L_PaCo).
    Note: the queue starts empty and only its valid rows count; the published code starts with random labels and rows
    that are not of unit length. With few classes the published weights leave the classifier almost no share of the
    target (an anchor has thousands of same-class rows); `rescale_alpha` makes alpha the weight of all of them together.
    """

    views = 2
    student_views = 1

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None,
        feature_dim: int | None = None,
        projection_dim: int = 128,
        temperature: float = 0.2,
        base_temperature: float | None = None,
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        queue_size: int = 8192,
        momentum: float = 0.999,
        classifier_temperature: float = 1.0,
        rescale_alpha: bool = False,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class, for the prior.
            feature_dim: size of the encoder's features; None if `features` holds the logits.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            alpha: weight of each row of the anchor's class among the positives.
            beta: weight of the anchor's class logit among the positives.
            gamma: weight of rows in the denominator; 0 leaves them out.
            queue_size: rows of the queue.
            momentum: share that the key network keeps of itself in a step, 0..1.
            classifier_temperature: divides the class logits.
            rescale_alpha: divide alpha by the expected number of rows of the anchor's class.
            seed: seed of the classifier's weights.

        Raises:
            ValueError: for values outside their range or missing.
        """
        super().__init__(num_classes=num_classes)
        self.factor = temperature_factor(temperature, base_temperature)
        self.temperature, self.classifier_temperature = temperature, classifier_temperature
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.momentum, self.rescale_alpha = momentum, rescale_alpha
        self._check_settings(queue_size)
        self.needs_features = True
        self.head = None if feature_dim is None else seeded_linear(feature_dim, num_classes, seed)
        counts_K = checked_counts(class_counts, num_classes, "paco")
        self.log_prior_K: Tensor
        self.queue_QD: Tensor
        self.queue_labels_Q: Tensor
        self.register_buffer("log_prior_K", (counts_K / counts_K.sum()).log())
        self.register_buffer("queue_QD", torch.zeros(queue_size, projection_dim))
        self.register_buffer("queue_labels_Q", torch.zeros(queue_size, dtype=torch.int64))
        self.filled, self.cursor = 0, 0
        self.key_model: nn.Module | None = None
        self._keys: tuple[Tensor, Tensor] | None = None
        if not rescale_alpha:
            self._warn_of_vanishing_classifier()

    def _check_settings(self, queue_size: int) -> None:
        if min(self.alpha, self.beta, self.gamma) < 0 or self.alpha + self.beta == 0:
            raise ValueError(
                f"alpha {self.alpha}, beta {self.beta}, gamma {self.gamma} leave no target; published: 0.05, 1, 1"
            )
        if not 0 <= self.momentum <= 1 or queue_size < 1 or self.classifier_temperature <= 0:
            raise ValueError(
                f"momentum {self.momentum} must be within 0..1, queue_size {queue_size} at least 1 and "
                f"classifier_temperature {self.classifier_temperature} positive"
            )

    def classifier(self, features: Tensor) -> Tensor:
        """Return raw logits [..., K]; the prior enters in training only."""
        return logits_of(self.head, features)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the queries' losses."""
        if batch.views < 2:
            raise ValueError(f"paco got {batch.views} view; view 0 is the query, give the keys as further views")
        assert batch.features_BVF is not None
        query_BD = batch.z_BVD[:, 0].contiguous()
        pool_query_PD = query_BD if batch.pool_z_PVD is batch.z_BVD else batch.pool_z_PVD[:, 0]
        other_RD, other_labels_R = self._keys_and_queue(batch)
        logits_BK = self.classifier(batch.features_BVF[:, 0]) + self.log_prior_K.to(query_BD.dtype)
        logits_BK = logits_BK / self.classifier_temperature
        lse_B = logits_BK.logsumexp(1)
        if self.gamma > 0:
            scale = 1.0 / self.temperature
            to_queries_B = log_sum_exp(query_BD, pool_query_PD, scale, self_offset=batch.first)
            to_others_B = log_sum_exp(query_BD, other_RD, scale)
            lse_B = torch.logaddexp(lse_B, torch.logaddexp(to_queries_B, to_others_B) + math.log(self.gamma))
        member_PK = one_hot(batch.pool_labels_P, self.num_classes, query_BD.dtype)
        member_RK = one_hot(other_labels_R, self.num_classes, query_BD.dtype)
        sums_KD = member_PK.T @ pool_query_PD + member_RK.T @ other_RD
        products_B = at_class(query_BD @ sums_KD.T, batch.labels_B) - torch.linalg.vecdot(query_BD, query_BD)
        rows_B = (member_PK.sum(0) + member_RK.sum(0))[batch.labels_B] - 1
        alpha_B = self._alpha(batch.labels_B, len(pool_query_PD) + len(other_RD)).to(query_BD.dtype)
        weights_B = alpha_B * rows_B + self.beta
        self.terms["classifier_share"] = (self.beta / weights_B.clamp(min=1e-12)).mean().detach()
        targets_B = alpha_B * products_B / self.temperature + self.beta * at_class(logits_BK, batch.labels_B)
        return self.factor * anchor_losses(lse_B, targets_B, weights_B).mean()

    def _keys_and_queue(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return this batch's keys of all ranks and the valid part of the queue, and note the keys for `after_step`."""
        keys_PVD = batch.pool_z_PVD[:, 1:].detach()
        labels_PV = batch.pool_labels_P[:, None].expand(keys_PVD.shape[:2])
        keys_RD, labels_R = keys_PVD.flatten(0, 1), labels_PV.flatten()
        if self.training:
            self._keys = keys_RD, labels_R
        queue_QD = self.queue_QD[: self.filled].to(keys_RD.dtype)
        return torch.cat((keys_RD, queue_QD)), torch.cat((labels_R, self.queue_labels_Q[: self.filled]))

    def _warn_of_vanishing_classifier(self) -> None:
        """Warn if same-class rows leave the class logit less than a hundredth of an anchor's target."""
        rows = len(self.queue_QD) * float(self.log_prior_K.max().exp())
        share = self.beta / (self.alpha * rows + self.beta)
        if share < 0.01:
            _log.warning(
                "paco: the classifier has %.2f %% of the target of anchors of the largest class; "
                "rescale_alpha=true or a smaller queue_size raises it",
                100 * share,
            )

    def _alpha(self, labels_B: Tensor, rows: int) -> Tensor:
        """Return the weight of a same-class row for each anchor."""
        if not self.rescale_alpha:
            return torch.full(labels_B.shape, self.alpha, dtype=torch.float64, device=labels_B.device)
        return self.alpha / (self.log_prior_K.exp() * rows).clamp(min=1)[labels_B]

    @torch.no_grad()
    def push(self, keys_RD: Tensor, labels_R: Tensor) -> None:
        """Write keys and their labels over the oldest rows of the queue."""
        size = len(self.queue_QD)
        keys_RD, labels_R = keys_RD[-size:], labels_R[-size:]
        index_R = (self.cursor + torch.arange(len(keys_RD), device=keys_RD.device)) % size
        self.queue_QD.index_copy_(0, index_R, keys_RD.to(self.queue_QD.dtype))
        self.queue_labels_Q.index_copy_(0, index_R, labels_R)
        self.cursor = (self.cursor + len(keys_RD)) % size
        self.filled = min(size, self.filled + len(keys_RD))

    def attach(self, model: nn.Module) -> None:
        """Copy the model, which returns (features, embeddings) of images, as the key network."""
        self.key_model = copy.deepcopy(model).requires_grad_(False)

    def add_keys(self, z: Tensor, images: Tensor) -> Tensor:
        """Append the key network's embeddings of views 1, 2, ... [B, V, D]; see the base class."""
        if self.key_model is None:
            raise ValueError("paco has no key network; call attach(model) before training")
        views = images[:, self.student_views :]
        with torch.no_grad():
            _, keys = self.key_model(views.flatten(0, 1))
        return torch.cat((z, keys.view(*views.shape[:2], -1).to(z.dtype)), 1)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move the key network towards the model and push the keys of all ranks."""
        if self.key_model is not None:
            for key, trained in zip(self.key_model.parameters(), model.parameters(), strict=True):
                key.lerp_(trained, 1.0 - self.momentum)
        if self._keys is not None:
            self.push(*self._keys)
            self._keys = None

    def get_extra_state(self) -> dict[str, int]:
        """Return how much of the queue is filled and where the next key goes."""
        return {"filled": self.filled, "cursor": self.cursor}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """Restore what `get_extra_state` returned."""
        self.filled, self.cursor = int(state["filled"]), int(state["cursor"])
