"""Which weights the numbers of a fine-tuned run belong to: thresholds and calibrator of others are refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ttc.evaluation.probe import tensors_digest
from ttc.run import checkpoint, files, readers

log = logging.getLogger("ttc")


def checkpoint_of(path: str) -> str:
    """Return the checkpoint of a run folder: best.pt of a fine-tuned run, else last.pt; a file stands for itself."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    inside = folder if folder.name == "checkpoints" else folder / "checkpoints"
    for name in ("best.pt", "last.pt"):
        if (inside / name).is_file():
            return str(inside / name)
    raise ValueError(f"--checkpoint {path} holds no checkpoints/last.pt; name a run folder or a .pt file")


def weights_digest(encoder: Mapping[str, Tensor], objective: Mapping[str, Tensor]) -> str:
    """Return the sha256 of all tensors of an encoder and of the objective, whose classifier is on top of it."""
    parts = {"encoder": encoder, "objective": objective}
    return tensors_digest({f"{part}.{name}": each for part, tensors in parts.items() for name, each in tensors.items()})


def digest_of(state: checkpoint.State) -> str:
    """Return `weights_digest` of a checkpoint."""
    return weights_digest(state["encoder"], state["objective"])


def reported_state(path: str, state: checkpoint.State) -> checkpoint.State:
    """Return what the checkpoint holds that the results of its fine-tuned run are about.

    Args:
        path: of a checkpoint that was asked for.
        state: what it holds.

    Returns:
        `state`, or best.pt's where that has the same weights and a calibrator; that of pretraining, or of a run without
        result, as it is.

    Raises:
        ValueError: its weights are not those that the run's result, thresholds and calibrator are about.
    """
    file, run = Path(path).resolve(), files.folder_of(path)
    if state["kind"] != checkpoint.FINETUNE or not (run / "result.json").is_file():
        return state
    best = run / "checkpoints" / "best.pt"
    is_best = file == best
    reported = readers.read_result(run / "result.json", run).get("weights_sha256")
    best_state = state if is_best or not best.is_file() else checkpoint.load(best, checkpoint.FINETUNE)
    with checkpoint.contents(Path(path)):
        if reported is None:
            log.warning("%s is of an earlier version and does not name its weights; taken for those of best.pt", run)
            reported = digest_of(best_state) if best.is_file() else None
        if digest_of(state) != reported:
            remedy = f"use {best}" if not is_best and best.is_file() else "fine-tune again in a new folder"
            raise ValueError(
                f"--checkpoint {path} holds other weights than those that validation chose, to which result, "
                f"thresholds and calibrator of {run} belong; {remedy}"
            )
    return best_state if digest_of(best_state) == reported else state
