"""Sharpness-aware steps: against the two passes written out by hand, in pretrain.py's loop, and resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.steps import assert_continues, trainer
from ttc.losses import Objective, build_objective
from ttc.models.optim import step_optimizer
from ttc.models.sharpness import gradient_passes
from ttc.training.training_state import TrainingState

CPU = torch.device("cpu")
RHO, RATE, MOMENTUM, DECAY = 0.3, 0.1, 0.9, 0.01
COUNT = 12
LABELS = torch.arange(COUNT) % 3 // 2


def small() -> tuple[nn.Sequential, Objective]:
    """Return a network with BatchNorm and dropout, and a classifier's loss with a memory of how often it was asked."""
    torch.manual_seed(1)
    layers = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 4)
    objective = build_objective("tsc", num_classes=2, projection_dim=4, feature_dim=4, matching="ema", ce_weight=1.0)
    return nn.Sequential(*layers).double(), objective.double()


def batch(step: int) -> Tensor:
    return torch.randn(COUNT, 2, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def loss_of(network: nn.Module, objective: Objective, step: int) -> Tensor:
    features = network(batch(step).flatten(0, 1)).unflatten(0, (COUNT, 2))
    loss: Tensor = objective(functional.normalize(features, dim=2), LABELS, features=features)
    return loss


def by_hand(network: nn.Module, objective: Objective, steps: int) -> list[float]:
    """Take steps as the paper writes them, with SGD spelled out; return the losses at the weights."""
    weights = [*network.parameters(), *objective.parameters()]
    velocity = [torch.zeros_like(weight) for weight in weights]
    losses = []
    for step in range(steps):
        objective.on_step(0, step)
        before = torch.get_rng_state()
        loss = loss_of(network, objective, step)
        losses.append(float(loss.detach()))
        ascent = torch.autograd.grad(loss, weights)
        length = sum(float((part**2).sum()) for part in ascent) ** 0.5
        buffers = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
        after, noted = torch.get_rng_state(), objective._class_sums
        for weight, part in zip(weights, ascent, strict=True):
            weight.data += RHO / length * part
        torch.set_rng_state(before)
        gradients = torch.autograd.grad(loss_of(network, objective, step), weights)
        assert torch.equal(torch.get_rng_state(), after)
        for weight, part, gradient, speed in zip(weights, ascent, gradients, velocity, strict=True):
            weight.data -= RHO / length * part
            speed.mul_(MOMENTUM).add_(gradient + DECAY * weight.data)
            weight.data -= RATE * speed
        network.load_state_dict(buffers, strict=False)
        network[1].num_batches_tracked -= 1  # type: ignore[index,operator]  # a Sequential
        objective._class_sums = noted  # type: ignore[assignment]  # of the first pass
        objective.after_step(network)
    return losses


def test_steps_are_those_of_the_paper() -> None:
    network, objective = small()
    expected = copy.deepcopy(network), copy.deepcopy(objective)
    torch.manual_seed(2)
    losses = by_hand(*expected, steps=4)
    drawn = torch.get_rng_state()
    parameters = [*network.parameters(), *objective.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    torch.manual_seed(2)
    for step in range(4):
        objective.on_step(0, step)
        passes = []
        for first in gradient_passes(RHO, optimizer, network, objective):
            loss = loss_of(network, objective, step)
            passes.append((first, float(loss.detach())))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()
        objective.after_step(network)
        assert passes[0] == (True, pytest.approx(losses[step], rel=1e-9))
        assert not passes[1][0]
        assert passes[1][1] > passes[0][1]  # uphill
        total = sum(weight * float(objective.terms[name]) for name, weight in objective.weights.items())
        assert total == pytest.approx(passes[0][1], rel=1e-9)  # what is logged is the first pass's
    assert torch.equal(torch.get_rng_state(), drawn)
    for found, wanted in zip((network, objective), expected, strict=True):
        for name, value in wanted.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**127])
def test_the_scale_of_half_precision_changes_nothing_and_an_overflow_leaves_the_step_out(scale: float) -> None:
    network, objective = small()
    network.float()
    objective.float().validate = False  # as in the scripts: what overflows must not end the run
    plain, plain_objective = copy.deepcopy(network), copy.deepcopy(objective)
    before = {name: value.clone() for name, value in network.named_parameters()}
    scalers = torch.amp.GradScaler("cpu", init_scale=scale), torch.amp.GradScaler("cpu", enabled=False)
    for parts, scaler in zip(((network, objective), (plain, plain_objective)), scalers, strict=True):
        optimizer = torch.optim.SGD([p for part in parts for p in part.parameters()], lr=RATE)
        torch.manual_seed(2)
        for _ in gradient_passes(RHO, optimizer, *parts):
            features = parts[0](batch(0).float().flatten(0, 1)).unflatten(0, (COUNT, 2))
            loss = parts[1](functional.normalize(features, dim=2), LABELS, features=features)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
        step_optimizer(optimizer, scaler)
    overflowed = scale > 2.0**100
    assert scalers[0].get_scale() == scale * (0.5 if overflowed else 1.0)
    for name, value in network.named_parameters():
        if overflowed:
            assert torch.equal(value, before[name]), name
        else:
            torch.testing.assert_close(value, plain.get_parameter(name), msg=name)


def start(folder: Path, *words: str) -> tuple[TrainingState, Callable[[int], bool]]:
    torch.manual_seed(0)
    return trainer(("--epochs", "1", *words), CPU, folder, images_on_device=False)


def counters(module: nn.Module) -> list[int]:
    return [int(value) for name, value in module.named_buffers() if name.endswith("num_batches_tracked")]


@pytest.mark.parametrize(
    "words", [(), ("--micro-batch-size", "16"), ("--precision", "bf16")], ids=lambda words: " ".join(words) or "plain"
)
def test_what_remembers_remembers_each_batch_once(words: Sequence[str], tmp_path: Path) -> None:
    state, train = start(tmp_path, "--method", "paco", "--sam-rho", "0.1", *words)
    plain, train_plainly = start(tmp_path, "--method", "paco", *words)
    train(1)
    train_plainly(1)
    for name, value in plain.network.named_buffers():
        assert torch.equal(state.network.get_buffer(name), value), name
    for name, value in plain.objective.named_buffers():  # the queue, and the momentum network's statistics
        assert torch.equal(state.objective.get_buffer(name), value), name
    assert state.objective.get_extra_state() == plain.objective.get_extra_state() == {"filled": 32, "cursor": 32}
    for name, value in plain.objective.terms.items():
        assert torch.equal(state.objective.terms[name], value), name
    assert not torch.equal(next(state.network.parameters()), next(plain.network.parameters()))
    train(2)
    assert set(counters(state.network)) == {3}


def settle(state: TrainingState) -> None:
    """Give a frozen encoder statistics under which its features differ."""
    encoder, noise = state.network.encoder, torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nn.Module.train(encoder)
    with torch.no_grad():
        for _ in range(30):
            encoder(noise)
    state.network.train()


def test_micro_batches_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """With frozen statistics of BatchNorm, whose micro-batches are batches of their own."""
    words = ("--freeze-encoder", "--ce-weight", "1", "--sam-rho", "0.5")
    whole, train_whole = start(tmp_path, *words)
    pieces, train_pieces = start(tmp_path, *words, "--micro-batch-size", "8")
    plain, train_plainly = start(tmp_path, *words[:3])
    for state, train in ((whole, train_whole), (pieces, train_pieces), (plain, train_plainly)):
        settle(state)
        train(2)
    assert whole.network.projection is not None
    for name, value in whole.network.projection.named_parameters():
        torch.testing.assert_close(pieces.network.get_parameter(f"projection.{name}"), value, rtol=1e-4, atol=1e-6)
        assert (plain.network.get_parameter(f"projection.{name}") - value).abs().max() > 1e-5


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    words = ("--method", "tsc", "--method-settings", "matching=ema", "--sam-rho", "0.1", "--ema-decay", "0.9")
    assert_continues(partial(start, tmp_path, *words), tmp_path, 6)
