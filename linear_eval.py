"""Probe a frozen encoder with a linear layer.

python linear_eval.py --checkpoint runs/NAME/checkpoints/last.pt
python linear_eval.py --embeddings FILE.npz      arrays features [N, F], labels [N], perhaps split, of any encoder

The checkpoint names its data, splits, normalisation and architecture, so no other flag is needed. Features are
extracted once, in eval mode, and a logistic regression learns from (a) all training samples, (b) a balanced subset with
as many samples of each class as the minority has, (c) a balanced share of the pool. `--protocol paper` trains a linear
layer with Adam on augmented views instead; `--head` also takes heads that are balanced after training, nearest
neighbours, nearest prototypes and the method's own classifier. Only validation selects, thresholds and temperature too;
the test split is used once, at the end. `--folds` cross-validates small sets.

`--floor` measures plain classifiers of raw pixels on the same rows, which the encoder should clear.

Writes result.json, predictions.csv and heads.pt to RUN/linear_eval, and the result to standard output.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    gc.disable()  # until all is imported, which leaves nothing to collect
    # Work of seconds in thousands of small pieces: threads that wait busily take longer than the work, beside others.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | os.environ

import pandas
import torch
from torch import Tensor

from ttc import distributed, flags
from ttc.datasets import Dataset
from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.embeddings import as_run, read_features
from ttc.evaluation.evaluate import Evaluation, Results, cross_validate, fit_and_test
from ttc.evaluation.floor.measure import FloorResult, measure_floor
from ttc.evaluation.heads import prototype_classifier, save_heads
from ttc.evaluation.probabilities import check_prevalences
from ttc.evaluation.probe import (
    PROBES,
    evaluation_rows,
    module_digest,
    paper_probes,
    probe_rows,
    summarise,
    usual_probes,
)
from ttc.flags import settings
from ttc.flags.heads import (
    FITTED,
    check_natural_heads,
    name_positive_class,
    names_of_checkpoint,
    protocol_of,
    refuse_idle_heads,
    subgroup_cells,
)
from ttc.flags.parser import Parser
from ttc.metrics.clinic.calibrators import check_calibration
from ttc.models.layers import OUTPUTS, WithStages
from ttc.models.pretrained import Pretrained, embed_shared, load_pretrained, own_classifier
from ttc.results.clinic.report_card import write_evaluation
from ttc.results.floor.words import falls_short
from ttc.run import runtime
from ttc.run.checkpoint import contents, write_text
from ttc.run.folder import RunFolder, tell
from ttc.run.log import log, start_logging


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Probe a frozen encoder with a linear layer.",
        "python linear_eval.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt",
        writes_run=True,
    )
    flags.add_checkpoint(parser, required=False)
    flags.add_embeddings(parser)
    flags.add_heads(parser)
    flags.add_probe(parser)
    flags.add_clinical(parser)
    flags.add_groups(parser)
    flags.add_evaluation_set(parser)
    flags.add_runtime(parser, precision=False)
    flags.add_evaluation_output(parser)
    flags.add_figures(parser)
    flags.add_json(parser)
    return parser


def draw_rows(dataset: Dataset, args: argparse.Namespace) -> dict[str, list[tuple[int, Tensor]]]:
    """Return, by probe, the seed of every draw and the rows that are learned from."""
    return {
        probe: [
            (seed, probe_rows(dataset, probe, fraction=args.probe_fraction, seed=seed))
            for seed in range(args.seed, args.seed + (1 if probe == "all" else args.probe_seeds))
        ]
        for probe in args.probes
    }


def evaluate(
    evaluation: Evaluation,
    splits: dict[str, Tensor],
    learned: dict[str, list[tuple[int, Tensor]]],
    args: argparse.Namespace,
) -> Results:
    """Measure every head: those of the checkpoint, then those that learn from samples, on the test rows or on folds."""
    run, results, numbers = evaluation.run, Results(), {"seed": args.seed, "bootstrap": args.bootstrap}
    for head, layer, build in (("own", "encoder", own_classifier), ("prototype", "projection", prototype_classifier)):
        if head in args.head:
            with contents(Path(args.checkpoint)):
                predict = build(run)
            metrics = evaluation.measure(
                layer, predict, splits, name=head, bootstrap=args.bootstrap, prior=evaluation.prior(head)
            )
            results[head] = {"classifier": {"train_samples": sum(run.description.class_counts), **summarise([metrics])}}
    heads = [name for name in args.head if name in FITTED]
    if args.folds is not None:
        return results | cross_validate(evaluation, heads, args.layers, folds=args.folds, **numbers)
    return results | fit_and_test(evaluation, heads, args.layers, splits, learned, **numbers)


def save_floor(folder: RunFolder, result: dict[str, object], floor: FloorResult, predictions: pandas.DataFrame) -> None:
    """Write the floor as a result of its own, beside its predictions, so that scripts/compare.py can read it."""
    path = folder.path / "floor"
    path.mkdir(exist_ok=True)
    write_text(path / "predictions.csv", predictions.to_csv(index=False))
    folder.save_json("floor/result.json", {**result, "probes": {"floor": floor["probes"]}})


def class_names(args: argparse.Namespace) -> list[str]:
    """Return the names of the classes of the checkpoint, or of the file of features."""
    if args.checkpoint is not None:
        return names_of_checkpoint(args.checkpoint)
    return read_features(Path(args.embeddings), "--embeddings").class_names


def open_source(
    args: argparse.Namespace, device: torch.device
) -> tuple[Pretrained, str, Callable[[Tensor], dict[str, Tensor]]]:
    """Return the run, the digest of its network, and what gives the features of rows [N] by layer.

    Of a file of features, `args.layers` keeps what the file holds.
    """
    if args.embeddings is not None:
        file = read_features(Path(args.embeddings), "--embeddings")
        layers = {"encoder": file.features} | ({} if file.projection is None else {"projection": file.projection})
        args.layers = [layer for layer in args.layers if layer in layers] or ["encoder"]
        digest = str(file.about.get("encoder_sha256", ""))
        return as_run(file, args.seed), digest, lambda rows: {name: values[rows] for name, values in layers.items()}
    run = load_pretrained(args.checkpoint, args.data_root, args.num_workers, device)
    # A name that is none ends the script before the images are read.
    network = WithStages(run.network, [layer for layer in args.layers if layer not in OUTPUTS])

    def embed_rows(rows: Tensor) -> dict[str, Tensor]:
        features, z = embed_shared(network, run.dataset, run.views, rows, views=0, num_workers=args.num_workers)
        return {**network.split(features[:, 0]), "projection": z[:, 0]}

    return run, module_digest(run.network), embed_rows


def main() -> int:
    """Load, extract, probe, save."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    refuse_idle_heads(parser, args, given.sources)
    args.checkpoint = given.values["checkpoint"] = args.checkpoint and checkpoint_of(args.checkpoint)

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device), distributed.EVALUATION_MINUTES)
    runtime.seed_everything(args.seed, rank=0)
    start_logging(world.main)

    # 3. run folder
    folder = RunFolder(settings.evaluation_folder(args, "linear_eval"))
    name_positive_class(given, args, lambda: class_names(args))
    digest = "input_sha256" if args.checkpoint is None else "checkpoint_sha256"
    identity = {**given.values, digest: settings.file_digest(args.checkpoint or args.embeddings)}
    if distributed.from_first_rank(lambda: folder.claim(identity)):
        log.info("%s holds the finished result of this command; nothing to do", folder.path)
        if world.main:
            folder.tell(args.json)
        return 0

    # 4. data and model
    run, before, embed_rows = open_source(args, world.device)
    args.positive_class = settings.positive_class(args.positive_class, run.description)
    check_prevalences(args.deploy_prevalence, len(run.description.class_names))
    columns = subgroup_cells(args, run.dataset)
    tested = evaluation_rows(run.dataset, "test", args.class_balance)
    splits = {"val": run.dataset.indices("val"), "test": tested}
    if args.folds is None:
        check_calibration(args.calibration, run.dataset.labels[splits["val"]].numpy(), len(run.description.class_names))
    if not args.probes and args.folds is None:
        usual = paper_probes(run.dataset) if args.protocol == "paper" else PROBES
        args.probes = usual_probes(run.dataset, usual, fraction=args.probe_fraction)
    check_natural_heads(args, len(run.description.class_names))

    # 5. features
    learned = {} if args.folds is not None else draw_rows(run.dataset, args)
    needed = [*splits.values(), *(chosen for drawn in learned.values() for _, chosen in drawn)]
    if args.folds is not None and not run.step:
        # What an encoder was trained on says nothing about how well it knows other samples.
        needed.append(run.dataset.indices("train"))
    rows = torch.unique(torch.cat(needed))
    features = embed_rows(rows)
    log.info("features of %d samples", len(rows))

    # 6. probes
    if world.main:
        evaluation = Evaluation(
            run,
            rows,
            features,
            protocol=args.protocol,
            neighbours=args.neighbours,
            votes=args.neighbour_votes,
            measured=protocol_of(args, args.positive_class),
            num_workers=args.num_workers,
            columns=columns,
        )
        results = evaluate(evaluation, splits, learned, args)
        numbers = {"folds": args.folds, "seed": args.seed, "bootstrap": args.bootstrap}
        floor = None if args.floor == "none" else measure_floor(evaluation, splits, learned, results=results, **numbers)
        if args.checkpoint is not None and module_digest(run.network) != before:
            raise ValueError(f"--checkpoint {args.checkpoint}: the frozen encoder has changed; the result is refused")

        # 7. result
        folder.save_arguments(identity, {**given.sources, digest: "content of the file"}, {})
        description, names, positive = run.description, run.description.class_names, args.positive_class
        path, calibrators = folder.path / "heads.pt", evaluation.calibrators
        save_heads(
            path, evaluation.heads, names, positive, encoder_sha256=before, calibrators=calibrators,
            natural_counts=description.natural_counts,
        )  # fmt: skip
        result = {
            "kind": "linear_eval",
            "method": description.method,
            "dataset": description.data["name"],
            "seed": description.seed,
            "step": run.step,
            "protocol": args.protocol,
            "class_balance": args.class_balance,
            "class_names": names,
            "positive_class": positive,
            "folds": args.folds,
            "test_samples": len(splits["test"] if args.folds is None else rows),
            "encoder_sha256": before,
            "probes": results,
        }
        if floor is not None:
            save_floor(folder, result, *floor)
        predictions, measured = pandas.concat(evaluation.tables), evaluation.measured
        result = {**result, "floor": floor and floor[0]}
        result = write_evaluation(folder, result, predictions, description, measured, given.values)
        for line in falls_short(results, floor and floor[0], description, run.arguments, run.step):
            log.warning("%s", line)
        tell(result, folder.result, args.json)
    return 0


if __name__ == "__main__":
    runtime.run(main)
