"""Several ranks, simulated in one process: the mean of the ranks' gradients is the gradient of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from loss_cases import inputs_for, ready
from torch import Tensor

from ttc.losses import METHODS


@dataclass(frozen=True)
class PlainPool:
    z: Tensor
    labels: Tensor
    sample_ids: Tensor
    first: int
    world_size: int


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_mean_over_ranks_is_the_whole_batch(method: str, world_size: int, num_classes: int) -> None:
    whole = ready(method, num_classes=num_classes)
    inputs = inputs_for(whole, 6, "mixed", 5)
    if num_classes == 2:
        inputs.labels.fill_(0)
        inputs.labels[:2] = 1  # all minority samples on the first rank
        inputs.sample_ids = inputs.sample_ids // 2 * 2 + inputs.labels
    parameters = [p for p in whole.parameters() if p.requires_grad]
    wanted = [inputs.z, inputs.features, *parameters]
    loss = inputs.call(whole)
    expected = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)

    share = len(inputs.labels) // world_size
    ranks = []
    for rank in range(world_size):
        local = slice(rank * share, (rank + 1) * share)
        pool = PlainPool(inputs.z, inputs.labels, inputs.sample_ids, rank * share, world_size)
        ranks.append(
            whole(
                inputs.z[local],
                inputs.labels[local],
                pool,
                features=inputs.features[local],
                sample_ids=inputs.sample_ids[local],
            )
        )
    mean = torch.stack(ranks).mean()
    actual = torch.autograd.grad(mean, wanted, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(mean, loss, atol=1e-12, rtol=1e-12)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_added_terms() -> None:
    whole = ready("supmin", ce_weight=0.7, instance_weight=0.3, prototype_weight=0.5)
    inputs = inputs_for(whole, 6, "mixed", 5)
    parts = []
    for first in (0, 3):
        local = slice(first, first + 3)
        pool = PlainPool(inputs.z, inputs.labels, inputs.sample_ids, first, 2)
        parts.append(whole(inputs.z[local], inputs.labels[local], pool, features=inputs.features[local]))
    mean, loss = torch.stack(parts).mean(), inputs.call(whole)
    torch.testing.assert_close(mean, loss, atol=1e-12, rtol=1e-12)
    for tensor in (inputs.z, inputs.features):
        (a,), (b,) = (torch.autograd.grad(x, tensor, retain_graph=True) for x in (mean, loss))
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)
