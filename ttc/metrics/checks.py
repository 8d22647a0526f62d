"""Embeddings and labels as the representation metrics take them, checked.

Shape suffixes: V views, N samples, D dimensions.
"""

from __future__ import annotations

from typing import Protocol

import torch


class SupportsArray(Protocol):
    """What PyTorch can turn into a tensor: a tensor or a NumPy array."""

    def __array__(self) -> object:
        """Return the values as an array."""


def unit_rows(embeddings: SupportsArray, device: torch.device | str | None, least: int = 2) -> torch.Tensor:
    """Check the embeddings and return them as new unit rows [V, N, D] in float64."""
    values = torch.as_tensor(embeddings, device=device).detach()
    if values.ndim != 3 or values.shape[1] < 1 or values.shape[2] < 1:
        raise ValueError(f"embeddings has shape {tuple(values.shape)}, not [views, samples, dimensions]")
    if values.shape[0] < least:
        raise ValueError("embeddings has 1 view, but needs at least 2: SAD and SAA compare the views of a sample")
    if values.is_complex():
        raise ValueError(f"embeddings has type {values.dtype}, but must be real")
    rows_VND = values.double()
    norms_VN1 = torch.linalg.vector_norm(rows_VND, dim=2, keepdim=True)
    bad = (~(norms_VN1.isfinite() & (norms_VN1 > 0))).nonzero()
    if len(bad):
        view, sample, _ = bad[0].tolist()
        norm = float(norms_VN1[view, sample])
        raise ValueError(
            f"embeddings[{view}, {sample}] has norm {norm:g} ({len(bad)} such rows): rows must be finite and not zero; "
            "check the encoder for NaN, infinite or dead outputs"
        )
    unit_VND: torch.Tensor = rows_VND / norms_VN1
    return unit_VND


def checked_labels(labels: SupportsArray, samples: int, num_classes: int | None) -> torch.Tensor:
    """Check the labels and return them as [N] int64."""
    values = torch.as_tensor(labels)
    if values.shape != (samples,):
        raise ValueError(f"labels has shape {tuple(values.shape)}, but the embeddings have {samples} samples")
    if values.is_floating_point() or values.is_complex():
        raise ValueError(f"labels has type {values.dtype}, but must hold integers")
    low, high = int(values.min()), int(values.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        bound = "" if num_classes is None else f" to {num_classes - 1}"
        raise ValueError(f"labels lie in {low} to {high}, but must be class numbers from 0{bound}")
    return values.long()
