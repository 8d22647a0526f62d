"""Blocks and stages of encoders: layer decay against timm's, frozen layers, outputs of intermediate layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models.random_weights import needs_timm
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.layers import WithStages, blocks, layer_numbers, stages
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import build_layered_optimizer


def encoder_of(name: str, size: int = 32) -> nn.Module:
    return build_encoder(EncoderSpec(name, 3, size))


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("resnet18", 8, ["layer1", "layer2", "layer3", "layer4"]),
        ("convnext_tiny", 18, ["features.1", "features.3", "features.5", "features.7"]),
        ("squeezenet1_1", 8, [f"features.{n}" for n in (3, 4, 6, 7, 9, 10, 11, 12)]),
        ("convnet-w4", 5, [f"layers.{n}" for n in (0, 3, 6, 9, 12)]),
        pytest.param("timm/test_vit", 6, [f"blocks.{n}" for n in range(6)], marks=needs_timm),
        pytest.param("timm/test_convnext", 9, [f"stages.{n}.blocks" for n in range(4)], marks=needs_timm),
    ],
)
def test_blocks_and_stages(name: str, number: int, expected: list[str]) -> None:
    encoder = encoder_of(name)
    assert len(blocks(encoder)) == number
    assert stages(encoder) == expected


def rates(encoder: nn.Module, factor: float, optimizer: str = "adamw") -> dict[str, float]:
    made = build_layered_optimizer(
        optimizer, encoder, [nn.Linear(3, 2)], lr=1.0, encoder_lr=1.0, layer_decay=factor, weight_decay=0.1
    )
    names = {id(p): name for name, p in encoder.named_parameters()}
    return {
        names[id(p)]: float(group["factor"]) for group in made.param_groups for p in group["params"] if id(p) in names
    }


@needs_timm
@pytest.mark.parametrize("name", ["test_vit", "resnet10t"])
def test_layer_decay_is_timms(name: str) -> None:
    """timm counts the blocks of these models as this project does."""
    import timm
    from timm.optim import param_groups_layer_decay

    encoder = timm.create_model(name, num_classes=0)
    groups = param_groups_layer_decay(encoder, weight_decay=0.1, layer_decay=0.7)
    expected = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    found = rates(encoder, 0.7)
    assert found.keys() == dict(encoder.named_parameters()).keys()
    for key, parameter in encoder.named_parameters():
        assert found[key] == pytest.approx(expected[id(parameter)]), key


def test_layer_decay_falls_from_block_to_block() -> None:
    found = rates(encoder_of("resnet18"), 0.5, "sgd")
    assert found["layer4.1.conv1.weight"] == 1.0
    assert found["layer4.0.downsample.0.weight"] == found["layer4.0.conv1.weight"] == 0.5
    assert found["layer1.0.bn1.bias"] == 0.5**7
    assert found["conv1.weight"] == found["bn1.weight"] == 0.5**8
    # Without any block of several layers, each convolution with its BatchNorm is one.
    plain = rates(encoder_of("convnet-w4"), 0.5)
    assert [plain[f"layers.{n}.weight"] for n in (0, 1, 3, 4, 12, 13)] == [1 / 16, 1 / 16, 1 / 8, 1 / 8, 1, 1]


def test_what_leads_to_a_block_belongs_to_it() -> None:
    numbers = layer_numbers(encoder_of("convnext_tiny"))
    assert numbers["features.0.0.weight"] == 0
    assert numbers["features.1.2.block.0.weight"] == 3
    assert numbers["features.2.1.weight"] == numbers["features.3.0.block.0.weight"] == 4
    assert numbers["classifier.0.weight"] == 18


@needs_timm
def test_adamw_decays_neither_tokens_nor_positions() -> None:
    encoder = encoder_of("timm/test_vit3")
    made = build_layered_optimizer("adamw", encoder, [], lr=1.0, encoder_lr=0.5, layer_decay=0.9, weight_decay=0.1)
    decayed = {id(p) for group in made.param_groups if group["weight_decay"] for p in group["params"]}
    named = dict(encoder.named_parameters())
    spared = {name for name, p in named.items() if id(p) not in decayed}
    assert "pos_embed" in spared
    assert all(named[name].ndim == 1 or "token" in name or name == "pos_embed" for name in spared)
    assert "blocks.0.attn.qkv.weight" not in spared


@pytest.mark.parametrize(
    ("name", "layer", "frozen", "learning"),
    [
        ("resnet18", "layer2.0", "layer2.0.bn2", "layer2.1.bn1"),
        ("convnext_tiny", "features.3", "features.3.2", "features.4"),
        pytest.param("timm/test_vit", "blocks.3", "blocks.3.mlp", "blocks.4.mlp", marks=needs_timm),
    ],
)
def test_any_module_can_be_the_last_frozen_one(name: str, layer: str, frozen: str, learning: str) -> None:
    network = PretrainNetwork(encoder_of(name), 4)
    network.freeze(layer)
    network.train()
    parts = dict(network.encoder.named_modules())
    assert not any(module.training for module in parts[frozen].modules())
    assert all(module.training for module in parts[learning].modules())
    assert not any(p.requires_grad for p in parts[frozen].parameters())
    assert all(p.requires_grad for p in parts[learning].parameters())
    first = next(iter(network.encoder.parameters()))
    assert not first.requires_grad


def test_a_frozen_encoder_stays_in_eval_mode() -> None:
    network = PretrainNetwork(encoder_of("convnet-w4"), 4)
    network.freeze(None)
    network.eval()
    network.train(True)  # as after an evaluation
    assert network.training
    assert network.projection is not None
    assert network.projection.training
    assert not any(module.training for module in network.encoder.modules())


# Outputs of intermediate layers.


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet18", ["layer2", "layer4"]),
        pytest.param("timm/test_vit", ["blocks.2", "norm"], marks=needs_timm),
        pytest.param("timm/test_convnext", ["stages.1"], marks=needs_timm),
    ],
)
def test_stages_come_behind_the_features(name: str, names: list[str]) -> None:
    network = PretrainNetwork(encoder_of(name), 4).eval()
    images = torch.randn(3, 3, 32, 32)
    both = WithStages(network, names)
    with torch.no_grad():
        together, z = both(images)
        features, expected_z = network(images)
        parts = both.split(together)
    assert list(parts) == ["encoder", *names]
    assert torch.equal(z, expected_z)
    assert torch.equal(parts["encoder"], features)
    if name == "resnet18":
        torch.testing.assert_close(parts["layer4"], features)  # a ResNet ends in this very mean
    if name == "timm/test_vit":
        torch.testing.assert_close(parts["norm"], features)  # test_vit uses its class token
    assert not network.encoder._forward_hooks
    assert not both.training


def test_maps_with_channels_behind_are_pooled_over_positions() -> None:
    with torch.no_grad():
        network = PretrainNetwork(encoder_of("swin_t"), 4).eval()
        both = WithStages(network, ["norm"])
        parts = both.split(both(torch.randn(2, 3, 32, 32))[0])
    torch.testing.assert_close(parts["norm"], parts["encoder"])


def test_unknown_layers_are_answered_with_the_stages() -> None:
    with pytest.raises(ValueError, match=r"--layers layer9: .* use layer1, layer2, layer3, layer4"):
        WithStages(PretrainNetwork(encoder_of("resnet18"), 4), ["layer9"])
