"""Fine-tune a pretrained encoder with a classifier on top, end to end.

python finetune.py --checkpoint runs/NAME/checkpoints/last.pt
python finetune.py --checkpoint runs/NAME/checkpoints/last.pt --from-scratch      the baseline with the same budget
torchrun --nproc-per-node 2 finetune.py ...                                       several devices, the same flags

The checkpoint names data, splits, normalisation, augmentation and architecture. Validation chooses the epoch; the test
split is used once, at the end.

Writes result.json and predictions.csv, as linear_eval.py does, to RUN/finetune (or RUN/from_scratch), and beside them
what pretrain.py writes: args.json, env.json, log.txt, metrics.jsonl, tb/ and checkpoints/ with best.pt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import torch

from ttc import distributed, flags
from ttc.batches.augment import ViewGenerator
from ttc.batches.cutmix import minority_cutmix
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset, batches, describe
from ttc.evaluation.probe import module_digest
from ttc.flags import settings
from ttc.flags.parser import Parser
from ttc.models.optim import set_learning_rate, trainable
from ttc.models.pretrained import Pretrained, load_pretrained
from ttc.run import runtime
from ttc.run.folder import RunFolder
from ttc.run.log import Progress, RunLog, log, start_logging
from ttc.training import plan
from ttc.training.early_stopping import Selection, write_result
from ttc.training.finetuning import KIND, build_classifier, build_network, finetune_optimizer, two_phase_rate
from ttc.training.monitor import LossMonitor, class_views
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Fine-tune a pretrained encoder end to end.",
        "python finetune.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt --batch-sampler balanced",
        writes_run=True,
    )
    flags.add_checkpoint(parser, required=True)
    flags.add_augmentation(parser)
    flags.add_finetuning(parser)
    flags.add_evaluation_set(parser)
    flags.add_runtime(parser)
    flags.add_output(parser, "finetune, or from_scratch, in the run folder of the checkpoint")
    return parser


def train(
    state: TrainingState,
    *,
    network: torch.nn.Module,
    dataset: Dataset,
    sampler: BatchSampler,
    views: ViewGenerator,
    reporter: Reporter,
    selection: Selection,
    world: distributed.World,
    linear_epochs: int,
    rate_at: Callable[[int], float],
    clip_norm: float | None,
    precision: str,
    cutmix_area: float,
    num_workers: int,
) -> bool:
    """Train until the last epoch, the end of the patience or a requested stop; return whether the run is finished."""
    optimizer, scaler, objective, device = state.optimizer, state.scaler, state.objective, world.device
    steps, rows = sampler.steps_per_epoch, dataset.indices("train")
    while state.epoch < reporter.epochs and not selection.exhausted:
        full = state.epoch >= linear_epochs
        state.network.learn(full)
        mine, first = sampler.epoch(state.epoch, world.rank, world.size), state.step - state.epoch * steps
        id_batches, draw_batches = rows[mine.samples[first:]], mine.draws[first:]
        image_batches = batches(dataset.images, id_batches, num_workers, pin_memory=device.type == "cuda")
        for ids, draws, images in zip(id_batches, draw_batches, image_batches, strict=True):
            set_learning_rate(optimizer, rate_at(state.step))
            labels, ids = (each.to(device, non_blocking=True) for each in (dataset.labels[ids], ids))
            inputs = views.views(images.to(device, non_blocking=True), ids, draws, 1)
            if cutmix_area:
                rare = labels == dataset.minority_class
                inputs = minority_cutmix(inputs, rare, ids, draws, area=cutmix_area, seed=views.seed)
            # In the linear phase the encoder has no gradient, so that neither momentum nor weight decay can move it.
            with torch.set_grad_enabled(full), runtime.autocast(device, precision):
                features, _ = network(inputs[:, 0].contiguous(memory_format=torch.channels_last))
            features = features.float()[:, None]
            loss = objective(features, labels, distributed.pool_of(features, labels, ids))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            # DDP averages the encoder's gradients; the head lives outside of it.
            distributed.average_gradients(objective.parameters())
            if clip_norm is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(trainable(optimizer), clip_norm)
            scaler.step(optimizer)
            scaler.update()
            state.step += 1
            reporter.monitor.add(state.step, loss, objective.terms, ids, features)
            if reporter.step_ended(last_of_epoch=state.step % steps == 0):
                return False
        state.epoch += 1
        reporter.write(selection.epoch_ended())
        if reporter.epoch_ended():
            return False
    return True


def build_state(
    args: argparse.Namespace, run: Pretrained, arguments: dict[str, object], device: torch.device
) -> TrainingState:
    """Build network, head and optimizer; with --from-scratch only the encoder's first weights differ."""
    flags.check_classes(args, run.description)
    network = build_network(run, from_scratch=args.from_scratch, freeze_until=args.freeze_until, device=device)
    objective, objective_settings = build_classifier(
        args.loss, run.description, network.feature_dim, args.class_weights, args.seed
    )
    objective.to(device)
    return TrainingState(
        network=network,
        objective=objective,
        optimizer=finetune_optimizer(
            args.optimizer, network, objective, lr=args.lr, encoder_lr=args.encoder_lr, weight_decay=args.weight_decay
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=args.precision == "fp16"),
        description=replace(
            run.description,
            method=args.loss,
            objective=objective_settings,
            projection_dim=None,
            augmentation=asdict(settings.changed_augmentation(args, run.description)),
            seed=args.seed,
        ),
        arguments=arguments,
        kind=KIND,
    )


def tell_plan(
    args: argparse.Namespace, dataset: Dataset, sampler: BatchSampler, state: TrainingState, world: distributed.World
) -> list[str]:
    """Log what is going to happen; return the lines."""
    learning = sum(p.numel() for p in state.network.parameters() if p.requires_grad)
    phase = "the head alone" if args.freeze_encoder else f"encoder ({learning:,} parameters) and head"
    lines = [
        *describe(dataset),
        *plan.plan_lines(
            network=state.network,
            image_shape=(dataset.channels, dataset.image_size, dataset.image_size),
            sampler=sampler,
            method=args.loss,
            weights=state.objective.weights,
            views=1,
            epochs=args.epochs,
            warmup_epochs=args.warmup_epochs,
            world_size=world.size,
            micro_batches=1,
            half_precision=args.precision != "fp32",
        ),
        f"start: {'random weights' if args.from_scratch else args.checkpoint}; {phase} learns",
        f"learning rates: head {args.lr:g}, encoder {args.encoder_lr:g}; {args.linear_epochs} linear epochs first",
        f"the epoch with the best validation {args.select_by} is kept; patience {args.patience or 'without end'}",
    ]
    for line in lines:
        log.info("%s", line)
    return lines


def main() -> int:
    """Set up, train, evaluate."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    derived = flags.complete_finetuning(parser, args)

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device), args.timeout_minutes)
    stop = runtime.StopRequest(args.stop_after_minutes)
    start_logging(world.main)

    # 3. run folder
    folder = RunFolder(settings.evaluation_folder(args, "from_scratch" if args.from_scratch else "finetune"))
    identity = {**given.values, "checkpoint_sha256": settings.file_digest(args.checkpoint)}
    if not args.dry_run:
        if distributed.from_first_rank(lambda: folder.claim(identity, resume=args.resume)):
            log.info("%s holds the finished result of this command; nothing to do", folder.path)
            if world.main:
                sys.stdout.write(folder.result.read_text())
            return 0
        start_logging(world.main, folder.path)

    # 4. data
    run = load_pretrained(args.checkpoint, args.data_root, args.num_workers, world.device)
    dataset, args.positive_class = run.dataset, settings.positive_class(args.positive_class, run.description)
    sampler = settings.batch_sampler(args, dataset, world.size)

    # 5. model, 6. objective, 7. optimizer
    runtime.seed_everything(args.seed, rank=0)
    state = build_state(args, run, identity, world.device)
    views = state.description.view_generator()
    start = module_digest(state.network.encoder)

    # 8. resume
    runtime.seed_everything(args.seed, world.rank)
    resumed = None if args.dry_run else state.resume(folder.path / "checkpoints", args.resume)

    # 9. plan
    lines = tell_plan(args, dataset, sampler, state, world)
    if args.dry_run:
        return 0
    if world.main and not (folder.path / "env.json").exists():  # the last of the two
        sources = {**given.sources, "checkpoint_sha256": "content of the file"}
        folder.save_arguments(identity, sources, {**derived, "output": str(folder.path)})
        folder.save_json("env.json", runtime.environment_record(world.device, world.size))

    # 10. loop
    linear_epochs = args.epochs if args.freeze_encoder else args.linear_epochs
    reporter = Reporter(
        state=state,
        folder=folder.path,
        run_log=RunLog(folder.path, main=world.main, step=state.step),
        progress=Progress(steps=args.epochs * sampler.steps_per_epoch, first=state.step, main=world.main),
        monitor=LossMonitor(folder.path, None),
        stop=stop,
        world=world,
        epochs=args.epochs,
        batch_size=args.batch_size,
        log_every_steps=args.log_every_steps,
        save_every_epochs=args.save_every_epochs,
    )
    selection = Selection(
        state, run, args.select_by, args.patience, args.linear_epochs, args.positive_class, args.num_workers
    )
    reporter.begin(lines, resumed, partial(class_views, dataset, views))
    network = torch.compile(state.network) if args.compile else state.network
    finished = train(
        state,
        network=network if args.freeze_encoder else distributed.average_over_ranks(network),
        dataset=dataset,
        sampler=sampler,
        views=views,
        reporter=reporter,
        selection=selection,
        world=world,
        linear_epochs=linear_epochs,
        rate_at=partial(
            two_phase_rate,
            peak=args.lr,
            linear_steps=linear_epochs * sampler.steps_per_epoch,
            steps=args.epochs * sampler.steps_per_epoch,
            warmup_steps=int(args.warmup_epochs * sampler.steps_per_epoch),
        ),
        clip_norm=args.clip_gradient_norm,
        precision=args.precision,
        cutmix_area=args.minority_cutmix,
        num_workers=args.num_workers,
    )

    # 11. result
    if finished:
        clinical_settings = (args.class_balance, args.deploy_prevalence or (), args.bootstrap)
        write_result(selection, reporter, folder, *clinical_settings, start if args.freeze_encoder else None)
        if world.main:
            sys.stdout.write(folder.result.read_text())
    return 0 if finished else runtime.EXIT_STOPPED


if __name__ == "__main__":
    runtime.run(main)
