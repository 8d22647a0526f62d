"""What all objectives share: checked input, the rows of all ranks, additional terms, hooks for the training loop.

Shape suffixes: B local samples, P samples of the pool (all ranks), V views, D dimensions of the embedding, F of the
features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .batch import Batch, Pool, as_float, check_rows

Embed = Callable[[], tuple[Tensor, Tensor, Tensor]]
Broadcast = Callable[[Tensor], Tensor]


class Objective(nn.Module):
    """Base class of all methods.

    A subclass implements `loss`. The returned value is the mean over the local anchors, which equals
    (world size / anchors of all ranks) * sum over local anchors: the mean over ranks is the loss of the whole batch.

    Attributes:
        views: views per sample that the method expects.
        student_views: how many of them the trained network embeds; the objective embeds the others (`add_keys`).
        space: what `z` is, the unit "projection" or the encoder's "features".
        needs_features: whether `features` must be given.
        needs_sample_ids: whether `sample_ids` must be given.
        compiles: whether torch.compile can take the call; not where the loss draws: each step is another function then.
        validate: check labels, lengths and finiteness, which waits for the device; switch off where that costs time.
        terms: detached values of the last call.
        keep_graph_terms: also keep the weighted terms with their graph in `values`, to take gradients apart; a loss
            without additional terms has nothing to take apart.
    """

    views: int = 2
    student_views: int = 2
    space: str = "projection"
    needs_features: bool = False
    needs_sample_ids: bool = False
    compiles: bool = False

    def __init__(self, *, num_classes: int) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes K; labels are 0..K-1.
        """
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes {num_classes} is too small; at least two classes are needed")
        self.num_classes = num_classes
        self.validate = True
        self.keep_graph_terms = False
        self.step = 0
        self.method_weight = 1.0
        self.extra_terms = nn.ModuleDict()
        self.extra_weights: dict[str, float] = {}
        self.terms: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        pool: Pool | None = None,
        *,
        features: Tensor | None = None,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the local anchors against the rows of all ranks.

        Args:
            z: unit embeddings [B, V, D] of any float dtype; float16 and bfloat16 are computed in float32.
            labels: classes [B] or [B, 1], integer or bool, 0..K-1.
            pool: samples of all ranks; None in one process.
            features: encoder outputs [B, V, F] for methods with a classifier.
            sample_ids: int64 [B] for methods with a state per training sample.

        Returns:
            Scalar in float32, or float64 for float64 input.

        Raises:
            ValueError: on labels, shapes or rows that the method cannot take.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            batch = self._batch(z, labels, pool, features, sample_ids)
            self.terms, self.values = {}, {}
            loss = self.loss(batch)
            self.terms["objective"] = loss.detach()
            if not self.extra_terms:
                return loss
            self.values = {"objective": self.method_weight * loss}
            for name, term in self.extra_terms.items():
                assert isinstance(term, Objective)
                value = term.loss(batch)
                self.terms[name] = value.detach()
                self.values[name] = self.extra_weights[name] * value
            total = torch.stack(tuple(self.values.values())).sum()
            if not self.keep_graph_terms:
                self.values = {}
            return total

    @property
    def weights(self) -> dict[str, float]:
        """Term of the loss -> its weight; the method's own loss is called "objective"."""
        return {"objective": self.method_weight, **self.extra_weights}

    def loss(self, batch: Batch) -> Tensor:
        """Return the method's own loss, a scalar."""
        raise NotImplementedError

    def collapse_value(self, samples: int) -> float | None:
        """Return the loss of `samples` samples with equal embeddings, or None where it depends on more."""
        return None

    def classifier(self, features: Tensor) -> Tensor | None:
        """Return logits [..., K] of the method's own classification head, or None without one."""
        if "cross_entropy" not in self.extra_terms:
            return None
        head = self.extra_terms["cross_entropy"]
        assert isinstance(head, Objective)
        return head.classifier(features)

    def on_step(self, epoch: int, step: int) -> None:
        """Note the global step: the draws of a step are a function of the seed and this number."""
        self.step = step

    def on_epoch(self, epoch: int, embed: Embed, broadcast: Broadcast = lambda tensor: tensor) -> None:
        """Update what depends on all training images; called if `wants_embeddings(epoch)`.

        Args:
            epoch: epoch that is about to start.
            embed: returns projections [N, D], labels [N] and sample ids [N] of all training images, on every rank.
            broadcast: replaces a tensor by that of the first rank; the identity in one process.
        """

    def wants_embeddings(self, epoch: int) -> bool:
        """Tell whether `on_epoch` has to be called before this epoch."""
        return False

    def attach(self, model: nn.Module) -> None:
        """Take from the model, before training, what the objective has to own."""

    def add_keys(self, z: Tensor, images: Tensor) -> Tensor:
        """Append the views that the objective embeds itself.

        Args:
            z: embeddings of the student's views [B, student_views, D].
            images: all views of the images [B, V, ...].

        Returns:
            [B, V, D].
        """
        return z

    def after_step(self, model: nn.Module) -> None:
        """Update the state that follows the trained model; called after the optimizer's step.

        `loss` notes what this needs only while `training`: a step may call it a second time, for other weights.
        """

    def _batch(
        self, z: Tensor, labels: Tensor, pool: Pool | None, features: Tensor | None, sample_ids: Tensor | None
    ) -> Batch:
        z_BVD = as_float(z)
        labels_B = self._checked_labels(labels)
        if z_BVD.dim() != 3 or len(z_BVD) != len(labels_B) or z_BVD.numel() == 0:
            raise ValueError(
                f"z has shape {list(z.shape)} for {len(labels_B)} labels; give [samples, views, dimensions], not empty"
            )
        if self.needs_features and features is None:
            raise ValueError(f"{type(self).__name__} has a classifier; pass features=, the encoder's outputs [B, V, F]")
        if self.needs_sample_ids and sample_ids is None:
            raise ValueError(f"{type(self).__name__} keeps a state per image; pass sample_ids= [B]")
        if self.validate:
            check_rows(z, unit=self.space == "projection")
        features_BVF = None if features is None else as_float(features).to(z_BVD.dtype)
        return Batch(
            z_BVD,
            labels_B,
            z_BVD if pool is None else as_float(pool.z),
            labels_B if pool is None else self._checked_labels(pool.labels),
            0 if pool is None else pool.first,
            features_BVF,
            sample_ids,
            sample_ids if pool is None else pool.sample_ids,
            single_loss=not self.extra_terms,
        )

    def _checked_labels(self, labels: Tensor) -> Tensor:
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"labels are {labels.dtype} ({labels.flatten()[:4].tolist()} ...); give integer classes")
        if labels.dim() == 2 and labels.shape[1] == 1:
            labels = labels.squeeze(1)
        if labels.dim() != 1:
            raise ValueError(f"labels have shape {list(labels.shape)}; give [samples] or [samples, 1]")
        labels = labels.long()
        if self.validate and len(labels):
            low, high = labels.aminmax()
            if low < 0 or high >= self.num_classes:
                outside = labels[(labels < 0) | (labels >= self.num_classes)]
                raise ValueError(
                    f"labels hold {sorted(set(outside.tolist()))}, outside 0..{self.num_classes - 1}; "
                    "relabel the classes or set num_classes"
                )
        return labels
