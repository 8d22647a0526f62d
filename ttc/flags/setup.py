"""What both training scripts set up from their flags in the same way: process, run folder, reporter, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ttc import distributed
from ttc.batches.cutmix import MinorityCutMix
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset, describe, resident
from ttc.flags import settings
from ttc.flags.parser import Namespace
from ttc.models.averaging import WeightAverage, equal_share, exponential_share
from ttc.run import ledger, runtime
from ttc.run.folder import RunFolder
from ttc.run.log import Progress, RunLog, log, start_logging
from ttc.training import plan
from ttc.training.finetuning import two_phase_rate
from ttc.training.monitor import CollapseWatch, LossMonitor
from ttc.training.recipe import StepRecipe
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState


def start_processes(args: Namespace) -> tuple[distributed.World, runtime.StopRequest]:
    """Join the other processes, start the log, and listen to requests to stop from here on."""
    world = distributed.start(runtime.pick_device(args.device), args.timeout_minutes)
    stop = runtime.StopRequest(args.stop_after_minutes)
    runtime.seed_everything(args.seed, rank=0)
    start_logging(world.main)
    return world, stop


def claim(folder: RunFolder, identity: Mapping[str, object], args: Namespace, world: distributed.World) -> bool:
    """Claim the run folder and log to it, unless the run is a dry one; return whether the run is finished already.

    Raises:
        ValueError: the folder holds another run, or is in use.
    """
    if args.dry_run:
        return False
    if distributed.from_first_rank(lambda: folder.claim(identity, resume=args.resume)):
        log.info("%s holds the finished run of this command; nothing to do", folder.path)
        return True
    start_logging(world.main, folder.path)
    return False


def on_device(dataset: Dataset, world: distributed.World) -> Dataset:
    """Return the data set with its images on the device, if they are in memory and fit there."""
    return replace(dataset, images=resident(dataset.images, world.device))


def step_recipe(
    args: Namespace, state: TrainingState, sampler: BatchSampler, world: distributed.World, linear_epochs: int = 0
) -> StepRecipe:
    """Return how a step is made; the linear epochs, if there are any, are a phase of the learning rate.

    Raises:
        ValueError: the batch cannot be cut into such micro-batches.
    """
    description, steps = state.description, sampler.steps_per_epoch
    return StepRecipe(
        views=description.view_generator(),
        cutmix=MinorityCutMix(args.minority_cutmix, description.minority_class, description.seed),
        autocast=partial(runtime.autocast, world.device, args.precision),
        micro_batches=settings.micro_batches(args.batch_size, args.micro_batch_size, world.size),
        compiled=args.compile,
        learning_rate=partial(
            two_phase_rate,
            peak=args.lr,
            linear_steps=linear_epochs * steps,
            steps=args.epochs * steps,
            warmup_steps=int(args.warmup_epochs * steps),
        ),
        clip_norm=args.clip_gradient_norm,
        sam_rho=_sam_rho(args),
    )


def _sam_rho(args: Namespace) -> float | None:
    rho: float | None = vars(args).get("sam_rho")  # of pretrain.py alone
    return rho


def weight_average(args: Namespace, state: TrainingState, sampler: BatchSampler) -> WeightAverage | None:
    """Return the average of the weights that the flags ask for, if any."""
    if args.ema_decay is not None:
        rule = f"the exponential average of the weights, of decay {args.ema_decay:g}"
        share = partial(exponential_share, decay=args.ema_decay)
    elif args.average_from is not None:
        first = int(args.average_from * args.epochs * sampler.steps_per_epoch)
        rule, share = f"the average of the weights from step {first + 1} on", partial(equal_share, first=first)
    else:
        return None
    return WeightAverage(state.network, state.objective, share, rule)


def features_once(args: Namespace, state: TrainingState) -> bool:
    """Tell whether the encoder gives the same features for an image in every step, so that they are computed once."""
    objective, steady = state.objective, state.description.view_generator().augmentation.changes_nothing
    return bool(
        args.freeze_encoder and steady and not args.minority_cutmix and objective.student_views == objective.views
    )


def resume_and_plan(
    args: Namespace,
    state: TrainingState,
    folder: RunFolder,
    dataset: Dataset,
    sampler: BatchSampler,
    world: distributed.World,
    *more: str,
) -> list[str]:
    """Take over the checkpoint to continue from, if there is one; log what is going to happen and return the lines.

    Args:
        args: of either training script.
        state: network and objective.
        folder: of the run; a dry run does not look into it.
        dataset: what is trained on.
        sampler: the batches.
        world: the processes; from here on their random states differ.
        more: lines of the script itself.

    Raises:
        ValueError: see `TrainingState.resume`.
    """
    runtime.seed_everything(args.seed, world.rank)
    if not args.dry_run:
        state.resume(folder.path / "checkpoints", args.resume)
    preset = args.augmentation or (settings.preset(args, dataset) if "dataset" in vars(args) else "those of the run")
    lines = [
        *describe(dataset),
        *plan.plan_lines(
            network=state.network,
            image_shape=(dataset.channels, dataset.image_size, dataset.image_size),
            sampler=sampler,
            method=state.description.method,
            weights=state.objective.weights,
            views=state.objective.views,
            epochs=args.epochs,
            warmup_epochs=args.warmup_epochs,
            world_size=world.size,
            micro_batches=settings.micro_batches(args.batch_size, args.micro_batch_size, world.size),
            optimizer=args.optimizer,
            half_precision=args.precision != "fp32",
            copies=int(state.average is not None) + int(_sam_rho(args) is not None),
        ),
        *plan.views_lines(preset, state.description.view_generator().augmentation),
        *more,
    ]
    if (rho := _sam_rho(args)) is not None:
        lines.append(f"two passes per step: the gradient is that of the worst point within {rho:g}")
    if state.average is not None:
        lines.append(f"evaluated: {state.average.rule}, not the last weights")
    if features_once(args, state):
        lines.append("the encoder is frozen and the views do not change: its features are computed once")
    for line in lines:
        log.info("%s", line)
    return lines


def warn(warning: str | None, world: distributed.World) -> None:
    """Log a warning, if there is one, once for all processes."""
    if warning and world.main:
        log.warning("%s", warning)


def build_reporter(
    args: Namespace,
    state: TrainingState,
    folder: RunFolder,
    sampler: BatchSampler,
    stop: runtime.StopRequest,
    world: distributed.World,
    watch: CollapseWatch | None = None,
) -> Reporter:
    """Build what the loop calls to log, save and stop; without a watch nothing but the loss is looked at."""
    steps = sampler.steps_per_epoch
    return Reporter(
        state=state,
        folder=folder.path,
        run_log=RunLog(folder.path, main=world.main, step=state.step),
        progress=Progress(steps=args.epochs * steps, first=state.step, main=world.main),
        monitor=LossMonitor(folder.path, state.objective.collapse_value(args.batch_size)),
        stop=stop,
        world=world,
        epochs=args.epochs,
        steps_per_epoch=steps,
        batch_size=args.batch_size,
        log_every_steps=args.log_every_steps,
        save_every_epochs=args.save_every_epochs,
        watch=watch,
        metrics_every_epochs=0 if watch is None else args.metrics_every_epochs,
        stop_on_collapse=0 if watch is None else args.stop_on_collapse,
    )


def save_record(
    folder: RunFolder,
    identity: Mapping[str, object],
    sources: Mapping[str, str],
    derived: Mapping[str, object],
    world: distributed.World,
) -> None:
    """Write args.json and env.json of a new run."""
    folder.save_arguments(identity, sources, derived)
    folder.save_json("env.json", ledger.environment_record(world.device, world.size))
