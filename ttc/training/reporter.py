"""What happens around the steps of pretraining: numbers, the collapse watch, checkpoints, requests to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ttc import distributed
from ttc.run import checkpoint, ledger
from ttc.run.folder import RunFolder
from ttc.run.log import Progress, RunLog, log
from ttc.run.runtime import StopRequest
from ttc.training.monitor import CollapseWatch, LossMonitor
from ttc.training.training_state import TrainingState


@dataclass
class Reporter:
    """Called by the loop after steps and epochs; every rank has one.

    Attributes:
        state: of the run.
        folder: the run folder.
        run_log: where numbers go.
        progress: bar or lines.
        monitor: the losses since the last log step.
        stop: requests to end.
        world: this process's place.
        epochs: of the run.
        batch_size: samples of the global batch.
        log_every_steps: distance of the log steps.
        save_every_epochs: distance of the checkpoints that stay.
        watch: metrics of a fixed subset, on the main rank; None where nothing is watched.
        metrics_every_epochs: distance of the watches; 0 never.
        stop_on_collapse: watches in a row that end the run when they find a collapse; 0 never.
        collapsed: whether they have.
    """

    state: TrainingState
    folder: Path
    run_log: RunLog
    progress: Progress
    monitor: LossMonitor
    stop: StopRequest
    world: distributed.World
    epochs: int
    batch_size: int
    log_every_steps: int
    save_every_epochs: int
    watch: CollapseWatch | None = None
    metrics_every_epochs: int = 0
    stop_on_collapse: int = 0
    collapsed: bool = False
    _asked: Callable[[], bool] | None = None

    def begin(self, plan: list[str], resumed: Path | None, pictures: Callable[[], Mapping[str, Tensor]]) -> None:
        """Tell what is about to happen.

        Args:
            plan: its lines.
            resumed: the checkpoint that the run continues from, or None.
            pictures: makes what training sees, as grids of images [N, C, S, S] in [0, 1] by class name; only the main
                rank of a new run needs them.
        """
        self._end_a_collapsed_run()
        if resumed is not None:
            with checkpoint.contents(resumed):
                self.monitor.restore(self.state.pending, self.world.device)
            log.info("continuing from %s, step %d", resumed, self.state.step)
            return
        if not self.world.main:
            return
        self.run_log.text("plan", plan)
        if self.watch is not None:
            self.run_log.charts(self.watch.charts())
        for name, grid in pictures().items():
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

    def step_ended(self, *, last_of_epoch: bool) -> bool:
        """Log at log steps, and save and return True when the run has to stop now."""
        step = self.state.step
        self.progress.step(self.batch_size)
        if self.logs_at(step) or last_of_epoch:
            self.write({**self._read(), "train/lr": self.state.optimizer.param_groups[0]["lr"]})
        return not last_of_epoch and self._stopped()

    def epoch_ended(self) -> bool:
        """Watch, save, tell, and return True when the run has to stop now."""
        epoch = self.state.epoch
        due = self.metrics_every_epochs and epoch % self.metrics_every_epochs == 0
        if self.world.main and self.watch is not None and due:
            self.write(self.watch.measure(epoch, self.state.latest))
        self._end_a_collapsed_run()
        keep = epoch % self.save_every_epochs == 0 or epoch == self.epochs
        self._save(f"epoch_{epoch:04d}.pt" if keep else None)
        shown = (
            "train/loss",
            "train/loss_over_collapse",
            "train/lr",
            "watch/mean_cosine",
            "watch/probe_auroc",
            "val/auroc",
        )
        self.progress.epoch(
            epoch, self.epochs, {key: self.state.latest[key] for key in shown if key in self.state.latest}
        )
        return epoch < self.epochs and self._stopped()

    def _end_a_collapsed_run(self) -> None:
        # The main rank watches; all end after the same epoch. A resumed run finds the count in its checkpoint.
        found = self.state.latest.get("watch/collapsed", 0.0)
        if self.stop_on_collapse and distributed.any_rank(found >= self.stop_on_collapse, self.world.device):
            self.epochs, self.collapsed = self.state.epoch, True
            log.info("--stop-on-collapse %d: the run ends after epoch %d", self.stop_on_collapse, self.epochs)

    def _stopped(self) -> bool:
        reason = self.stop.reason(self.folder)
        wanted = reason is not None
        if self.world.size > 1:  # what the ranks wanted a step ago, so that nobody waits for the answer
            before, self._asked = self._asked, distributed.ask_ranks(wanted)
            wanted = before is not None and before()
        if not wanted:
            return False
        self._save()
        log.warning(
            "stopped by %s after step %d; the same command continues", reason or "another rank", self.state.step
        )
        return True

    def _save(self, keep_as: str | None = None) -> None:
        # First what was logged up to this step: a run that continues from here never logs it again.
        self.run_log.flush()
        self.state.pending = self.monitor.pending()
        self.state.save(self.folder / "checkpoints", keep_as)

    def _read(self) -> dict[str, float]:
        # A method with phases changes it, and a resumed run must log what the uninterrupted one logs.
        self.monitor.collapse_value = self.state.objective.collapse_value(self.batch_size)
        return self.monitor.read()

    def write(self, values: Mapping[str, float]) -> None:
        """Log numbers at the current step and keep them as the latest."""
        self.state.latest.update(values)
        step = self.state.step
        self.run_log.scalars(step=step, epoch=self.state.epoch, images=step * self.batch_size, values=values)
