"""Methods that change on the way do so at the same step in a run that was stopped and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.processes import run
from tests.smoke.runs import metrics
from tests.steps import trainer

CPU = torch.device("cpu")
# Several epochs, and the change of ldam-drw in the middle of one.
WORDS = ("--epochs", "4", "--train-samples", "160", "--class-ratios", "0.8", "0.2")
SETTINGS = {"ldam-drw": ("--method-settings", "drw_start=0.6"), "proco": ()}
STEPS, CHANGE = 20, 12


def after(method: str, folder: Path, *stops: int, settings: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Train all steps in several processes' worth of states, each of which takes over the one before."""
    words = ("--method", method, *WORDS, *(SETTINGS.get(method, ()) if settings is None else settings))
    for first, last in zip((0, *stops), (*stops, STEPS), strict=True):
        torch.manual_seed(0)
        state, train = trainer(words, CPU, folder, images_on_device=False)
        state.resume(folder, "auto")
        assert state.step == first
        train(last - first)
        state.save(folder)
    network = state.network.state_dict()
    own = {key: value for key, value in state.objective.state_dict().items() if isinstance(value, Tensor)}
    return network | {f"objective.{key}": value for key, value in own.items()}


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return not all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("method", SETTINGS)
def test_a_continued_run_is_the_uninterrupted_one(method: str, tmp_path: Path) -> None:
    whole = after(method, tmp_path / "whole")
    for number, stops in enumerate(((CHANGE - 1, CHANGE), (7, 13))):
        assert not differ(after(method, tmp_path / str(number), *stops), whole), stops


def test_ldam_counts_the_images_of_the_data_and_the_steps_of_the_run(tmp_path: Path) -> None:
    words = ("--method", "ldam-drw", *WORDS, *SETTINGS["ldam-drw"])
    natural, _ = trainer(words, CPU, tmp_path, images_on_device=False)
    balanced, _ = trainer((*words, "--batch-sampler", "balanced"), CPU, tmp_path, images_on_device=False)
    margins, weights = natural.objective.get_buffer("margins_K"), natural.objective.get_buffer("class_weights_K")
    assert natural.objective.first_weighted_step == CHANGE
    assert margins.tolist() == pytest.approx([0.5 * (32 / 128) ** 0.25, 0.5])
    assert weights[1] / weights[0] == pytest.approx(128 / 32, rel=0.01)
    assert torch.equal(balanced.objective.get_buffer("margins_K"), margins)
    assert balanced.objective.get_buffer("class_weights_K").tolist() == pytest.approx([1.0, 1.0])


def test_the_collapse_value_ends_with_the_phase_that_has_one(tmp_path: Path) -> None:
    """SBC is SupCon in its first epoch; what came of that must not stand in the result, nor end a run later."""
    words = ("--method", "sbc", "--method-settings", "warmup_epochs=1", "every=1", "--epochs", 3, "--batch-size", 64)
    words += ("--metrics-every-epochs", 1, "--output", "run")
    done = run("pretrain", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["collapse_value"] is None
    assert "train/loss_over_collapse" not in result
    logged = [line for line in metrics(tmp_path / "run") if "train/loss" in line]
    assert {line["epoch"] for line in logged if "train/loss_over_collapse" in line} <= {0, 1}
    assert any("train/loss_over_collapse" in line for line in logged)
