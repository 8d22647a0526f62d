"""Averages of the weights: against sums written out by hand, beside a training that they do not touch, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.steps import assert_continues, trainer
from ttc.models.averaging import WeightAverage, equal_share, exponential_share
from ttc.models.pretrained import load_network
from ttc.run import checkpoint
from ttc.training.training_state import TrainingState

CPU = torch.device("cpu")
STEPS = 8
Weights = dict[str, Tensor]


def start(folder: Path, *words: str) -> tuple[TrainingState, Callable[[int], bool]]:
    """Set up a run whose one epoch has at least STEPS steps."""
    torch.manual_seed(0)
    return trainer(("--epochs", "1", "--batch-size", "32", *words), CPU, folder, images_on_device=False)


def weights_of(state: TrainingState) -> Weights:
    """Copy all tensors of network and objective, named as in a checkpoint."""
    values = {**state.network.state_dict(), **{f"objective.{k}": v for k, v in state.objective.state_dict().items()}}
    return {name: value.clone() for name, value in values.items() if isinstance(value, Tensor)}


def exponential(history: list[Weights], name: str, decay: float) -> Tensor:
    average = history[0][name].double()
    for step, weights in enumerate(history[1:], 1):
        rising = min(decay, (1 + step) / (10 + step))
        average = rising * average + (1 - rising) * weights[name].double()
    return average


def equal(history: list[Weights], name: str, first: int) -> Tensor:
    return sum((weights[name].double() for weights in history[first:]), torch.zeros(())) / (len(history) - first)


@pytest.mark.parametrize(
    ("words", "oracle"),
    [
        (("--ema-decay", "0.3"), lambda history, name: exponential(history, name, 0.3)),
        (("--ema-decay", "1"), lambda history, name: exponential(history, name, 1.0)),
        (("--average-from", "0.25"), lambda history, name: equal(history, name, 4)),  # of 18 steps
    ],
    ids=["held decay", "rising decay", "equal"],
)
def test_the_average_is_the_sum_by_hand_and_training_does_not_notice(
    words: tuple[str, ...], oracle: Callable[[list[Weights], str], Tensor], tmp_path: Path
) -> None:
    words_of_method = "--method tsc --method-settings matching=ema --ce-weight 1 --freeze-until layers.0"
    method = words_of_method.split()
    state, train = start(tmp_path, *method, *words)
    plain, train_plainly = start(tmp_path, *method)
    history = []
    for _ in range(STEPS):
        train(1)
        train_plainly(1)
        history.append(weights_of(state))
        assert all(torch.equal(value, history[-1][name]) for name, value in weights_of(plain).items())
    with state.evaluated():
        evaluated = weights_of(state)
    assert all(torch.equal(value, history[-1][name]) for name, value in weights_of(state).items())
    learned = {name for name, parameter in state.network.named_parameters() if parameter.requires_grad}
    learned |= {f"objective.{name}" for name, _ in state.objective.named_parameters()}
    statistics = {name for name in history[-1] if name.endswith(("running_mean", "running_var"))}
    assert {"encoder.layers.0.weight"} | {"objective.extra_terms.cross_entropy.head.weight"} <= history[-1].keys()
    for name, value in evaluated.items():
        if name in learned | statistics:
            torch.testing.assert_close(value.double(), oracle(history, name), rtol=1e-5, atol=1e-7)
            assert not torch.equal(value, history[-1][name]), name
        else:  # frozen, counted, or of the objective's own memory
            assert torch.equal(value, history[-1][name]), name


def test_shares_of_the_newest_weights() -> None:
    assert [exponential_share(step, decay=0.5) for step in (0, 1, 2, 8, 100)] == pytest.approx(
        [1, 9 / 11, 9 / 12, 0.5, 0.5]
    )
    assert exponential_share(890, decay=1.0) == pytest.approx(0.01)
    assert [equal_share(step, first=2) for step in range(6)] == [1, 1, 1, 1 / 2, 1 / 3, 1 / 4]


@pytest.mark.parametrize("words", [("--ema-decay", "0.9"), ("--average-from", "0.3")], ids=" ".join)
def test_a_resumed_run_is_the_uninterrupted_one_and_its_checkpoint_holds_both(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    more = ("--method", "paco", *words)
    whole = assert_continues(partial(start, tmp_path, *more), tmp_path, STEPS)

    state = checkpoint.load(tmp_path / "whole" / "last.pt", "pretrain")
    raw = weights_of(whole)
    with whole.evaluated():
        evaluated = weights_of(whole)
    network, _, _ = load_network(str(tmp_path / "whole" / "last.pt"), CPU)
    assert all(torch.equal(value, evaluated[name]) for name, value in network.state_dict().items())
    assert torch.equal(state["objective"]["head.weight"], evaluated["objective.head.weight"])
    for part in ("encoder", "projection", "objective"):
        for name, value in state["raw"][part].items():
            assert not isinstance(value, Tensor) or torch.equal(value, raw[f"{part}.{name}"])
    assert state["raw"]["objective"].keys() == state["objective"].keys()


@pytest.mark.parametrize("part", ["raw", "encoder", "projection"])
def test_a_checkpoint_without_a_part_is_refused(part: str, tmp_path: Path) -> None:
    state, train = start(tmp_path, "--ema-decay", "0.9")
    train(1)
    state.save(tmp_path)
    damaged = checkpoint.load(tmp_path / "last.pt", "pretrain")
    del damaged[part]
    checkpoint.save(tmp_path / "last.pt", "pretrain", damaged)
    again, _ = start(tmp_path, "--ema-decay", "0.9")
    with pytest.raises(ValueError, match=f"has missing or wrong parts \\(KeyError: '{part}'\\)"):
        again.resume(tmp_path, "auto")


def test_without_a_step_there_is_nothing_to_average(tmp_path: Path) -> None:
    state, _ = start(tmp_path, "--ema-decay", "0.9")
    before = weights_of(state)
    assert isinstance(state.average, WeightAverage)
    with state.evaluated():
        assert all(torch.equal(value, before[name]) for name, value in weights_of(state).items())
    state.save(tmp_path)
    assert "raw" not in checkpoint.load(tmp_path / "last.pt", "pretrain")
    again, _ = start(tmp_path, "--ema-decay", "0.9")
    again.resume(tmp_path, "auto")
