"""A checked batch: local anchors, the rows of all ranks as columns, and what several methods compute from them.

Shape suffixes: B local samples, P samples of the pool (all ranks), V views, D dimensions of the embedding, F of the
features, A = B * V local rows in sample-major order (row = sample * V + view), M = P * V rows of all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .logsumexp import log_sum_exp
from .products import other_views

# Rounding to bfloat16 changes the length of a unit row by at most 2^-8.
_LENGTH_TOLERANCE = 4e-3


class Pool(Protocol):
    """The samples of all ranks, gathered so that the backward pass sums gradients over the ranks.

    Every rank holds equally many samples; the local ones start at sample `first`.
    """

    @property
    def z(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def sample_ids(self) -> Tensor | None: ...
    @property
    def first(self) -> int: ...
    @property
    def world_size(self) -> int: ...


@dataclass(frozen=True)
class Batch:
    """One checked batch in float32 or float64: local anchors, and the columns of all ranks.

    In one process `pool_z_PVD is z_BVD`, which the log-sum-exp recognises: each pair is then multiplied once.
    `single_loss` tells that the batch serves one loss, with nothing that another could use again.
    """

    z_BVD: Tensor
    labels_B: Tensor
    pool_z_PVD: Tensor
    pool_labels_P: Tensor
    first: int = 0
    features_BVF: Tensor | None = None
    sample_ids_B: Tensor | None = None
    pool_sample_ids_P: Tensor | None = None
    single_loss: bool = False
    _results: dict[Hashable, Tensor] = field(default_factory=dict)

    def _once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        # Unlike functools.cached_property it takes no lock, at which torch.compile would end its graph.
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    @property
    def anchors_AD(self) -> Tensor:
        """Local rows."""
        return self._once("anchors", lambda: self.z_BVD.flatten(0, 1))

    @property
    def columns_MD(self) -> Tensor:
        """Rows of all ranks; the same object as the anchors in one process."""
        if self.pool_z_PVD is self.z_BVD:
            return self.anchors_AD
        return self._once("columns", lambda: self.pool_z_PVD.flatten(0, 1))

    @property
    def views(self) -> int:
        """Views per sample."""
        return self.z_BVD.shape[1]

    @property
    def first_row(self) -> int:
        """Index of the first local row among the rows of all ranks."""
        return self.first * self.views

    @property
    def anchor_labels_A(self) -> Tensor:
        """Class of each local row."""
        rows = self.labels_B.numel() * self.views
        return self._once("labels", lambda: self.labels_B.repeat_interleave(self.views, output_size=rows))

    @property
    def other_view_products_BV(self) -> Tensor:
        """Sum of a row's dot products with the other views of its sample, the set W(i)."""
        return self._once("other views", lambda: other_views(self.z_BVD))

    def codes(self, num_classes: int) -> Tensor:
        """Return the one-hot classes of the pool's samples [P, K]; computed once."""
        return self._once(num_classes, lambda: one_hot(self.pool_labels_P, num_classes, self.z_BVD.dtype))

    def local(self, pool: Tensor) -> Tensor:
        """Return the part [B, ...] of this process of something that the pool's samples have [P, ...]."""
        return pool if len(pool) == len(self.z_BVD) else pool[self.first : self.first + len(self.z_BVD)]

    def log_sum_exp(self, temperature: float) -> Tensor:
        """Return log sum_{k in A(i)} exp(z_i . z_k / temperature) [A]; computed once per temperature."""
        return self._once(
            ("log-sum-exp", temperature),
            lambda: log_sum_exp(self.anchors_AD, self.columns_MD, 1.0 / temperature, self_offset=self.first_row),
        )


def one_hot(labels_P: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return [P, K] with a one in the class of each label."""
    # torch's own one_hot reads the labels back from the device to check their range.
    return (labels_P[:, None] == torch.arange(num_classes, device=labels_P.device)).to(dtype)


def at_class(values_AK: Tensor, labels_A: Tensor) -> Tensor:
    """Pick each row's value of its class [A]."""
    return values_AK.gather(1, labels_A[:, None]).squeeze(1)


def as_float(rows: Tensor) -> Tensor:
    """Return the rows in float32, or unchanged if they are float64."""
    return rows if rows.dtype == torch.float64 else rows.float()


def check_rows(rows: Tensor, *, unit: bool) -> None:
    """Check that all rows are finite and, if asked, of length one.

    Raises:
        ValueError: naming the worst row's length.
    """
    lengths = torch.linalg.vector_norm(rows.detach(), dim=-1, dtype=as_float(rows[:0]).dtype)
    # One number tells that all is well, which is the usual case; NaN passes through the maximum.
    off_by = float((lengths - 1).abs().amax())
    if not math.isfinite(off_by):
        raise ValueError("embeddings hold NaN or infinite values; lower the learning rate or check the input images")
    if unit and off_by > _LENGTH_TOLERANCE:
        worst = float(lengths.flatten()[(lengths - 1).abs().argmax()])
        raise ValueError(f"embeddings have length {worst:.4g}, not 1; normalise them along the last dimension")
