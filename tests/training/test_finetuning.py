"""Parts of fine-tuning: schedule in two phases, two learning rates, layers that stand still."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.optim import build_layered_optimizer, learning_rate, set_learning_rate
from ttc.training.finetuning import FinetuneNetwork, two_phase_rate


def rate(step: int, linear_steps: int) -> float:
    return two_phase_rate(step, peak=0.5, linear_steps=linear_steps, steps=30, warmup_steps=5)


def test_each_phase_has_its_own_schedule() -> None:
    assert [rate(step, 10) for step in range(10)] == [
        learning_rate(step, peak=0.5, steps=10, warmup_steps=0) for step in range(10)
    ]
    assert [rate(step, 10) for step in range(10, 30)] == [
        learning_rate(step, peak=0.5, steps=20, warmup_steps=5) for step in range(20)
    ]
    assert rate(0, 0) == pytest.approx(0.05)
    assert rate(0, 30) == 0.5  # the encoder never learns, and there is no second phase


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_encoder_and_head_keep_the_ratio_of_their_rates(name: str) -> None:
    network, head = nn.Linear(3, 4), nn.Linear(4, 2)
    rates_given = {"lr": 0.1, "encoder_lr": 0.02, "layer_decay": 1.0, "weight_decay": 0.0}
    optimizer = build_layered_optimizer(name, network, [head], **rates_given)
    set_learning_rate(optimizer, 0.05)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in head.parameters()} == {0.05}
    assert [rates[id(p)] for p in network.parameters()] == pytest.approx([0.01, 0.01])
    again = build_layered_optimizer(name, network, [head], **rates_given)
    again.load_state_dict(optimizer.state_dict())
    assert [group.get("factor") for group in again.param_groups] == [
        group.get("factor") for group in optimizer.param_groups
    ]


def resnet(freeze_until: str | None) -> FinetuneNetwork:
    return FinetuneNetwork(build_encoder(EncoderSpec("resnet18", 1, 16)), freeze_until)


def test_frozen_layers_of_a_resnet_stay_in_eval_mode() -> None:
    network = resnet("layer2").train()
    frozen = [name for name, p in network.encoder.named_parameters() if not p.requires_grad]
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1", "layer2"}
    for name, module in network.encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (name.split(".")[0] in ("layer3", "layer4")), name
    network.eval()
    network.train(True)
    assert not network.encoder.bn1.training
    assert network.encoder.layer3.training


def test_in_the_linear_phase_nothing_is_in_training_mode() -> None:
    network = resnet(None)
    network.learn(False)
    assert not any(module.training for module in network.modules())
    network.train(True)  # as after an evaluation
    assert not any(module.training for module in network.modules())
    network.learn(True)
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        ("layer9", "is no layer with weights; choose one of conv1, bn1, layer1, layer2, layer3"),
        ("layer4", "--freeze-e"),
    ],
)
def test_layers_that_cannot_be_frozen_are_refused(layer: str, part: str) -> None:
    with pytest.raises(ValueError, match=f"--freeze-until {layer}.*{part}"):
        resnet(layer)


def test_gradients_end_at_the_frozen_layers() -> None:
    network = resnet("layer3").train()
    network(torch.rand(2, 1, 16, 16))[0].sum().backward()
    with_gradient = {name.split(".")[0] for name, p in network.encoder.named_parameters() if p.grad is not None}
    assert with_gradient == {"layer4"}
