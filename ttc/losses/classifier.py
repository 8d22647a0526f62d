"""Linear classifiers over the encoder's features, and the class counts that several methods need.

Shape suffixes: F features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch import as_float


def logits_of(head: nn.Linear | None, features: Tensor) -> Tensor:
    """Return the head's logits in the type of the features, at least float32; without a head the features are they."""
    if head is None:
        return features
    features = as_float(features)
    return nn.functional.linear(features, head.weight.to(features.dtype), head.bias.to(features.dtype))


def cosine_logits(weights_KF: Tensor, features: Tensor, scale: float) -> Tensor:
    """Return scale * cosine of features [..., F] and class weights, [..., K], in at least float32."""
    features = as_float(features)
    weights_KF = nn.functional.normalize(weights_KF.to(features.dtype), dim=1)
    return scale * (nn.functional.normalize(features, dim=-1) @ weights_KF.T)


def seeded_linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    """Return a linear layer with torch's default distribution of weights, drawn from a seed of its own."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    bound = 1.0 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def checked_counts(class_counts: Sequence[int] | None, num_classes: int, method: str) -> Tensor:
    """Return the training samples per class as float64 [K].

    Raises:
        ValueError: if they are missing, not one per class, or not positive.
    """
    if class_counts is None:
        raise ValueError(f"{method} weighs by class frequency; give class_counts of the training set")
    counts = [int(n) for n in class_counts]
    if len(counts) != num_classes or min(counts) < 1:
        raise ValueError(f"class_counts {counts} do not give a positive number for each of {num_classes} classes")
    return torch.tensor(counts, dtype=torch.float64)
