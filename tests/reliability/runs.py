"""Compare what two runs wrote, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tests.smoke.runs import metrics
from ttc.run import checkpoint


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the parts of nested dicts and lists with their names."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from leaves(each, f"{name}/{number}")
    else:
        yield name, value


def assert_same_state(first: Path, second: Path) -> None:
    """Compare two checkpoints: weights, objective, optimizer, generators, step; all but the seconds they took."""
    states = [checkpoint.load(path, "pretrain") for path in (first, second)]
    for state in states:
        del state["seconds"], state["args"]
    expected, found = (dict(leaves(state)) for state in states)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        same = torch.equal(value, found[name]) if isinstance(value, Tensor) else value == found[name]
        assert same, f"{name} of {first} and {second}"


def assert_same_history(first: Path, second: Path, last: int) -> None:
    """Compare the lines of two metrics files up to a step."""
    expected, found = ([line for line in metrics(folder) if line["step"] <= last] for folder in (first, second))
    for one, other in zip(expected, found, strict=True):
        assert one == other, f"step {one['step']}"
    steps = [line["step"] for line in found]
    assert steps == sorted(steps)
    assert steps[-1] == last


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows of a run: key -> steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0})
    events.Reload()
    return {key: [(event.step, event.value) for event in events.Scalars(key)] for key in events.Tags()["scalars"]}
