"""Read what a run wrote."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import Tensor

from tests.processes import HANGS, Running
from ttc.run import checkpoint


def weights(folder: Path) -> dict[str, Tensor]:
    state = checkpoint.load(folder / "checkpoints" / "last.pt", "pretrain")
    return {**state["encoder"], **{f"objective.{k}": v for k, v in state["objective"].items() if isinstance(v, Tensor)}}


def assert_same_weights(first: Path, second: Path) -> None:
    expected, found = weights(first), weights(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def arguments(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((folder / "args.json").read_text())
    return found


def wait_for_lines(path: Path, count: int, running: Running) -> None:
    """Return when a file has `count` lines."""
    give_up = time.monotonic() + HANGS
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert running.process.exitcode is None, "the run ended before it could be interrupted"
        assert time.monotonic() < give_up
        time.sleep(0.002)
