"""What happens around the steps of pretraining: numbers, the collapse watch, checkpoints, requests to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ttc import distributed
from ttc.batches.augment import ViewGenerator
from ttc.datasets import Dataset
from ttc.run import checkpoint, ledger
from ttc.run.folder import RunFolder
from ttc.run.log import Progress, RunLog, log
from ttc.run.runtime import EXIT_STOPPED, StopRequest
from ttc.training.monitor import CollapseWatch, LossMonitor, class_views
from ttc.training.training_state import TrainingState

_OF_EPOCH = (
    *("train/loss", "train/loss_over_collapse", "train/lr"),
    *("watch/mean_cosine", "watch/probe_auroc", "val/auroc"),
)
"""Numbers in the line of an epoch, where the run has them."""


@dataclass
class Reporter:
    """Called by the loop in steps and epochs; every rank has one.

    Attributes:
        state: of the run.
        folder: the run folder.
        run_log: where numbers go.
        progress: bar or lines.
        monitor: the losses since the last log step.
        stop: requests to end.
        world: this process's place.
        epochs: of the run.
        steps_per_epoch: of the run.
        batch_size: samples of the global batch.
        log_every_steps: distance of the log steps.
        save_every_epochs: distance of the checkpoints that stay.
        watch: metrics of a fixed subset, on the main rank; None where nothing is watched.
        metrics_every_epochs: distance of the watches; 0 never.
        stop_on_collapse: watches in a row that end the run when they find a collapse; 0 never.
        collapsed: whether they have.
        stopped_by: who asked the run to stop; empty as long as nobody has.
    """

    state: TrainingState
    folder: Path
    run_log: RunLog
    progress: Progress
    monitor: LossMonitor
    stop: StopRequest
    world: distributed.World
    epochs: int
    steps_per_epoch: int
    batch_size: int
    log_every_steps: int
    save_every_epochs: int
    watch: CollapseWatch | None = None
    metrics_every_epochs: int = 0
    stop_on_collapse: int = 0
    collapsed: bool = False
    stopped_by: str = ""
    _asked: Callable[[], bool] | None = None

    def begin(self, plan: list[str], dataset: Dataset, views: ViewGenerator) -> None:
        """Tell what is about to happen: the plan and, in TensorBoard, what training sees of each class.

        Args:
            plan: its lines.
            dataset: what is trained on.
            views: augments it.
        """
        self._end_a_collapsed_run()
        if self.state.resumed_from is not None:
            with checkpoint.contents(self.state.resumed_from):
                self.monitor.restore(self.state.pending, self.world.device)
            log.info("continuing from %s, step %d", self.state.resumed_from, self.state.step)
            return
        if not self.world.main:
            return
        self.run_log.text("plan", plan)
        if self.watch is not None:
            self.run_log.charts(self.watch.charts())
        for name, grid in class_views(dataset, views).items():
            self.run_log.image_grid(f"views/{name}", grid)

    def finish(self, folder: RunFolder) -> None:
        """Write the result, and the checkpoint of a run that had no epoch to train here."""
        checkpoints = self.folder / "checkpoints"
        # The main rank looks for all: it may still be writing there when another one gets here.
        if distributed.from_first_rank(lambda: not (checkpoints / "last.pt").exists()):
            self.state.save(checkpoints, f"epoch_{self.epochs:04d}.pt")
        self.progress.close()
        if self.world.main:
            self.run_log.hparams(folder.settings(), self.state.latest)
            self.run_log.close()
            description = self.state.description
            result = {
                "kind": "pretrain",
                "method": description.method,
                "dataset": description.data["name"],
                "seed": description.seed,
                "steps": self.state.step,
                "epochs": self.epochs,
                "stopped_on_collapse": self.collapsed,
                "seconds": round(self.state.elapsed(), 3),
                "collapse_value": self.monitor.collapse_value,
                **{key: value for key, value in self.state.latest.items() if math.isfinite(value)},
            }
            path = folder.save_json("result.json", ledger.complete(result, self.state.arguments))
            log.info("finished in %.1f s; result in %s", self.state.elapsed(), path)

    def logs_at(self, step: int) -> bool:
        """Tell whether the numbers of a step (counted from 1) are written, apart from those at the end of an epoch."""
        return step == 1 or step % self.log_every_steps == 0

    def log_step(self, loss: Tensor, ids: Tensor, features: Tensor) -> None:
        """Remember the loss of a step, and write the means since the last log step when it is one.

        Args:
            loss: scalar on the device.
            ids: [B] int64 sample ids of this rank.
            features: [B, V, F] encoder outputs; only their norms are kept.
        """
        step = self.state.step
        self.monitor.add(step, loss, self.state.objective.terms, ids, features)
        self.progress.step(self.batch_size)
        if self.logs_at(step) or step % self.steps_per_epoch == 0:
            # A method with phases changes it, and a resumed run must log what the uninterrupted one logs.
            self.monitor.collapse_value = self.state.objective.collapse_value(self.batch_size)
            if self.monitor.collapse_value is None:  # nor may the result keep what an earlier phase had
                self.state.latest.pop("train/loss_over_collapse", None)
            self.write({**self.monitor.read(), "train/lr": self.state.optimizer.param_groups[0]["lr"]})

    def log_epoch(self) -> None:
        """Watch the embeddings when it is time to, and tell how the epoch ended."""
        epoch = self.state.epoch
        due = self.metrics_every_epochs and epoch % self.metrics_every_epochs == 0
        if self.world.main and self.watch is not None and due:
            with self.state.evaluated():
                values = self.watch.measure(epoch, self.state.latest, self.monitor.collapse_value)
            self.write(values)
        self._end_a_collapsed_run()
        latest = self.state.latest
        self.progress.epoch(epoch, self.epochs, {key: latest[key] for key in _OF_EPOCH if key in latest})

    def save_checkpoint(self) -> None:
        """Write last.pt and, after every so many epochs and the last one, a checkpoint that stays."""
        # First what was logged up to this step: a run that continues from here never logs it again.
        self.run_log.flush()
        self.state.pending = self.monitor.pending()
        epoch, complete = self.state.epoch, self.state.step == self.state.epoch * self.steps_per_epoch
        keep = complete and (epoch % self.save_every_epochs == 0 or epoch == self.epochs)
        self.state.save(self.folder / "checkpoints", f"epoch_{epoch:04d}.pt" if keep else None)

    def stop_requested(self) -> bool:
        """Tell whether the run has to end before its last epoch; all ranks get the same answer, at the same step."""
        if self.state.epoch == self.epochs:
            return False
        reason = self.stop.reason(self.folder)
        requested = reason is not None
        if self.world.size > 1:  # what the ranks requested a step ago, so that nobody waits for the answer
            before, self._asked = self._asked, distributed.ask_ranks(requested)
            requested = before is not None and before()
        if requested:
            self.stopped_by = reason or "another rank"
        return requested

    def tell_stop(self) -> int:
        """Tell who stopped the run, whose checkpoint has been written; return the exit code."""
        log.warning("stopped by %s after step %d; the same command continues", self.stopped_by, self.state.step)
        return EXIT_STOPPED

    def _end_a_collapsed_run(self) -> None:
        # The main rank watches; all end after the same epoch. A resumed run finds the count in its checkpoint.
        collapses = self.state.latest.get("watch/collapsed", 0.0)
        if self.stop_on_collapse and distributed.any_rank(collapses >= self.stop_on_collapse, self.world.device):
            self.epochs, self.collapsed = self.state.epoch, True
            log.info("--stop-on-collapse %d: the run ends after epoch %d", self.stop_on_collapse, self.epochs)

    def write(self, values: Mapping[str, float]) -> None:
        """Log numbers at the current step and keep them as the latest."""
        self.state.latest.update(values)
        step = self.state.step
        self.run_log.scalars(step=step, epoch=self.state.epoch, images=step * self.batch_size, values=values)
