"""SBC: classes cut into sub-classes of similar size, contrast inside a sub-class and a weaker one inside a class.

Shape suffixes: B local samples, P samples of all ranks, A local rows, M rows of all ranks, V views, N training images,
D dimensions, K classes, U sub-classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .batch import Batch
from .contrastive import anchor_losses, same_class_products, temperature_factor
from .logsumexp import log_sum_exp
from .objective import Broadcast, Embed
from .registry import method
from .supervised import SupCon

_STATE = ("known_ids_N", "sub_classes_N", "class_temperatures_K")
_NEWEST_RULE = 2


@method("sbc", "SupCon inside sub-classes about as large as the smallest class, and a weaker one between them")
class SBC(SupCon):
    """Sub-class balancing: SupCon over sub-classes found by k-means, plus a term that joins the sub-classes of a class.

    Plain SupCon until the first clustering.

    Plain form: `reference.sbc`.

    Source: Hou et al., "Subclass-balancing Contrastive Learning for Long-tailed Recognition", ICCV 2023.
    Note: the second term's temperature of a class is tau * exp(phi / mean phi) as in the paper. The published code
    takes tau * phi / mean phi (tau2="code"), with phi clipped to its 20th and 80th percentile over the classes, which
    for two classes puts the majority's temperature below tau. As there, `base_temperature` concerns the first term
    alone, not the epochs before the first clustering.
    """

    needs_sample_ids = True
    compiles = False

    def __init__(
        self,
        *,
        num_classes: int,
        temperature: float = 0.1,
        base_temperature: float | None = 0.07,
        weight: float = 0.25,
        every: int = 10,
        warmup_epochs: int = 10,
        min_cluster_size: int = 10,
        tau2: str = "paper",
        second_term: str = "rank",
        rule: int = _NEWEST_RULE,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            temperature: divides the cosines of the first term.
            base_temperature: the first term is multiplied by temperature / base_temperature.
            weight: weight of the second term.
            every: epochs between two clusterings.
            warmup_epochs: epochs of SupCon before the first clustering.
            min_cluster_size: a class is cut into as many sub-classes as it has times this many images, or times the
                smallest class's if that is larger; k-means decides how large each one is.
            tau2: "paper" or "code", the form of the second term's temperature.
            second_term: "rank" contrasts rows of the class outside the sub-class with other sub-classes, at the
                class's own temperature; "ccl" is SupCon at the first term's temperature.
            rule: 1 is what earlier versions did: the epochs before the first clustering are multiplied by temperature /
                base_temperature too, and tau2="code" does not clip. A state of theirs brings its rule along.
            seed: seed of k-means.

        Raises:
            ValueError: for values outside their range.
        """
        super().__init__(num_classes=num_classes, temperature=temperature)
        self.inside_factor = temperature_factor(temperature, base_temperature)
        if tau2 not in ("paper", "code"):
            raise ValueError(f"tau2 {tau2!r} does not exist; choose paper or code")
        if second_term not in ("rank", "ccl"):
            raise ValueError(f"second_term {second_term!r} does not exist; choose rank or ccl")
        if not 1 <= rule <= _NEWEST_RULE:
            raise ValueError(f"rule {rule} does not exist; choose 1 or {_NEWEST_RULE}")
        if every < 1 or warmup_epochs < 0 or min_cluster_size < 1 or not weight >= 0:
            raise ValueError(
                f"every {every} and min_cluster_size {min_cluster_size} must be at least 1, "
                f"warmup_epochs {warmup_epochs} and weight {weight} at least 0"
            )
        self.weight, self.every, self.warmup_epochs = weight, every, warmup_epochs
        self.min_cluster_size, self.tau2, self.second_term, self.seed = min_cluster_size, tau2, second_term, seed
        self.rule = rule
        self.clustered_epoch = -1
        self.known_ids_N: Tensor
        self.sub_classes_N: Tensor
        self.class_temperatures_K: Tensor
        self.register_buffer("known_ids_N", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("sub_classes_N", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("class_temperatures_K", torch.full((num_classes,), temperature, dtype=torch.float64))
        self.num_sub_classes = 0

    def loss(self, batch: Batch) -> Tensor:
        """Return SupCon before the first clustering, then the two terms."""
        if self.num_sub_classes == 0:
            loss = super().loss(batch)
            return loss if self.rule > 1 else self.inside_factor * loss
        assert batch.sample_ids_B is not None
        assert batch.pool_sample_ids_P is not None
        dtype, views = batch.z_BVD.dtype, batch.views
        sub_P, sub_B = self._look_up(batch.pool_sample_ids_P), self._look_up(batch.sample_ids_B)
        sub_A = sub_B.repeat_interleave(views, output_size=len(batch.anchors_AD))
        sub_M = sub_P.repeat_interleave(views, output_size=len(batch.columns_MD))
        sums_UD = batch.pool_z_PVD.new_zeros(self.num_sub_classes, batch.z_BVD.shape[2])
        sums_UD = sums_UD.index_add(0, sub_P, batch.pool_z_PVD.sum(1))
        rows_U = torch.zeros_like(sums_UD[:, 0]).index_add(0, sub_P, torch.ones_like(sub_P, dtype=dtype)) * views
        inside_A = torch.linalg.vecdot(batch.anchors_AD, sums_UD[sub_A])
        inside_A = inside_A - torch.linalg.vecdot(batch.anchors_AD, batch.anchors_AD)
        inside_rows_A = rows_U[sub_A] - 1
        lse_A = batch.log_sum_exp(self.temperature)
        term1 = self.inside_factor * self.mean_loss(batch, lse_A, inside_A / self.temperature, inside_rows_A)

        class_BV, class_rows_B1 = same_class_products(batch, batch.codes(self.num_classes))
        class_A, class_rows_A = class_BV.flatten(), class_rows_B1.expand_as(class_BV).flatten()
        if self.second_term == "ccl":
            logits_A, counts_A = class_A / self.temperature, class_rows_A
        else:
            temperature_A = self.class_temperatures_K.to(dtype)[batch.anchor_labels_A]
            logits_A = (batch.other_view_products_BV.flatten() + class_A - inside_A) / temperature_A
            counts_A = class_rows_A - inside_rows_A + (views - 1)
            lse_A = self._outside_log_sum_exp(batch, temperature_A, sub_A, sub_M)
        term2 = anchor_losses(lse_A, logits_A, counts_A).mean()
        self.terms["inside"], self.terms["between"] = term1.detach(), term2.detach()
        return term1 + self.weight * term2

    def _outside_log_sum_exp(self, batch: Batch, temperature_A: Tensor, sub_A: Tensor, sub_M: Tensor) -> Tensor:
        """Return the log-sum-exp over the anchor's other views and all rows of other sub-classes."""
        lse_A = log_sum_exp(batch.anchors_AD / temperature_A[:, None], batch.columns_MD, groups=(sub_A, sub_M))
        if batch.views == 1:
            return lse_A
        itself = torch.eye(batch.views, dtype=torch.bool, device=sub_A.device)
        view_products_BVV = batch.z_BVD @ batch.z_BVD.mT
        logits_AV = view_products_BVV.masked_fill(itself, -torch.inf).flatten(0, 1) / temperature_A[:, None]
        return torch.logaddexp(lse_A, logits_AV.logsumexp(1))

    def _look_up(self, ids_P: Tensor) -> Tensor:
        """Return the sub-class of each sample."""
        index_P = torch.searchsorted(self.known_ids_N, ids_P).clamp(max=len(self.known_ids_N) - 1)
        if self.validate and not torch.equal(self.known_ids_N[index_P], ids_P):
            missing = ids_P[self.known_ids_N[index_P] != ids_P]
            raise ValueError(
                f"sample ids {missing[:4].tolist()} have no sub-class; offer all training images in on_epoch"
            )
        return self.sub_classes_N[index_P]

    def wants_embeddings(self, epoch: int) -> bool:
        """Tell whether this epoch starts with a clustering that has not been made yet."""
        due = epoch >= self.warmup_epochs and (epoch - self.warmup_epochs) % self.every == 0
        return due and epoch != self.clustered_epoch

    def on_epoch(self, epoch: int, embed: Embed, broadcast: Broadcast = lambda tensor: tensor) -> None:
        """Cluster the training images of each class; see the base class."""
        if not self.wants_embeddings(epoch):
            return
        z_ND, labels_N, ids_N = embed()
        # The order decides k-means' start: sort, so that it does not depend on how the ranks share the images.
        order_N = ids_N.argsort()
        z_ND, labels_N = z_ND[order_N].double(), labels_N[order_N]
        sub_classes_N, sizes = self._cluster(z_ND, labels_N, epoch)
        temperatures_K = self._temperatures(z_ND, labels_N, sizes)
        self.assign(ids_N[order_N], broadcast(sub_classes_N), broadcast(temperatures_K))
        self.clustered_epoch = epoch

    def assign(self, ids_N: Tensor, sub_classes_N: Tensor, temperatures_K: Tensor) -> None:
        """Set the sub-class of every training image.

        Args:
            ids_N: sample ids, int64 [N], each once.
            sub_classes_N: sub-class of each, int64 [N], counted over all classes.
            temperatures_K: temperature of the second term for each class [K].
        """
        order_N = ids_N.argsort()
        self.known_ids_N, self.sub_classes_N = ids_N[order_N], sub_classes_N[order_N]
        self.class_temperatures_K = temperatures_K
        self.num_sub_classes = int(sub_classes_N.max()) + 1

    def _cluster(self, z_ND: Tensor, labels_N: Tensor, epoch: int) -> tuple[Tensor, list[int]]:
        """Return each image's sub-class, and the number of sub-classes per class."""
        from sklearn.cluster import KMeans  # only this method needs scikit-learn

        counts = [int((labels_N == c).sum()) for c in range(self.num_classes)]
        size = max(min(n for n in counts if n > 0), self.min_cluster_size)
        sub_classes_N = torch.zeros_like(labels_N)
        sizes = [max(1, n // size) for n in counts]
        for c, clusters in enumerate(sizes):
            member_N = labels_N == c
            if counts[c] == 0:
                continue
            codes = torch.zeros(counts[c], dtype=torch.int64)
            if clusters > 1:
                kmeans = KMeans(clusters, n_init=1, random_state=(self.seed + epoch) % 2**32)
                codes = torch.as_tensor(kmeans.fit_predict(z_ND[member_N].cpu().numpy()), dtype=torch.int64)
            sub_classes_N[member_N] = codes.to(labels_N.device) + sum(sizes[:c])
        return sub_classes_N, sizes

    def _temperatures(self, z_ND: Tensor, labels_N: Tensor, sizes: list[int]) -> Tensor:
        """Return the second term's temperature of each class from the spread of its images."""
        phi_K = z_ND.new_ones(self.num_classes)
        present = [c for c in range(self.num_classes) if bool((labels_N == c).any())]
        for c in present:
            rows_ND = z_ND[labels_N == c]
            spread = torch.linalg.vector_norm(rows_ND - rows_ND.mean(0), dim=1).mean()
            phi_K[c] = spread / torch.tensor(len(rows_ND) + 10.0).log()
        if self.tau2 == "code" and self.rule > 1:
            low, high = (torch.quantile(phi_K[present], share) for share in (0.2, 0.8))
            phi_K = phi_K.clamp(low, high)
        ratio_K = phi_K / phi_K[present].mean().clamp(min=torch.finfo(phi_K.dtype).tiny)
        factor_K = ratio_K.exp() if self.tau2 == "paper" else ratio_K
        split_K = torch.tensor([s > 1 for s in sizes], device=phi_K.device)
        return self.temperature * torch.where(split_K, factor_K, 1.0)

    def collapse_value(self, samples: int) -> float | None:
        """Return SupCon's value before the first clustering, then None: it depends on the sub-classes of the batch."""
        value = super().collapse_value(samples) if self.num_sub_classes == 0 else None
        return value if value is None or self.rule > 1 else self.inside_factor * value

    def get_extra_state(self) -> dict[str, int]:
        """Return the epoch of the last clustering, the number of its sub-classes, and the rule."""
        numbers = {"clustered_epoch": self.clustered_epoch, "num_sub_classes": self.num_sub_classes}
        return {**numbers, "rule": self.rule}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what `get_extra_state` returned."""
        self.clustered_epoch, self.num_sub_classes = int(state["clustered_epoch"]), int(state["num_sub_classes"])
        self.rule = int(state.get("rule", 1))  # the first rule did not say so

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Give the buffers the sizes of the loaded state, which depend on the training set."""
        for name in _STATE:
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor):
                setattr(self, name, stored.new_empty(stored.shape, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
