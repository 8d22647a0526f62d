"""The cost model against counted operations and bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import costs
from ttc.losses.logsumexp import log_sum_exp
from ttc.models.networks import PretrainNetwork


def counted(anchors: int, columns: int, dim: int) -> int:
    """Count the products of one log-sum-exp and its backward pass."""
    rows = nn.functional.normalize(torch.randn(columns, dim, generator=torch.Generator().manual_seed(0)), dim=1)
    rows.requires_grad_()
    anchor_rows = rows if anchors == columns else rows[:anchors]
    with costs.flop_counter() as counter:
        log_sum_exp(anchor_rows, rows, 10.0, self_offset=0).sum().backward()
    return counter.get_total_flops()


def cost(ranks: int, batch: int, **changes: object) -> costs.StepCost:
    settings = {"forward_flops": 0.0, "parameters": 0, "batchnorm_channels": 0, **changes}
    return costs.step_cost(batch=batch, views=2, dimensions=16, ranks=ranks, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [100, 2048])
def test_products_of_one_process(batch: int) -> None:
    # Blocks on the diagonal are multiplied as a whole: up to an eighth more at eight blocks a side.
    assert cost(1, batch).loss_flops == pytest.approx(counted(2 * batch, 2 * batch, 16), rel=0.13)


def test_products_of_one_of_two_ranks() -> None:
    assert cost(2, 2048).loss_flops == counted(2048, 4096, 16)


def small_network() -> PretrainNetwork:
    encoder = nn.Sequential(
        nn.Conv2d(3, 5, 3, 1, 1, bias=False), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    encoder.feature_dim = 5  # type: ignore[assignment]  # what build_encoder's modules have
    return PretrainNetwork(encoder, 6)


def test_network() -> None:
    network = small_network()
    forward = costs.count_forward_flops(network, torch.zeros(1, 3, 4, 4))
    # 3x3 convolution of 4x4 pixels, 3 to 5 channels; heads 5-5-6.
    assert forward == 2 * (9 * 3 * 5 * 16 + 5 * 5 + 5 * 6)
    assert network.training
    found = cost(4, 64, forward_flops=forward, parameters=7, batchnorm_channels=costs.count_batchnorm_channels(network))
    assert found.network_flops == 3 * forward * 32
    assert found.gradient_bytes == 2 * 0.75 * 28
    assert found.batchnorm_bytes == 4 * 2 * 0.75 * 4 * 5


def test_one_process_sends_nothing() -> None:
    assert cost(1, 8192, parameters=10**6, batchnorm_channels=100).sent_bytes == 0
