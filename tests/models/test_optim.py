"""Schedule at its key steps, parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ttc.models.optim import build_optimizer, learning_rate, set_learning_rate


def rate(step: int, steps: int = 100, warmup_steps: int = 10) -> float:
    return learning_rate(step, peak=0.5, steps=steps, warmup_steps=warmup_steps)


def test_schedule_at_its_key_steps() -> None:
    assert rate(0) == pytest.approx(0.05)
    assert rate(5) == pytest.approx(0.5 * 0.55)
    assert rate(10) == pytest.approx(0.5)
    assert rate(55) == pytest.approx((0.5 + 0.0005) / 2)
    assert rate(99) == pytest.approx(0.0005 + 0.4995 * (1 + math.cos(math.pi * 89 / 90)) / 2)
    assert rate(100) == pytest.approx(0.0005)


def test_the_rate_rises_and_then_falls() -> None:
    rates = [rate(step) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) >= 0.0005


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rate(0, warmup_steps=0) == 0.5


def test_schedules_without_room() -> None:
    assert rate(0, steps=1, warmup_steps=0) == 0.5
    # A warm-up as long as the run never arrives.
    assert rate(9, steps=10, warmup_steps=10) == pytest.approx(0.5 * 0.91)


@pytest.mark.parametrize(
    ("step", "steps", "warmup_steps", "message"),
    [
        (-1, 10, 0, "step -1 is outside the run of 10 steps"),
        (11, 10, 0, "step 11 is outside the run of 10 steps"),
        (0, 10, 11, "warmup_steps 11 do not fit into the run of 10 steps"),
        (0, 10, -1, "warmup_steps -1 do not fit"),
        (0, -1, 0, "step 0 is outside the run of -1 steps"),
    ],
)
def test_steps_outside_the_run_are_refused(step: int, steps: int, warmup_steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate(step, steps, warmup_steps)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))


def test_adamw_decays_weights_only() -> None:
    net = network()
    groups = build_optimizer("adamw", [net], lr=0.1, weight_decay=0.3).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
    spared = {id(p) for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    assert decayed == {id(net[0].weight), id(net[2].weight)}  # type: ignore[index]  # a Sequential
    assert decayed | spared == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_sgd_and_adam_decay_everything(name: str) -> None:
    net = network()
    optimizer = build_optimizer(name, [net], lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3]
    assert len(optimizer.param_groups[0]["params"]) == len(list(net.parameters()))


def test_sgd_is_the_papers() -> None:
    assert build_optimizer("sgd", [network()], lr=0.1, weight_decay=0).param_groups[0]["momentum"] == 0.9


def test_frozen_parameters_stay_out_and_all_modules_come_in() -> None:
    first, second = network(), nn.Linear(4, 4)
    first.requires_grad_(False)
    optimizer = build_optimizer("sgd", [first, second], lr=0.1, weight_decay=0.0)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in second.parameters()}


def test_the_rate_reaches_every_group() -> None:
    optimizer = build_optimizer("adamw", [network()], lr=0.1, weight_decay=0.3)
    set_learning_rate(optimizer, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="--optimizer lars is unknown"):
        build_optimizer("lars", [torch.nn.Linear(1, 1)], lr=0.1, weight_decay=0)
