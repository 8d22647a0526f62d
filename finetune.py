"""Fine-tune a pretrained encoder with a classifier on top, end to end.

python finetune.py --checkpoint runs/NAME/checkpoints/last.pt
python finetune.py --checkpoint runs/NAME/checkpoints/last.pt --from-scratch      the baseline with the same budget
torchrun --nproc-per-node 2 finetune.py ...                                       several devices, the same flags

The checkpoint names data, splits, normalisation, augmentation and architecture. Validation chooses the epoch; the test
split is used once, at the end.

Writes result.json, predictions.csv, report_card.md and figures, as linear_eval.py does, to RUN/finetune (or
RUN/from_scratch), and beside them what pretrain.py writes: args.json, env.json, log.txt, metrics.jsonl, tb/ and
checkpoints/ with best.pt.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from dataclasses import asdict, replace

if __name__ == "__main__":
    gc.disable()  # until all is imported, which leaves nothing to collect
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's matrices are small: threads would wait for each other

import torch
from torch import nn

from ttc import distributed, flags
from ttc.datasets import TrainingBatches
from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.probe import module_digest
from ttc.flags import data_settings, settings, setup
from ttc.flags.encoder import optimizer_of
from ttc.flags.heads import name_positive_class, names_of_checkpoint, protocol_of, subgroup_cells
from ttc.flags.parser import Parser
from ttc.flags.training import choose_length
from ttc.metrics.clinic.calibrators import check_calibration
from ttc.models.optim import set_learning_rate, step_optimizer
from ttc.models.pretrained import Pretrained, load_pretrained
from ttc.run import runtime
from ttc.run.escape import counted
from ttc.run.folder import RunFolder
from ttc.training.budget import length_warning
from ttc.training.early_stopping import Selection, Wanted, write_result
from ttc.training.embedder import embed_views
from ttc.training.finetuning import KIND, FinetuneNetwork, build_classifier, build_network
from ttc.training.recipe import StepRecipe
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
    flags.add_groups(parser)
    flags.add_evaluation_set(parser)
    flags.add_runtime(parser)
    flags.add_output(parser, "finetune, or from_scratch, in the run folder of the checkpoint")
    flags.add_figures(parser)
    flags.add_json(parser)
    return parser


def train(
    state: TrainingState,
    *,
    batches: TrainingBatches,
    recipe: StepRecipe,
    linear_epochs: int,
    selection: Selection,
    reporter: Reporter,
) -> bool:
    """Train until the last epoch, the end of the patience or a requested stop; return whether the run is finished."""
    assert isinstance(state.network, FinetuneNetwork)
    objective, optimizer, scaler = state.objective, state.optimizer, state.scaler
    network = recipe.prepare(state.network, objective)
    if reporter.world.size > 1 and linear_epochs < reporter.epochs:  # else the encoder has no gradients to average
        network = distributed.DistributedDataParallel(network)
    while state.epoch < reporter.epochs and not selection.exhausted:
        encoder_learns = state.epoch >= linear_epochs
        state.network.learn(encoder_learns)
        for images, labels, ids, draws in batches.rest_of_epoch(state.step):
            set_learning_rate(optimizer, recipe.learning_rate(state.step))
            # In the linear phase the encoder has no gradient, so that neither momentum nor weight decay can move it.
            with torch.set_grad_enabled(encoder_learns):
                if recipe.micro_batches > 1:
                    features, _ = network(images, labels, ids, draws)
                else:
                    view = recipe.cutmix(recipe.views.views(images, ids, draws, 1), labels, ids, draws)
                    with recipe.autocast():
                        features, _ = embed_views(network, view)
            features = features.float()
            loss = objective(features, labels, distributed.pool_of(features, labels, ids))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            # DDP averages the encoder's gradients; the classifier is outside of it.
            distributed.average_gradients(objective.parameters())
            step_optimizer(optimizer, scaler, recipe.clip_norm)
            if state.average is not None:  # it is evaluated; training goes on with the weights themselves
                state.average.update(state.step)
            state.step += 1
            reporter.log_step(loss, ids, features)
            # After the last step of an epoch the epoch is ended first.
            if state.step % batches.steps_per_epoch and reporter.stop_requested():
                reporter.save_checkpoint()
                return False
        state.epoch += 1
        reporter.write(selection.epoch_ended())
        reporter.log_epoch()
        reporter.save_checkpoint()
        if reporter.stop_requested():
            return False
    return True


def build_state(
    args: argparse.Namespace,
    run: Pretrained,
    class_counts: list[int],
    arguments: dict[str, object],
    device: torch.device,
) -> TrainingState:
    """Build network, classifier and optimizer; with --from-scratch only the encoder's first weights differ."""
    flags.check_classes(args, run.description)
    network = build_network(
        run,
        from_scratch=args.from_scratch,
        freeze_until=args.freeze_until,
        drop_path=args.drop_path,
        recompute=args.grad_checkpointing,
        device=device,
    )
    objective, objective_settings = build_classifier(
        args.loss, class_counts, network.feature_dim, args.class_weights, args.seed
    )
    objective.to(device)
    return TrainingState(
        network=network,
        objective=objective,
        optimizer=optimizer_of(args, network, objective),
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


def phases(args: argparse.Namespace, network: nn.Module) -> list[str]:
    """Describe what learns when, and which epoch is kept."""
    learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    learners = "the head alone" if args.freeze_encoder else f"encoder ({learning:,} parameters) and head"
    decay = f" times {args.layer_decay:g} per block from the top" if args.layer_decay < 1 else ""
    return [
        f"start: {'random weights' if args.from_scratch else args.checkpoint}; {learners} learns",
        f"learning rates: head {args.lr:g}, encoder {args.encoder_lr:g}{decay}; "
        f"{counted(args.linear_epochs, 'linear epoch')} first",
        f"the epoch with the best validation {args.select_by} is kept; patience {args.patience or 'without end'}",
    ]


def main() -> int:
    """Set up, train, evaluate."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    choose_length(parser, given)
    args = given.namespace()
    derived = flags.complete_finetuning(parser, args)
    args.checkpoint = given.values["checkpoint"] = checkpoint_of(args.checkpoint)

    # 2. runtime
    world, stop = setup.start_processes(args)

    # 3. run folder
    folder = RunFolder(settings.evaluation_folder(args, "from_scratch" if args.from_scratch else "finetune"))
    name_positive_class(given, args, lambda: names_of_checkpoint(args.checkpoint))
    identity = {**given.values, "checkpoint_sha256": settings.file_digest(args.checkpoint)}
    if setup.claim(folder, identity, args, world):
        if world.main:
            folder.tell(args.json)
        return 0

    # 4. data
    run = load_pretrained(args.checkpoint, args.data_root, args.num_workers, world.device)
    args.positive_class = settings.positive_class(args.positive_class, run.description)
    val_labels = run.dataset.labels[run.dataset.indices("val")].numpy()
    check_calibration(args.calibration, val_labels, len(run.dataset.class_names))
    wanted = Wanted(args.class_balance, protocol_of(args, args.positive_class), subgroup_cells(args, run.dataset))
    fitted = flags.fit_batch(args, given, len(run.dataset.indices("train")))
    sampler = settings.batch_sampler(args, run.dataset, world.size)
    data_settings.whole_epochs(args, sampler)

    # 5. model, 6. objective, 7. optimizer
    runtime.seed_everything(args.seed, rank=0)
    state = build_state(args, run, sampler.presented_counts(), identity, world.device)
    state.average = setup.weight_average(args, state, sampler)
    linear_epochs = args.epochs if args.freeze_encoder else args.linear_epochs
    encoder_before = module_digest(state.network.encoder) if args.freeze_encoder else None

    # 8. resume, 9. plan
    more = [*phases(args, state.network), *fitted]
    plan_lines = setup.resume_and_plan(args, state, folder, run.dataset, sampler, world, *more)
    recipe = setup.step_recipe(args, state, sampler, world, linear_epochs)
    setup.warn(length_warning(args.epochs, sampler, run.dataset.name) if args.from_scratch else None, world)
    if args.dry_run:
        return 0
    if world.main and not (folder.path / "env.json").exists():  # the last of the two
        sources = {**given.sources, "checkpoint_sha256": "content of the file"}
        setup.save_record(folder, identity, sources, {**derived, "output": str(folder.path)}, world)

    # 10. loop
    selection = Selection(
        state, run, args.select_by, args.patience, args.linear_epochs, args.positive_class, args.num_workers
    )
    reporter = setup.build_reporter(args, state, folder, sampler, stop, world)
    reporter.begin(plan_lines, run.dataset, recipe.views)
    finished = train(
        state,
        batches=TrainingBatches(run.dataset, sampler, world, args.num_workers),
        recipe=recipe,
        linear_epochs=linear_epochs,
        selection=selection,
        reporter=reporter,
    )
    if not finished:
        return reporter.tell_stop()

    # 11. result
    write_result(selection, reporter, folder, wanted, encoder_before)
    if world.main:
        folder.tell(args.json)
    return 0


if __name__ == "__main__":
    runtime.run(main)
