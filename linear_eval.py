"""Probe a frozen encoder with a linear layer.

python linear_eval.py --checkpoint runs/NAME/checkpoints/last.pt
python linear_eval.py --embeddings FILE.npz      arrays features [N, F], labels [N], perhaps split, of any encoder

The checkpoint names its data, splits, normalisation and architecture, so no other flag is needed. Features are
extracted once, in eval mode, and a logistic regression learns from (a) all training samples, (b) a balanced subset with
as many samples of each class as the minority has, (c) a balanced share of the pool. `--protocol paper` trains a linear
layer with Adam on augmented views instead; `--head` also takes nearest neighbours, nearest prototypes and the method's
own classifier. Only validation selects, thresholds and temperature too; the test split is used once, at the end.
`--folds` cross-validates small sets.

Writes result.json, predictions.csv and heads.pt to RUN/linear_eval, and the result to standard output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from torch import Tensor

from ttc import distributed, flags
from ttc.datasets import Dataset
from ttc.evaluation.embeddings import as_run, read_features
from ttc.evaluation.evaluate import Evaluation
from ttc.evaluation.folds import stratified_folds
from ttc.evaluation.heads import prototype_classifier, save_heads
from ttc.evaluation.probabilities import check_prevalences
from ttc.evaluation.probe import (
    PROBES,
    evaluation_rows,
    groups_of,
    module_digest,
    paper_probes,
    probe_rows,
    summarise,
    usual_probes,
)
from ttc.flags import settings
from ttc.flags.heads import FITTED, protocol_of, refuse_idle_heads, subgroup_cells
from ttc.flags.parser import Parser
from ttc.metrics.clinic.calibrators import check_calibration
from ttc.models.layers import OUTPUTS, WithStages
from ttc.models.pretrained import Pretrained, embed_shared, load_pretrained, own_classifier
from ttc.results.clinic.report_card import write_evaluation
from ttc.run import runtime
from ttc.run.checkpoint import contents
from ttc.run.folder import RunFolder
from ttc.run.log import log, start_logging

Results = dict[str, dict[str, dict[str, object]]]
"""Metrics by section ("encoder", "knn projection", "own", ...) and probe."""


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
    return parser


def section(head: str, layer: str) -> tuple[str, str]:
    """Return the name of a head's part of the result, and what goes before the names of its probes."""
    return (layer, "") if head == "linear" else (f"{head} {layer}", f"{head} ")


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
    """Measure every head on the test rows.

    Predictions are kept of the first draw of each probe on the first layer, and of the method's own heads.
    """
    run, results = evaluation.run, Results()
    for head, layer, build in (("own", "encoder", own_classifier), ("prototype", "projection", prototype_classifier)):
        if head in args.head:
            with contents(Path(args.checkpoint)):
                predict = build(run)
            metrics = evaluation.measure(
                layer, predict, splits, name=head, bootstrap=args.bootstrap, prior=evaluation.prior(head)
            )
            results[head] = {"classifier": {"train_samples": sum(run.description.class_counts), **summarise([metrics])}}
    for head, layer in itertools.product([name for name in args.head if name in FITTED], args.layers):
        name, prefix = section(head, layer)
        results[name] = {}
        for probe, drawn in learned.items():
            draws = []
            for seed, chosen in drawn:
                predict = evaluation.fit(head, layer, chosen, splits["val"], seed)
                kept_as = prefix + probe if layer == args.layers[0] and seed == args.seed else None
                prior = evaluation.prior(head, chosen)
                draws.append(
                    evaluation.measure(layer, predict, splits, name=kept_as, bootstrap=args.bootstrap, prior=prior)
                )
            results[name][probe] = {"train_samples": len(chosen), **summarise(draws)}
    return results


def cross_validate(evaluation: Evaluation, args: argparse.Namespace) -> Results:
    """Test every sample once, with a head that learned from other folds; a further fold chooses.

    Predictions are kept of every sample on the first layer. "folds" averages over folds, "pooled" takes the
    predictions of all folds together, which alone has intervals.
    """
    run, rows = evaluation.run, evaluation.rows
    labels, groups = run.dataset.labels[rows].numpy(), groups_of(run.dataset, rows)
    fold_N = torch.from_numpy(stratified_folds(labels, groups, args.folds, args.seed))
    results: Results = {}
    for head, layer in itertools.product([name for name in args.head if name in FITTED], args.layers):
        name, prefix = section(head, layer)
        scores, folds, learned = np.zeros((len(rows), len(run.description.class_names))), [], []
        made = np.full_like(scores, np.nan)
        for fold in range(args.folds):
            choosing, tested = fold_N == (fold + 1) % args.folds, fold_N == fold
            chosen, splits = rows[~choosing & ~tested], {"val": rows[choosing], "test": rows[tested]}
            predict = evaluation.fit(head, layer, chosen, splits["val"], args.seed)
            prior = evaluation.prior(head, chosen)
            folds.append(evaluation.measure(layer, predict, splits, name=None, bootstrap=0, prior=prior))
            scores[tested.numpy()] = predict(evaluation.take(layer, splits["test"]))
            calibrator = evaluation.calibrate(splits["val"], predict(evaluation.take(layer, splits["val"])), prior)
            if calibrator is not None:
                made[tested.numpy()] = calibrator(scores[tested.numpy()])
            learned.append(len(chosen))
        details = [fold["details"] for fold in folds]
        complete = None if np.isnan(made).any() else made
        pooled = evaluation.report(rows, scores, rows[:0], None, bootstrap=args.bootstrap, made=complete)
        results[name] = {
            "folds": {"train_samples": min(learned), **summarise(folds), "details": details},
            "pooled": {"train_samples": min(learned), **summarise([pooled])},
        }
        if layer == args.layers[0]:
            evaluation.keep(f"{prefix}folds", "test", rows, scores, complete)["fold"] = fold_N.numpy()
    return results


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

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device))
    runtime.seed_everything(args.seed, rank=0)
    start_logging(world.main)

    # 3. run folder
    folder = RunFolder(settings.evaluation_folder(args, "linear_eval"))
    digest = "input_sha256" if args.checkpoint is None else "checkpoint_sha256"
    identity = {**given.values, digest: settings.file_digest(args.checkpoint or args.embeddings)}
    if distributed.from_first_rank(lambda: folder.claim(identity)):
        log.info("%s holds the finished result of this command; nothing to do", folder.path)
        if world.main:
            sys.stdout.write(folder.result_text())
        return 0

    # 4. data and model
    run, before, embed_rows = open_source(args, world.device)
    args.positive_class = settings.positive_class(args.positive_class, run.description)
    check_prevalences(args.deploy_prevalence, len(run.description.class_names))
    columns = subgroup_cells(args, run.dataset)
    splits = {
        "val": run.dataset.indices("val"),
        "test": evaluation_rows(run.dataset, "test", args.class_balance),
    }
    if args.folds is None:
        check_calibration(args.calibration, run.dataset.labels[splits["val"]].numpy(), len(run.description.class_names))
    if not args.probes and args.folds is None:
        usual = paper_probes(run.dataset) if args.protocol == "paper" else PROBES
        args.probes = usual_probes(run.dataset, usual, fraction=args.probe_fraction)

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
        results = cross_validate(evaluation, args) if args.folds else evaluate(evaluation, splits, learned, args)
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
        predictions, measured = pandas.concat(evaluation.tables), evaluation.measured
        result = write_evaluation(folder, result, predictions, description, measured, given.values)
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
