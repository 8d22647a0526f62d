"""The first step of pretrain.py leaves the same weights for one, two and three processes, whatever the method."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from tests.reliability.ranks import finish
from tests.smoke.runs import metrics
from ttc.losses import METHODS, settings_of
from ttc.run import checkpoint

# One batch is an epoch, and an epoch the run; the rare images do not share out evenly.
WORDS = ("--class-ratios", 0.85, 0.15, "--train-samples", 60, "--batch-size", 60, "--metrics-every-epochs", 0)
ONE, NONE = ("--epochs", 1, "--warmup-epochs", 0), ("--epochs", 0)


def weights(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of floats that the checkpoint keeps of network, objective and optimizer."""
    state = checkpoint.load(folder / "run" / "checkpoints" / "last.pt", "pretrain")
    parts = {name: state[name] or {} for name in ("encoder", "projection", "objective")}
    parts["optimizer"] = {
        f"{number}.{key}": value for number, each in state["optimizer"]["state"].items() for key, value in each.items()
    }
    return {
        f"{part}.{key}": value.double()
        for part, values in parts.items()
        for key, value in values.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


@pytest.mark.parametrize(
    "method",
    # tests/ranks/test_parity.py compares every method; these have key networks, sub-classes, terms of their own.
    [name if name in ("supmin", "paco", "sbc") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_the_first_step_does_not_depend_on_the_number_of_processes(method: str, tmp_path: Path) -> None:
    words = ("--method", method, *WORDS)
    if "warmup_epochs" in settings_of(method):  # so that the first epoch has the sub-classes
        words += ("--method-settings", "warmup_epochs=0")
    folders = {name: tmp_path / name for name in ("start", "1", "2", "3")}
    for name, folder in folders.items():
        folder.mkdir()
        size, length = (1, NONE) if name == "start" else (int(name), ONE)
        finish(size, *words, *length, "--output", "run", folder=folder)
    start, alone = weights(folders["start"]), weights(folders["1"])
    moved = {key: float((value - start[key]).abs().max()) for key, value in alone.items() if key in start}
    assert sum(each > 0 for each in moved.values()) > 10, moved
    (expected,) = metrics(folders["1"] / "run")
    for size in ("2", "3"):
        found = weights(folders[size])
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            # In float32, and in proportion to what the step has changed.
            off = float((found[key] - value).abs().max())
            assert off <= 2e-4 * moved.get(key, float(value.abs().max())) + 1e-7, f"{size} processes: {key}"
        (line,) = metrics(folders[size] / "run")
        assert line == pytest.approx(expected, rel=1e-5), size
