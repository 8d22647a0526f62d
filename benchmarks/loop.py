"""Steps of pretrain.py's own loop, made when asked for, and how much time its lines take.

The script's set-up is repeated here up to its loop, which runs as it is: with its batches, views, objective, optimizer
and log. Between two calls it waits for its next batch.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from benchmarks import timing
from benchmarks.networks import encoder_of
from ttc import distributed
from ttc.datasets import Dataset, TrainingBatches, load_dataset
from ttc.datasets.loading import TrainingBatch
from ttc.flags import data_settings, settings, setup
from ttc.models.pretrained import embed_training
from ttc.run import runtime
from ttc.run.folder import RunFolder

PARTS = {
    "batch": ("rest_of_epoch",),
    "views": ("views.views", "cutmix", "del inputs"),
    "network": ("autocast", "network(", "embed_views", "backward"),
    "optimizer": ("learning_rate", "zero_grad", "step_optimizer", "after_step", "gradient_passes", "average"),
    "loss": ("objective(", "objective.", "add_keys"),
    "log": ("",),
}
"""Parts of a step, and what is found in the lines of the loop that belong to them; the first part that fits counts."""


class _Waiting(Exception):
    """The loop has made all steps that were asked for."""


class _Batches:
    """The batches of a run, of which the loop gets as many as it is to make steps."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.all = batches
        self._begun: Iterator[TrainingBatch] | None = None
        self.steps_per_epoch, self.until, self.waited = batches.steps_per_epoch, 0, 0.0

    def rest_of_epoch(self, step: int) -> Iterator[TrainingBatch]:
        if step >= self.until:
            raise _Waiting
        batches = self._begun or self.all.rest_of_epoch(step)
        self._begun = batches
        for batch in self._timed(batches):
            yield batch
            step += 1
            # After the last batch of an epoch the loop first ends the epoch.
            if step == self.until and step % self.steps_per_epoch:
                raise _Waiting
        self._begun = None

    def _timed(self, batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
        """Yield the batches, and add up how long they are waited for without computing."""
        while True:
            processor, elapsed = time.process_time(), time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - elapsed - (time.process_time() - processor)
            if batch is None:
                return
            yield batch


def _script() -> Any:
    """Return the script's module; no module imports a script by a statement."""
    return importlib.import_module("pretrain")


class Loop:
    """A run of pretrain.py that makes steps when asked to."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        device: torch.device,
        change: Callable[[Dataset], Dataset] = lambda dataset: dataset,
    ) -> None:
        """Set the run up.

        Args:
            words: the script's command line, with the length of the run.
            folder: its run folder; new.
            device: where it trains.
            change: what to make of the data set, before it goes to the device.
        """
        self._script = _script()
        self._source = inspect.getsourcelines(self._script.train)
        self._script.build_encoder = encoder_of
        given = self._script.build_parser().parse([str(word) for word in words])
        self.args = args = given.namespace()
        folder.mkdir(parents=True)
        world = distributed.World(0, 1, 0, device)
        runtime.seed_everything(args.seed, rank=0)
        self.dataset = setup.on_device(change(load_dataset(data_settings.dataset_settings(args))), world)
        sampler = settings.batch_sampler(args, self.dataset, world.size)
        self.state = self._script.build_state(args, given, self.dataset, sampler, device)
        self.recipe = setup.step_recipe(args, self.state, sampler, world)
        self.steps_per_epoch = sampler.steps_per_epoch
        self._batches = _Batches(TrainingBatches(self.dataset, sampler, world, args.num_workers))
        self._train = partial(
            self._script.train,
            self.state,
            batches=self._batches,
            recipe=self.recipe,
            embed_all=partial(embed_training, self.state.network, self.dataset, self.recipe.views, args.num_workers),
            reporter=setup.build_reporter(args, self.state, RunFolder(folder), sampler, stop_request(), world),
        )

    def steps(self, count: int) -> None:
        """Make so many steps, with what the loop does at the end of the epochs that end."""
        self._batches.until = self.state.step + count
        try:
            finished = self._train()
        except _Waiting:
            return
        if not finished:
            raise SystemExit(runtime.EXIT_STOPPED)

    @property
    def waited(self) -> float:
        """Seconds that the loop has waited for batches so far, while other processes decoded them."""
        return self._batches.waited

    def first_batch(self) -> TrainingBatch:
        """Return the first batch of the run, which does not count as a step."""
        return next(self._batches.all.rest_of_epoch(0))

    def profile(self, count: int, device: torch.device) -> dict[str, float]:
        """Make so many steps and return the share of each of `PARTS` in their time, by the lines of the loop.

        The backward pass counts as the network's as a whole, the loss's part of it included.
        """
        clock = _LineClock(self._script.train.__code__, device)
        sys.settrace(clock)
        try:
            self.steps(count)
        finally:
            sys.settrace(None)
        lines, first = self._source
        shares = dict.fromkeys(PARTS, 0.0)
        for number, seconds in clock.seconds.items():
            shares[part_of(lines[number - first])] += seconds / sum(clock.seconds.values())
        return shares


class _LineClock:
    """Adds up the time that each line of a function takes; for `sys.settrace`."""

    def __init__(self, code: CodeType, device: torch.device) -> None:
        self.seconds: defaultdict[int, float] = defaultdict(float)
        self._code, self._device = code, device
        self._line, self._since = 0, 0.0

    def __call__(self, frame: FrameType, event: str, argument: object) -> _LineClock | None:
        """Note that a line begins; other functions are not looked into."""
        if frame.f_code is not self._code:
            return None
        now = timing.now(self._device)
        if event != "call":
            self.seconds[self._line] += now - self._since
        self._line, self._since = frame.f_lineno, now
        return self


def part_of(line: str) -> str:
    """Return to which of `PARTS` a line of the loop belongs."""
    return next(part for part, words in PARTS.items() if any(word in line for word in words))


@functools.cache
def stop_request() -> runtime.StopRequest:
    """Return the one listener to signals of this process."""
    return runtime.StopRequest()
