"""All that changes while a run trains, saved and restored as one."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ttc import distributed
from ttc.losses.objective import Objective
from ttc.models.averaging import WeightAverage
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.run import checkpoint
from ttc.run.folder import differing, shorten

_log = logging.getLogger("ttc")


@dataclass
class TrainingState:
    """The parts of a run: what a checkpoint holds.

    Attributes:
        network: encoder and head, not wrapped.
        objective: with its buffers and parameters.
        optimizer: with its momentum.
        scaler: of the mixed precision.
        description: what the run is.
        arguments: flag -> value as given.
        step: optimizer steps taken.
        epoch: epochs completed.
        seconds: training time of the processes before this one.
        latest: the newest numbers that were logged, for the result.
        pending: losses since the last log step, of a run that was stopped between two; see `LossMonitor.pending`.
        kind: of its checkpoints.
        extra: what else the script keeps; tensors and plain values.
        resumed_from: the checkpoint that the run continues from; None for a fresh start.
        average: of the weights; None where the weights themselves are evaluated.
    """

    network: PretrainNetwork
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    description: Description
    arguments: Mapping[str, object]
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    latest: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Any] = field(default_factory=dict)
    kind: str = checkpoint.PRETRAIN
    extra: dict[str, Any] = field(default_factory=dict)
    resumed_from: Path | None = None
    average: WeightAverage | None = None
    _started: float = field(default_factory=time.perf_counter)

    def elapsed(self) -> float:
        """Return the training time in seconds, over all resumes."""
        return self.seconds + time.perf_counter() - self._started

    def evaluated(self) -> AbstractContextManager[None]:
        """Return the context in which network and objective hold the weights that are evaluated."""
        return nullcontext() if self.average is None else self.average.in_use()

    def save(self, folder: Path, keep_as: str | None = None) -> None:
        """Write `last.pt` (keeping the one before as `previous.pt`) and, with a name, a copy that stays.

        Every rank must call it: the state of the random generators is collected from all of them.
        """
        state = self._collect()
        if distributed.rank() != 0:
            return
        checkpoint.save(folder / "last.pt", self.kind, state, keep_previous=folder / "previous.pt")
        if keep_as is not None:
            checkpoint.save(folder / keep_as, self.kind, state)

    def save_copy(self, path: Path) -> None:
        """Write a checkpoint that no run continues from; every rank must call it."""
        state = self._collect()
        if distributed.rank() == 0:
            checkpoint.save(path, self.kind, state)

    def _collect(self) -> checkpoint.State:
        device = next(self.network.parameters()).device
        rng = distributed.gather(torch.get_rng_state().to(device)).cpu().chunk(distributed.world_size())
        projection = self.network.projection
        weights: checkpoint.State = {
            "encoder": self.network.encoder.state_dict(),
            "projection": None if projection is None else projection.state_dict(),
            "objective": self.objective.state_dict(),
        }
        if self.average is not None and self.step:
            weights = {**self.average.in_place_of(weights), "raw": weights}
        return {
            **weights,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "seconds": self.elapsed(),
            "latest": self.latest,
            "pending": self.pending,
            "extra": self.extra,
            "rng": [rank_state.clone() for rank_state in rng],
            "args": dict(self.arguments),
            "description": asdict(self.description),
        }

    def resume(self, folder: Path, source: str) -> None:
        """Take over what a checkpoint holds, and note it as `resumed_from`.

        Args:
            folder: the run's checkpoint folder.
            source: "auto" or "never" (the folder's newest checkpoint, if any), or the path of a checkpoint.

        Raises:
            ValueError: the checkpoint cannot be used, belongs to another run, or is not the same one on all ranks.
        """
        self.resumed_from = self._find(folder, source)
        steps = distributed.gather(torch.tensor([self.step], device=next(self.network.parameters()).device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"the processes read checkpoints of different steps ({shorten(steps)}) from "
                f"{self.resumed_from or folder}; use an --output that all hosts share"
            )

    def _find(self, folder: Path, source: str) -> Path | None:
        if source in ("auto", "never"):
            loaded = checkpoint.load_latest(folder, self.kind)
        else:
            loaded = checkpoint.load(Path(source), self.kind), Path(source)
        if loaded is None:
            return None
        state, path = loaded
        with checkpoint.contents(path):
            self._take(state, path, explicit=source not in ("auto", "never"))
        return path

    def _take(self, state: checkpoint.State, path: Path, *, explicit: bool) -> None:
        if differ := differing(state["args"], self.arguments):
            raise ValueError(f"checkpoint {path} belongs to another run: {shorten(differ)}; use the same flags")
        if state["description"]["split_digest"] != self.description.split_digest:
            raise ValueError(
                f"checkpoint {path} was trained on other splits: the data have changed since; restore the files "
                f"of the run, or choose another --output"
            )
        stored = Description.from_dict(state["description"])
        if stored.content_digest not in (None, self.description.content_digest):
            raise ValueError(
                f"checkpoint {path} was trained on other images: some have another content under the same names since; "
                f"restore the files of the run, or choose another --output"
            )
        # A run of an earlier version with --weights normalised by its data, whatever is the default now.
        self.description = replace(self.description, preprocessing=stored.preprocessing)
        self._compare_world(len(state["rng"]), path, explicit=explicit)
        averaged = self.average is not None and state["step"] > 0
        weights = state["raw"] if averaged else state
        self.network.encoder.load_state_dict(weights["encoder"])
        if self.network.projection is not None:
            self.network.projection.load_state_dict(weights["projection"])
        self.objective.load_state_dict(weights["objective"])
        if self.average is not None and averaged:
            self.average.restore(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.seconds = int(state["step"]), int(state["epoch"]), float(state["seconds"])
        self.latest, self.extra = dict(state["latest"]), dict(state.get("extra", {}))
        self.pending = dict(state.get("pending", {}))
        if len(state["rng"]) == distributed.world_size():
            torch.set_rng_state(state["rng"][distributed.rank()])

    def _compare_world(self, then: int, path: Path, *, explicit: bool) -> None:
        """Refuse another number of processes, with which sums round differently, unless the checkpoint was named."""
        if then == (now := distributed.world_size()):
            return
        if not explicit:
            raise ValueError(
                f"checkpoint {path} is of a run with {then} process(es), not {now}; start as many, "
                f"or accept other rounding with --resume {path}"
            )
        if distributed.rank() == 0:
            _log.warning(
                "%s is of a run with %d process(es), not %d: results will agree up to rounding", path, then, now
            )
