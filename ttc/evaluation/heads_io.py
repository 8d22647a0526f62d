"""Linear heads on disk: what linear_eval.py fits on the encoder's features, for use on new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ttc.evaluation.probe import FittedProbe
from ttc.run import checkpoint

KIND = "heads"
"""Kind of the files that `save_heads` writes."""

_ARRAYS = ("mean", "scale", "weight", "bias")


@dataclass(frozen=True)
class Heads:
    """Linear heads that belong to one encoder.

    Attributes:
        heads: by the name of the probe.
        class_names: in label order.
        positive_class: the class whose probability is the score.
        encoder_sha256: `module_digest` of the network that the heads were fitted on.
    """

    heads: dict[str, FittedProbe]
    class_names: list[str]
    positive_class: int
    encoder_sha256: str


def save_heads(
    path: Path, heads: Mapping[str, FittedProbe], class_names: list[str], positive_class: int, *, encoder_sha256: str
) -> None:
    """Write heads as a checkpoint of plain tensors; see `Heads` for the arguments."""
    tensors = {
        name: {array: torch.from_numpy(getattr(head, array)) for array in _ARRAYS} | {"strength": head.strength}
        for name, head in heads.items()
    }
    description = {"class_names": class_names, "positive_class": positive_class, "encoder_sha256": encoder_sha256}
    checkpoint.save(path, KIND, {"heads": tensors, **description})


def load_heads(path: Path) -> Heads:
    """Read what `save_heads` wrote.

    Raises:
        ValueError: missing, damaged or another kind of file.
    """
    state = checkpoint.load(path, KIND)
    heads = {
        name: FittedProbe(**{array: stored[array].numpy() for array in _ARRAYS}, strength=stored["strength"])
        for name, stored in state["heads"].items()
    }
    return Heads(heads, state["class_names"], state["positive_class"], state["encoder_sha256"])
