"""Encoders by name: what is built, what it takes, and one round from training to probe for every family."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.models.random_weights import description_of, needs_timm
from ttc.losses import build_objective
from ttc.models.adapt import first_convolution, fit_channels
from ttc.models.batchnorm import running_statistics_moving_by
from ttc.models.encoders import EncoderSpec, build_encoder, families, family_of
from ttc.models.layers import recompute_blocks
from ttc.models.networks import PretrainNetwork

SMALL = [
    ("squeezenet1_1", 32),
    ("mobilenet_v3_small", 32),
    pytest.param("timm/test_vit", 32, marks=needs_timm),
    pytest.param("timm/test_convnext", 32, marks=needs_timm),
]
"""Models that build in a blink, by their smallest allowed size."""


def torchvision_names() -> list[str]:
    return family_of("alexnet").names()


SMALLEST = {"alexnet": 64, "maxvit_t": 224, "densenet": 32, "inception_v3": 48, "vgg": 32, "vit_h_14": 28}

TIMM = {
    "resnet10t": 32,
    "convnext_atto": 32,
    "efficientnet_b0": 32,
    "vit_tiny_patch16_224": 32,
    "vit_small_patch14_reg4_dinov2": 28,
    "swin_tiny_patch4_window7_224": 56,
    "maxvit_pico_rw_256": 64,
    "mobilenetv4_conv_small_050": 32,
    "regnetx_002": 32,
    "coatnet_nano_rw_224": 32,
    "mixer_s32_224": 64,
    "eva02_tiny_patch14_224": 28,
    "hiera_tiny_224": 32,
    "test_nfnet": 32,
}


def smallest(name: str) -> int:
    return next((size for start, size in SMALLEST.items() if name.startswith(start)), 32)


def everything() -> Iterator[object]:
    for name in torchvision_names():
        yield pytest.param(name, smallest(name), marks=pytest.mark.slow)
    for name, size in TIMM.items():
        yield pytest.param(f"timm/{name}", size, marks=[pytest.mark.slow, needs_timm])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "size"), [*SMALL, *everything()])
def test_a_round_from_training_to_probe(name: str, size: int, channels: int) -> None:
    """One step of supmin moves every weight; saved and loaded, the encoder gives the same features in eval mode."""
    torch.manual_seed(0)
    if channels == 1 and name.startswith(("regnet_y_128gf", "vit_h", "vit_l", "regnet_y_32gf")):
        pytest.skip("gigabytes; once is enough")
    spec = EncoderSpec(name, channels, size)
    network = PretrainNetwork(build_encoder(spec), 8)
    objective = build_objective(
        "supmin", num_classes=2, minority_class=1, class_counts=[6, 2], feature_dim=network.feature_dim,
        projection_dim=8, seed=0,
    )  # fmt: skip
    views, labels = torch.randn(4, 2, channels, size, size), torch.tensor([0, 1, 0, 1])
    features, z = network(views.flatten(0, 1))
    assert features.shape == (8, network.feature_dim)
    loss = objective(z.unflatten(0, (4, 2)), labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss.backward()
    optimizer.step()
    lacking = [key for key, p in network.encoder.named_parameters() if p.grad is None]
    assert not lacking or name.startswith(("timm/hiera", "timm/test_vit", "timm/vit")), lacking
    assert loss.isfinite()

    network.eval()
    again = description_of(spec).network()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected, found = network.encoder(views[:, 0]), again.eval().encoder(views[:, 0])
    assert torch.equal(found, expected)
    assert found.isfinite().all()
    probe = torch.linalg.lstsq(found.double(), torch.eye(2, dtype=torch.float64)[labels]).solution
    assert probe.shape == (network.feature_dim, 2)


def test_every_family_offers_names_of_its_own() -> None:
    for family in families():
        examples = {"convnet-w16 (any width)": "convnet-w16"}
        for name in family.names()[:3]:
            assert [other.has(examples.get(name, name)) for other in families()].count(True) == 1
    assert len(torchvision_names()) > 70


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 65), (1, 224)])
def test_resnets_are_what_they_always_were(channels: int, size: int) -> None:
    """Written out as the first version did: the same draws in the same order."""
    from torchvision import models

    torch.manual_seed(3)
    expected = models.resnet18(weights=None)
    if size <= 64:
        expected.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    elif channels == 1:
        expected.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    if size <= 64 or channels == 1:
        nn.init.kaiming_normal_(expected.conv1.weight, mode="fan_out", nonlinearity="relu")
    expected.fc = nn.Identity()
    torch.manual_seed(3)
    state = build_encoder(EncoderSpec("resnet18", channels, size)).state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(value, state[key]) for key, value in expected.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "part"),
    [
        ("alexnet", 32, "it takes 48 px and more"),
        ("maxvit_t", 64, "it takes 224, 448 px"),
        pytest.param("timm/test_vit", 40, "it takes 16, 32, 48, 64", marks=needs_timm),
    ],
)
def test_sizes_that_a_model_cannot_take_are_refused_with_those_it_can(name: str, size: int, part: str) -> None:
    with pytest.raises(ValueError, match=f"--image-size {size} does not fit --encoder {name}; {part}") as caught:
        build_encoder(EncoderSpec(name, 3, size))
    assert "\n" not in str(caught.value)


@needs_timm
def test_one_dynamic_vit_takes_several_sizes_with_one_set_of_weights() -> None:
    first = build_encoder(EncoderSpec("timm/test_vit", 3, 32))
    second = build_encoder(EncoderSpec("timm/test_vit", 3, 64))
    second.load_state_dict(first.state_dict())
    assert second(torch.randn(2, 3, 64, 64)).shape == (2, second.feature_dim)


def test_channels_are_summed_or_shared_out() -> None:
    weight = torch.randn(5, 3, 3, 3)
    grey, four = fit_channels(weight, 1), fit_channels(weight, 4)
    image = torch.randn(2, 1, 8, 8)
    convolve = nn.functional.conv2d
    torch.testing.assert_close(convolve(image, grey), convolve(image.expand(-1, 3, -1, -1), weight))
    back = fit_channels(grey, 3)
    torch.testing.assert_close(convolve(image.expand(-1, 3, -1, -1), back), convolve(image, grey))
    assert four.shape == (5, 4, 3, 3)
    torch.testing.assert_close(four[:, 3], weight[:, 0] * 3 / 4)


@pytest.mark.parametrize(("name", "stride", "small"), [("mobilenet_v3_small", 2, 1), ("convnext_tiny", 4, 2)])
def test_small_images_get_half_the_first_stride(name: str, stride: int, small: int) -> None:
    with torch.device("meta"):
        for size, stem, expected in ((32, "auto", small), (65, "auto", stride), (32, "imagenet", stride)):
            _, first = first_convolution(family_of(name).build(EncoderSpec(name, 3, size, stem), 0.0))
            assert first.stride == (expected, expected)


def test_stems_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="--stem small: --encoder swin_t has no smaller first stride"):
        build_encoder(EncoderSpec("swin_t", 3, 32, "small"))


def test_without_timm_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(ValueError, match="--encoder timm/nothing needs timm; pip install timm"):
        build_encoder(EncoderSpec("timm/nothing", 3, 32))


@needs_timm
def test_unknown_models_of_timm_are_answered_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"--encoder timm/convnext_atomic: .*has no such model; it has .*convnext"):
        build_encoder(EncoderSpec("timm/convnext_atomic", 3, 32))


# Regularisation and memory.


@pytest.mark.parametrize("name", ["convnext_tiny", pytest.param("timm/test_convnext", marks=needs_timm)])
def test_drop_path_rises_with_depth_and_is_off_by_default(name: str) -> None:
    def rates(drop_path: float) -> list[float]:
        encoder = build_encoder(EncoderSpec(name, 3, 32), drop_path)
        return [
            float(getattr(module, "p", getattr(module, "drop_prob", 0.0)))
            for module in encoder.modules()
            if type(module).__name__ in ("StochasticDepth", "DropPath")
        ]

    assert not any(rates(0.0))
    found = rates(0.3)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["convnet-w4", "resnet18", pytest.param("timm/vgg11", marks=needs_timm)])
def test_drop_path_without_branches_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"--drop-path 0\.1: --encoder"):
        build_encoder(EncoderSpec(name, 3, 32), 0.1)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 16), *SMALL[1:]])
def test_recomputing_blocks_changes_neither_gradients_nor_statistics(name: str, size: int) -> None:
    spec = EncoderSpec(name, 1, size)
    images, gradients, buffers = torch.randn(4, 1, size, size, dtype=torch.float64), [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder(spec).double()
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.3
        if recompute:
            recompute_blocks(encoder, name)
        torch.manual_seed(1)
        encoder(images).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
        buffers.append([buffer.clone() for buffer in encoder.buffers()])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(one, other) for one, other in zip(*buffers, strict=True))


def test_recomputing_blocks_keeps_less() -> None:
    def kept(recompute: bool) -> int:
        encoder, sizes = build_encoder(EncoderSpec("resnet18", 1, 32)), {}
        if recompute:
            recompute_blocks(encoder, "resnet18")

        def count(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images = torch.randn(8, 1, 32, 32)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = encoder(images)
        parameters = {p.data_ptr() for p in encoder.parameters()}
        assert out.requires_grad
        return sum(size for pointer, size in sizes.items() if pointer not in parameters)

    assert kept(True) < 0.6 * kept(False)


def test_networks_without_blocks_have_nothing_to_recompute() -> None:
    with pytest.raises(ValueError, match="--grad-checkpointing: --encoder convnet-w4 has no blocks"):
        recompute_blocks(build_encoder(EncoderSpec("convnet-w4", 1, 8)), "convnet-w4")


def test_frozen_batchnorm_is_not_counted() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), 4)
    network.freeze(None)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    network.train()
    with running_statistics_moving_by(network, 0.5):
        network(torch.randn(8, 1, 8, 8))[1].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    assert all(p.grad is None for p in network.encoder.parameters())
