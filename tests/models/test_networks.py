"""The two first encoders, stems, projection head, layers that stand still."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.networks import PretrainNetwork


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_small_encoder_is_as_small_as_it_says() -> None:
    encoder = build_encoder(EncoderSpec("convnet-w16", 1, 28))
    # Five 3 x 3 convolutions of widths 16, 32, 32, 64, 64 without bias, and two numbers per BatchNorm channel.
    expected = 9 * (16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (16 + 32 + 32 + 64 + 64)
    assert parameters(encoder) == expected
    assert 65_000 < expected < 75_000
    assert encoder.feature_dim == 64


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "last"), [(8, 2), (16, 4), (28, 4), (32, 4), (64, 8)])
def test_the_small_encoder_keeps_a_map(size: int, last: int, channels: int) -> None:
    encoder = build_encoder(EncoderSpec("convnet-w4", channels, size))
    images = torch.randn(2, channels, size, size)
    assert encoder.layers(images).shape == (2, 16, last, last)  # type: ignore[operator]  # a module
    assert encoder(images).shape == (2, 16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "stem", "kernel", "stride"),
    [
        (32, "auto", 3, 1),
        (64, "auto", 3, 1),
        (65, "auto", 7, 2),
        (224, "auto", 7, 2),
        (32, "imagenet", 7, 2),
        (224, "small", 3, 1),
    ],
)
def test_stems(size: int, stem: str, kernel: int, stride: int, channels: int) -> None:
    encoder = build_encoder(EncoderSpec("resnet18", channels, size, stem))
    first, pool = encoder.conv1, encoder.maxpool
    assert isinstance(first, nn.Conv2d)
    assert (first.in_channels, first.kernel_size[0], first.stride[0]) == (channels, kernel, stride)
    assert isinstance(pool, nn.Identity) == (kernel == 3)
    assert encoder.feature_dim == 512


@pytest.mark.parametrize(
    ("name", "channels", "size", "features"),
    [("resnet18", 1, 32, 512), ("resnet50", 3, 32, 2048), ("resnet18", 3, 224, 512)],
)
def test_resnets_run(name: str, channels: int, size: int, features: int) -> None:
    encoder = build_encoder(EncoderSpec(name, channels, size)).eval()
    with torch.no_grad():
        out = encoder(torch.randn(2, channels, size, size))
    assert out.shape == (2, features)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", ["resnet7", "convnet-w0", "convnet", "convnet-w16x", "vit_b_17"])
def test_unknown_encoders_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"--encoder {name} is unknown; use convnet-w16 .*resnet50"):
        build_encoder(EncoderSpec(name, 1, 8))


def test_one_seed_gives_one_encoder() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_encoder(EncoderSpec("resnet18", 1, 32)).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# The network with its head.


def test_the_head_has_the_papers_form() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), 5)
    assert network.projection is not None
    kinds = [type(layer) for layer in network.projection]  # type: ignore[attr-defined]  # a Sequential
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear]
    features, z = network(torch.randn(6, 1, 8, 8))
    assert features.shape == (6, 16)
    assert z.shape == (6, 5)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6))


def test_the_head_can_normalise_its_hidden_units() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), 5, batchnorm=True)
    assert network.projection is not None
    hidden: list[torch.Tensor] = []
    normalisation = network.projection[1]  # type: ignore[index]  # a Sequential
    normalisation.register_forward_hook(lambda module, inputs, output: hidden.append(output.clone()))
    network(torch.randn(64, 1, 8, 8))
    torch.testing.assert_close(hidden[0].mean(0), torch.zeros(16), atol=1e-5, rtol=0)


def test_without_a_head_the_features_are_returned() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), None)
    features, z = network(torch.randn(6, 1, 8, 8))
    assert z is features


def test_z_has_unit_length_in_bfloat16() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w8", 1, 8)), 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, z = network(torch.randn(64, 1, 8, 8))
    assert z.dtype == torch.float32
    assert (z.norm(dim=1) - 1).abs().max() < 1e-6
