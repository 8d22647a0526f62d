"""Pretrain an encoder on imbalanced images with a contrastive or a cross-entropy objective.

python pretrain.py                                              supmin on scikit-learn's digits, in seconds
python pretrain.py @scripts/recipes/fashion-mix5-99.args        a recipe; later flags win
torchrun --nproc-per-node 2 pretrain.py ...                     several devices, the same flags

The run folder holds args.json, env.json, split.csv, log.txt, metrics.jsonl, tb/, checkpoints/ and result.json.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    gc.disable()  # until all is imported, which leaves nothing to collect
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's matrices are small: threads would wait for each other

import torch
from torch import Tensor

from ttc import distributed, flags
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset, TrainingBatches
from ttc.evaluation.probe import module_digest
from ttc.flags import data_settings, settings, setup
from ttc.flags.encoder import freeze, optimizer_of, refuse_idle_layers, start_encoder
from ttc.flags.parser import Given, Parser
from ttc.flags.training import choose_length, refuse_two_averages
from ttc.losses import build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.description import Description
from ttc.models.encoders import build_encoder
from ttc.models.layers import recompute_blocks
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import set_learning_rate, step_optimizer
from ttc.models.pretrained import embed_training
from ttc.models.sharpness import gradient_passes
from ttc.run import runtime
from ttc.run.folder import RunFolder
from ttc.training import frozen, plan
from ttc.training.budget import length_warning
from ttc.training.embedder import embed_views
from ttc.training.monitor import CollapseWatch
from ttc.training.recipe import StepRecipe
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Pretrain an encoder on imbalanced images.",
        "python pretrain.py --dataset digits --method supmin --seed 1",
        writes_run=True,
    )
    for add in (flags.add_data, flags.add_augmentation, flags.add_model, flags.add_layers, flags.add_method):
        add(parser)
    for add in (flags.add_optimisation, flags.add_runtime, flags.add_monitoring, flags.add_output):
        add(parser)
    return parser


def train(
    state: TrainingState,
    *,
    batches: TrainingBatches,
    recipe: StepRecipe,
    embed_all: Callable[[], tuple[Tensor, Tensor, Tensor]],
    reporter: Reporter,
) -> bool:
    """Train until the last epoch or a requested stop; return whether the run is finished."""
    objective, optimizer, scaler = state.objective, state.optimizer, state.scaler
    network = recipe.prepare(state.network, objective)
    if reporter.world.size > 1 and any(parameter.requires_grad for parameter in network.parameters()):
        network = distributed.DistributedDataParallel(network)
    while state.epoch < reporter.epochs:
        if objective.wants_embeddings(state.epoch):
            objective.on_epoch(state.epoch, embed_all, distributed.broadcast)
        for images, labels, ids, draws in batches.rest_of_epoch(state.step):
            set_learning_rate(optimizer, recipe.learning_rate(state.step))
            objective.on_step(state.epoch, state.step)
            for first in gradient_passes(recipe.sam_rho, optimizer, network, objective):  # one, with --sam-rho two
                if recipe.micro_batches > 1:  # gradient caching: all that the other branch does, piece by piece
                    features, z = network(images, labels, ids, draws)
                else:
                    inputs = recipe.views.views(images, ids, draws, objective.views)
                    inputs = recipe.cutmix(inputs, labels, ids, draws)
                    with recipe.autocast():
                        features, z = embed_views(network, inputs[:, : objective.student_views])
                    z = objective.add_keys(z, inputs)
                    del inputs  # the network keeps a copy in its own memory format
                objective.keep_graph_terms = first and reporter.logs_at(state.step + 1)
                loss = objective(z, labels, distributed.pool_of(z, labels, ids), features=features, sample_ids=ids)
                if first:  # what is logged is the loss at the weights themselves
                    reporter.monitor.add_gradients(objective.values, (z, features))
                    logged = loss, ids, features
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                # DDP averages the network's gradients; the objective's own parameters live outside of it.
                distributed.average_gradients(objective.parameters())
            step_optimizer(optimizer, scaler, recipe.clip_norm)
            objective.after_step(state.network)
            if state.average is not None:  # it is evaluated; training goes on with the weights themselves
                state.average.update(state.step)
            state.step += 1
            reporter.log_step(*logged)
            # After the last step of an epoch the epoch is ended first.
            if state.step % batches.steps_per_epoch and reporter.stop_requested():
                reporter.save_checkpoint()
                return False
        state.epoch += 1
        reporter.log_epoch()
        reporter.save_checkpoint()
        if reporter.stop_requested():
            return False
    return True


def build_state(
    args: argparse.Namespace, given: Given, dataset: Dataset, sampler: BatchSampler, device: torch.device
) -> TrainingState:
    """Build network, objective and optimizer."""
    spec = settings.encoder_spec(args, dataset)
    encoder = build_encoder(spec, args.drop_path)
    loaded = start_encoder(args, encoder, spec)
    feature_dim = int(encoder.feature_dim)  # type: ignore[arg-type]  # an int
    arguments = settings.objective_arguments(args, dataset, sampler, feature_dim)
    objective = build_objective(args.method, **arguments).to(device)  # type: ignore[arg-type]  # plain values
    # The objective's own check would wait for the device in every step, and raise before LossMonitor saves the batch.
    objective.validate = False
    projection_dim = args.projection_dim if objective.space == "projection" else None
    network = PretrainNetwork(encoder, projection_dim, batchnorm=args.projection_batchnorm)
    freeze(args, network)
    synchronise(network, device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    if args.grad_checkpointing:
        recompute_blocks(network.encoder, spec.name)
    objective.attach(network)
    optimizer = optimizer_of(args, network, objective)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    description = Description.of(
        method=args.method,
        objective=arguments,
        spec=spec,
        projection_dim=projection_dim,
        dataset=dataset,
        normalisation=None if loaded is None or args.normalise == "data" else loaded.normalisation,
        augmentation=settings.augmentation(args, dataset),
        seed=args.seed,
        projection_batchnorm=args.projection_batchnorm,
    )
    return TrainingState(network, objective, optimizer, scaler, description, given.values)


def main() -> int:
    """Set up, train, save."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    settings.refuse_idle_flags(parser, given)
    refuse_idle_layers(parser, args)
    refuse_two_averages(parser, args)
    choose_length(parser, given)

    # 2. runtime
    world, stop = setup.start_processes(args)

    # 3. run folder
    folder = RunFolder(Path(args.output or f"runs/{settings.run_name(args)}"))
    stored = distributed.from_first_rank(lambda: dict(data_settings.stored_arguments(args, folder.path)))
    data_settings.leave_open(given, stored)
    args = given.namespace()
    if setup.claim(folder, given.values, args, world):
        return 0

    # 4. data
    rule = distributed.from_first_rank(lambda: data_settings.split_rule(args, folder.path))
    edition = distributed.from_first_rank(lambda: data_settings.decoding_edition(folder.path))
    wanted = data_settings.dataset_settings(args, rule, edition)
    dataset = setup.on_device(data_settings.load_own_size(args, wanted, stored, world.device), world)
    reasons = data_settings.fill_in(args, dataset, stored, given, world.device)
    sampler = settings.batch_sampler(args, dataset, world.size)
    data_settings.whole_epochs(args, sampler)

    # 5. model, 6. objective, 7. optimizer
    state = build_state(args, given, dataset, sampler, world.device)
    state.average = setup.weight_average(args, state, sampler)
    encoder_before = module_digest(state.network.encoder) if args.freeze_encoder else None

    # 8. resume, 9. plan
    plan_lines = setup.resume_and_plan(args, state, folder, dataset, sampler, world, *reasons)
    recipe = setup.step_recipe(args, state, sampler, world)
    setup.warn(plan.composition_warning(sampler, args.method), world)
    setup.warn(length_warning(args.epochs, sampler, dataset.name) if args.weights is None else None, world)
    if args.dry_run:
        return 0
    if world.main and not (folder.path / "split.csv").exists():  # the last of the three
        derived = settings.derived(args, folder.path, dataset, state.description)
        setup.save_record(folder, given.values, given.sources, derived, world)
        dataset.save_split(folder.path / "split.csv")
    elif world.main:
        dataset.mend_split(folder.path / "split.csv")

    # 10. loop
    remedies = plan.collapse_remedies(sampler, args.method, args.lr)
    watch = CollapseWatch(state.network, dataset, recipe.views, remedies)
    reporter = setup.build_reporter(args, state, folder, sampler, stop, world, watch)
    reporter.begin(plan_lines, dataset, recipe.views)
    embed_all = partial(embed_training, state.network, dataset, recipe.views, args.num_workers)
    if setup.features_once(args, state):
        dataset, recipe = frozen.precompute(state.network, dataset, recipe, args.num_workers)
    batches = TrainingBatches(dataset, sampler, world, args.num_workers)
    if not train(state, batches=batches, recipe=recipe, embed_all=embed_all, reporter=reporter):
        return reporter.tell_stop()

    # 11. result
    if args.freeze_encoder and module_digest(state.network.encoder) != encoder_before:
        raise ValueError("--freeze-encoder: the encoder has changed; the result is refused")
    reporter.finish(folder)
    return 0


if __name__ == "__main__":
    runtime.run(main)
