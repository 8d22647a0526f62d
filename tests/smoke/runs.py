"""Read what a run wrote."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ttc import checkpoint


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
