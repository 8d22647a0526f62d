"""BatchNorm of the global batch in a single process; tests/ranks compares several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.norms import KINDS
from ttc.models.batchnorm import GlobalStatistics, synchronise
from ttc.models.encoders.convnet import ConvNet


def test_one_process_keeps_torchs_own() -> None:
    network = ConvNet(2, 1, 8)
    assert synchronise(network, torch.device("cpu")) is network
    assert not any(isinstance(module, GlobalStatistics) for module in network.modules())


def both(kind: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Return a layer as it is and as several processes have it, with the same random parameters."""
    torch.manual_seed(0)
    build, _ = KINDS[kind]
    usual, ours = build().to(dtype), build().to(dtype)
    for parameter in usual.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(usual.state_dict())
    ours.__class__ = type("Global", (GlobalStatistics, type(ours)), {})
    return usual, ours


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_batch_norm(kind: str) -> None:
    usual, ours = both(kind, torch.float64)
    made = torch.Generator().manual_seed(1)
    images = torch.randn(KINDS[kind][1], dtype=torch.float64, generator=made) * 3 + 10
    weights = torch.randn(images.shape, dtype=torch.float64, generator=made)
    gradients: list[Tensor | None] = []
    for module in (usual, ours):
        for _ in range(3):
            inputs = images.clone().requires_grad_()
            (module(inputs) * weights).sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    for (_, mine), (name, theirs) in zip(ours.named_parameters(), usual.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name)
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(images), usual.eval()(images))


def test_a_single_value_per_channel_is_refused() -> None:
    for module in both("1d", torch.float32):
        with pytest.raises(ValueError, match=r"more than (one|1) value per channel"):
            module(torch.zeros(1, 3))


def test_half_precision_is_computed_in_float32_and_returned_as_it_came() -> None:
    _, ours = both("2d", torch.float32)
    images = torch.randn(16, 3, 8, 8) * 2 + 50
    exact = ours(images.bfloat16().float())
    found = ours(images.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() < 0.02
    assert ours.running_mean.dtype == torch.float32


def test_memory_format_is_kept() -> None:
    _, ours = both("2d", torch.float32)
    images = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    assert ours(images).is_contiguous(memory_format=torch.channels_last)
