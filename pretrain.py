"""Pretrain an encoder on imbalanced images with a contrastive or a cross-entropy objective.

python pretrain.py                                              supmin on scikit-learn's digits, in seconds
python pretrain.py @scripts/recipes/fashion-mix5-99.args        a recipe; later flags win
torchrun --nproc-per-node 2 pretrain.py ...                     several devices, the same flags

The run folder holds args.json, env.json, split.csv, log.txt, metrics.jsonl, tb/, checkpoints/ and result.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ttc import distributed, flags
from ttc.batches.augment import ViewGenerator
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset, batches, describe, load_dataset, resident
from ttc.flags import settings
from ttc.flags.parser import Given, Parser
from ttc.losses import build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork, build_encoder, load_weights
from ttc.models.optim import build_optimizer, learning_rate, set_learning_rate, trainable
from ttc.models.pretrained import embed_training
from ttc.run import runtime
from ttc.run.folder import RunFolder
from ttc.run.log import Progress, RunLog, log, start_logging
from ttc.training import plan
from ttc.training.embedder import BatchEmbedder
from ttc.training.monitor import CollapseWatch, LossMonitor, class_views
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Pretrain an encoder on imbalanced images.",
        "python pretrain.py --dataset digits --method supmin --seed 1",
        writes_run=True,
    )
    for add in (flags.add_data, flags.add_augmentation, flags.add_model, flags.add_method, flags.add_optimisation):
        add(parser)
    flags.add_runtime(parser)
    flags.add_monitoring(parser)
    flags.add_output(parser)
    return parser


def train(
    state: TrainingState,
    *,
    embedder: torch.nn.Module,
    dataset: Dataset,
    sampler: BatchSampler,
    views: ViewGenerator,
    reporter: Reporter,
    world: distributed.World,
    rate_at: Callable[[int], float],
    clip_norm: float | None,
    num_workers: int,
) -> bool:
    """Train until the last epoch or a requested stop; return whether the run is finished."""
    optimizer, scaler, objective, device = state.optimizer, state.scaler, state.objective, world.device
    steps, rows = sampler.steps_per_epoch, dataset.indices("train")
    embed_all = partial(embed_training, state.network, dataset, views, num_workers)
    while state.epoch < reporter.epochs:
        if objective.wants_embeddings(state.epoch):
            objective.on_epoch(state.epoch, embed_all, distributed.broadcast)
        mine, first = sampler.epoch(state.epoch, world.rank, world.size), state.step - state.epoch * steps
        id_batches, draw_batches = rows[mine.samples[first:]], mine.draws[first:]
        image_batches = batches(dataset.images, id_batches, num_workers, pin_memory=device.type == "cuda")
        for ids, draws, images in zip(id_batches, draw_batches, image_batches, strict=True):
            set_learning_rate(optimizer, rate_at(state.step))
            objective.on_step(state.epoch, state.step)
            labels, ids, draws = (each.to(device, non_blocking=True) for each in (dataset.labels[ids], ids, draws))
            features, z = embedder(images.to(device, non_blocking=True), labels, ids, draws)
            objective.keep_graph_terms = reporter.logs_at(state.step + 1)
            loss = objective(z, labels, distributed.pool_of(z, labels, ids), features=features, sample_ids=ids)
            reporter.monitor.add_gradients(objective.values, (z, features))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            # DDP averages the network's gradients; the objective's own parameters live outside of it.
            distributed.average_gradients(objective.parameters())
            if clip_norm is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(trainable(optimizer), clip_norm)
            scaler.step(optimizer)
            scaler.update()
            objective.after_step(state.network)
            state.step += 1
            reporter.monitor.add(state.step, loss, objective.terms, ids, features)
            if reporter.step_ended(last_of_epoch=state.step % steps == 0):
                return False
        state.epoch += 1
        if reporter.epoch_ended():
            return False
    return True


def build_state(
    args: argparse.Namespace, given: Given, dataset: Dataset, sampler: BatchSampler, device: torch.device
) -> TrainingState:
    """Build network, objective and optimizer."""
    spec = settings.encoder_spec(args, dataset)
    encoder = build_encoder(spec)
    if args.weights:
        load_weights(encoder, spec, args.weights)
    arguments = settings.objective_arguments(args, dataset, sampler.presented_counts(), encoder.feature_dim)
    objective = build_objective(args.method, **arguments).to(device)
    # The objective's own check would wait for the device in every step, and raise before LossMonitor saves the batch.
    objective.validate = False
    projection_dim = args.projection_dim if objective.space == "projection" else None
    network = synchronise(PretrainNetwork(encoder, projection_dim, batchnorm=args.projection_batchnorm), device)
    network.to(device, memory_format=torch.channels_last)
    objective.attach(network)
    return TrainingState(
        network=network,
        objective=objective,
        optimizer=build_optimizer(args.optimizer, (network, objective), lr=args.lr, weight_decay=args.weight_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=args.precision == "fp16"),
        description=Description.of(
            method=args.method,
            objective=arguments,
            spec=spec,
            projection_dim=projection_dim,
            dataset=dataset,
            augmentation=settings.augmentation(args, dataset),
            seed=args.seed,
            projection_batchnorm=args.projection_batchnorm,
        ),
        arguments=given.values,
    )


def build_embedder(
    args: argparse.Namespace, state: TrainingState, dataset: Dataset, views: ViewGenerator, world: distributed.World
) -> BatchEmbedder:
    """Build what turns images into embeddings, in micro-batches if asked for."""
    return BatchEmbedder(
        torch.compile(state.network) if args.compile else state.network,  # type: ignore[arg-type]  # a Module
        state.objective,
        views,
        micro_batches=settings.micro_batches(args.batch_size, args.micro_batch_size, world.size),
        autocast=partial(runtime.autocast, world.device, args.precision),
        cutmix_area=args.minority_cutmix,
        minority_class=dataset.minority_class,
    )


def tell_plan(
    args: argparse.Namespace, dataset: Dataset, sampler: BatchSampler, state: TrainingState, world: distributed.World
) -> list[str]:
    """Log what is going to happen and what is worrying about it; return the lines of the plan."""
    lines = describe(dataset) + plan.plan_lines(
        network=state.network,
        image_shape=(dataset.channels, dataset.image_size, dataset.image_size),
        sampler=sampler,
        method=args.method,
        weights=state.objective.weights,
        views=state.objective.views,
        epochs=args.epochs,
        warmup_epochs=args.warmup_epochs,
        world_size=world.size,
        micro_batches=settings.micro_batches(args.batch_size, args.micro_batch_size, world.size),
        half_precision=args.precision != "fp32",
    )
    for line in lines:
        log.info("%s", line)
    if world.main and (warning := plan.composition_warning(sampler, args.method)):
        log.warning("%s", warning)
    return lines


def main() -> int:
    """Set up, train, save."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    settings.refuse_idle_flags(parser, given)

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device), args.timeout_minutes)
    stop = runtime.StopRequest(args.stop_after_minutes)
    runtime.seed_everything(args.seed, rank=0)

    # 3. run folder
    folder = RunFolder(Path(args.output or f"runs/{args.dataset}-{args.method}-seed{args.seed}"))
    start_logging(world.main)
    if not args.dry_run:
        if distributed.from_first_rank(lambda: folder.claim(given.values, resume=args.resume)):
            log.info("%s holds the finished run of this command; nothing to do", folder.path)
            return 0
        start_logging(world.main, folder.path)

    # 4. data
    dataset = load_dataset(settings.dataset_settings(args))
    dataset = replace(dataset, images=resident(dataset.images, world.device))
    sampler = settings.batch_sampler(args, dataset, world.size)

    # 5. model, 6. objective, 7. optimizer
    state = build_state(args, given, dataset, sampler, world.device)
    views = state.description.view_generator()

    # 8. resume
    runtime.seed_everything(args.seed, world.rank)
    resumed = None if args.dry_run else state.resume(folder.path / "checkpoints", args.resume)

    # 9. plan
    lines = tell_plan(args, dataset, sampler, state, world)
    if args.dry_run:
        return 0
    if world.main and not (folder.path / "split.csv").exists():  # the last of the three
        folder.save_arguments(
            given.values, given.sources, settings.derived(args, folder.path, dataset, state.description)
        )
        folder.save_json("env.json", runtime.environment_record(world.device, world.size))
        dataset.save_split(folder.path / "split.csv")

    # 10. loop
    collapse_value = state.objective.collapse_value(args.batch_size)
    reporter = Reporter(
        state=state,
        folder=folder.path,
        run_log=RunLog(folder.path, main=world.main, step=state.step),
        progress=Progress(steps=args.epochs * sampler.steps_per_epoch, first=state.step, main=world.main),
        monitor=LossMonitor(folder.path, collapse_value),
        watch=CollapseWatch(state.network, dataset, views, collapse_value),
        stop=stop,
        world=world,
        epochs=args.epochs,
        batch_size=args.batch_size,
        log_every_steps=args.log_every_steps,
        save_every_epochs=args.save_every_epochs,
        metrics_every_epochs=args.metrics_every_epochs,
        stop_on_collapse=args.stop_on_collapse,
    )
    reporter.begin(lines, resumed, partial(class_views, dataset, views))
    finished = train(
        state,
        embedder=distributed.average_over_ranks(build_embedder(args, state, dataset, views, world)),
        dataset=dataset,
        sampler=sampler,
        views=views,
        reporter=reporter,
        world=world,
        rate_at=partial(
            learning_rate,
            peak=args.lr,
            steps=args.epochs * sampler.steps_per_epoch,
            warmup_steps=int(args.warmup_epochs * sampler.steps_per_epoch),
        ),
        clip_norm=args.clip_gradient_norm,
        num_workers=args.num_workers,
    )

    # 11. result
    if finished:
        reporter.finish(folder)
    return 0 if finished else runtime.EXIT_STOPPED


if __name__ == "__main__":
    runtime.run(main)
