"""BatchNorm of the global batch in a single process; tests/ranks compares several."""

from __future__ import annotations

import torch
from torch import nn

from ttc.models.batchnorm import GlobalBatchNorm2d, synchronise
from ttc.models.networks import ConvNet


def test_one_process_keeps_torchs_own() -> None:
    network = ConvNet(2, 1, 8)
    assert synchronise(network, torch.device("cpu")) is network
    assert not any(isinstance(module, GlobalBatchNorm2d) for module in network.modules())


def both(dtype: torch.dtype) -> tuple[nn.BatchNorm2d, GlobalBatchNorm2d]:
    torch.manual_seed(0)
    usual, ours = nn.BatchNorm2d(3).to(dtype), GlobalBatchNorm2d(3).to(dtype)
    nn.init.normal_(usual.weight)
    nn.init.normal_(usual.bias)
    ours.load_state_dict(usual.state_dict())
    return usual, ours


def test_it_is_batch_norm() -> None:
    usual, ours = both(torch.float64)
    images = torch.randn(6, 3, 4, 5, dtype=torch.float64) * 3 + 10
    weights = torch.randn_like(images)
    gradients = []
    for module in (usual, ours):
        for _ in range(3):
            inputs = images.clone().requires_grad_()
            (module(inputs) * weights).sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(ours.weight.grad, usual.weight.grad)
    torch.testing.assert_close(ours.bias.grad, usual.bias.grad)
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(images), usual.eval()(images))


def test_half_precision_is_computed_in_float32_and_returned_as_it_came() -> None:
    _, ours = both(torch.float32)
    images = torch.randn(16, 3, 8, 8) * 2 + 50
    exact = ours(images.bfloat16().float())
    found = ours(images.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() < 0.02
    assert ours.running_mean is not None
    assert ours.running_mean.dtype == torch.float32


def test_memory_format_is_kept() -> None:
    _, ours = both(torch.float32)
    images = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    assert ours(images).is_contiguous(memory_format=torch.channels_last)
