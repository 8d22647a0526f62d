"""Probe a frozen encoder with a linear layer.

python linear_eval.py --checkpoint runs/NAME/checkpoints/last.pt

The checkpoint names its data, splits, normalisation and architecture, so no other flag is needed. Features are
extracted once, in eval mode, and a logistic regression learns from (a) all training samples, (b) a balanced subset with
as many samples of each class as the minority has, (c) a balanced share of the pool. `--protocol paper` trains a linear
layer with Adam on augmented views instead. Only validation selects; the test split is used once, at the end.

Writes result.json and predictions.csv to RUN/linear_eval, and the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping

import numpy as np
import pandas
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc import distributed, flags, from_flags, runtime
from ttc.cli import Parser
from ttc.metrics.classification import classification_metrics
from ttc.metrics.tables import format_probes
from ttc.optim import build_optimizer, learning_rate, set_learning_rate
from ttc.pretrained import Pretrained, embed, embed_shared, load_pretrained, own_classifier
from ttc.probe import (
    PROBES,
    auroc,
    evaluation_rows,
    fit_logistic,
    module_digest,
    prediction_table,
    probe_rows,
    summarise,
)
from ttc.runfolder import RunFolder
from ttc.runlog import log, save_pr_curves, start_logging

PAPER_LR, PAPER_BATCH, PAPER_EPOCHS = 3e-4, 1024, 100
"""Source: METHODS section 5, linear probe of the published configuration."""

Predict = Callable[[Tensor], NDArray[np.float64]]
"""From features [N, F] to class probabilities [N, K]."""


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Probe a frozen encoder with a linear layer.",
        "python linear_eval.py --checkpoint runs/digits-supmin-seed0/checkpoints/last.pt",
    )
    flags.add_checkpoint(parser, required=True)
    flags.add_probe(parser)
    flags.add_evaluation_set(parser)
    flags.add_runtime(parser, precision=False)
    flags.add_evaluation_output(parser)
    return parser


def train_paper_probe(
    run: Pretrained,
    rows: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    *,
    layer: str,
    seed: int,
    device: torch.device,
    num_workers: int,
) -> Predict:
    """Train a linear layer with Adam on one augmented view per epoch; validation AUROC chooses the epoch."""
    labels, generator = run.dataset.labels[rows].to(device), torch.Generator().manual_seed(seed)
    width = run.network.feature_dim if layer == "encoder" else run.description.projection_dim or run.network.feature_dim
    head = torch.nn.Linear(width, len(run.description.class_names))
    torch.nn.init.normal_(head.weight, std=0.01, generator=generator)
    torch.nn.init.zeros_(head.bias)
    optimizer = build_optimizer("adam", [head.to(device)], lr=PAPER_LR, weight_decay=0.0)

    def predict(features: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            out: NDArray[np.float64] = head(features.to(device)).double().softmax(1).cpu().numpy()
        return out

    best, best_state = -1.0, {}
    for epoch in range(PAPER_EPOCHS):
        set_learning_rate(optimizer, learning_rate(epoch, peak=PAPER_LR, steps=PAPER_EPOCHS, warmup_steps=0))
        views = embed(run.network, run.dataset, run.views, rows, views=1, draw=-2 - epoch, num_workers=num_workers)
        features = torch.cat([both[0 if layer == "encoder" else 1][:, 0] for both in views]).to(device)
        # The incomplete batch stays: a small set would have no batch at all without it.
        for batch in torch.split(torch.randperm(len(rows), generator=generator), PAPER_BATCH):
            loss = torch.nn.functional.cross_entropy(head(features[batch]), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        score = float(epoch) if validation is None else auroc(validation[1], predict(validation[0]))
        if score > best:
            best, best_state = score, {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(best_state)
    return predict


def evaluate(
    run: Pretrained, splits: dict[str, Tensor], features: dict[str, Tensor], rows: Tensor, args: argparse.Namespace
) -> tuple[dict[str, dict[str, dict[str, object]]], pandas.DataFrame]:
    """Measure every head on the test rows.

    Args:
        run: the checkpoint.
        splits: "val" and "test" rows.
        features: layer -> [N, F] features of `rows`.
        rows: [N] int64, ascending.
        args: the flags.

    Returns:
        Metrics by layer and probe ("own" and "classifier" for the method's own head), and predictions by sample id:
        those of the first draw of each probe on the encoder, and of the own head.
    """
    labels, device = run.dataset.labels, next(run.network.parameters()).device
    results: dict[str, dict[str, dict[str, object]]] = {}
    tables = []

    def take(layer: str, wanted: Tensor) -> Tensor:
        return features[layer][torch.searchsorted(rows, wanted)]

    def measure(layer: str, predict: Predict, table: str | None) -> Mapping[str, object]:
        scores = {split: predict(take(layer, wanted)) for split, wanted in splits.items() if len(wanted)}
        if table is not None:
            for split, each in scores.items():
                tables.append(prediction_table(run.dataset, table, split, splits[split], each, args.positive_class))
        return classification_metrics(
            labels[splits["test"]].numpy(),
            scores["test"],
            positive_class=args.positive_class,
            bootstrap=args.bootstrap,
            seed=args.seed,
        )

    if "own" in args.head:
        found = measure("encoder", own_classifier(run), "own")
        trained_on = sum(run.description.class_counts)
        results["own"] = {"classifier": {"train_samples": trained_on, **summarise([found])}}
    for layer in args.layers if "linear" in args.head else []:
        results[layer] = {}
        validation = (take(layer, splits["val"]), labels[splits["val"]]) if len(splits["val"]) else None
        for probe in args.probes:
            draws = []
            for seed in range(args.seed, args.seed + (1 if probe == "all" else args.probe_seeds)):
                chosen = probe_rows(run.dataset, probe, fraction=args.probe_fraction, seed=seed)
                predict: Predict
                if args.protocol == "paper":
                    predict = train_paper_probe(
                        run, chosen, validation, layer=layer, seed=seed, device=device, num_workers=args.num_workers
                    )
                else:
                    predict = fit_logistic(take(layer, chosen), labels[chosen], validation).probabilities
                first = layer == "encoder" and seed == args.seed
                draws.append(measure(layer, predict, probe if first else None))
            results[layer][probe] = {"train_samples": len(chosen), **summarise(draws)}
    return results, pandas.concat(tables) if tables else pandas.DataFrame()


def main() -> int:
    """Load, extract, probe, save."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    args.probes = args.probes or (["fraction"] if args.protocol == "paper" else list(PROBES))

    # 2. runtime
    world = distributed.start(runtime.pick_device(args.device))
    runtime.seed_everything(args.seed, rank=0)
    start_logging(world.main)

    # 3. run folder
    folder = RunFolder(from_flags.evaluation_folder(args, "linear_eval"))
    identity = {**given.values, "checkpoint_sha256": from_flags.file_digest(args.checkpoint)}
    distributed.first_rank_first(lambda: folder.claim(identity), world.device)
    if folder.finished:
        log.info("%s holds the finished result of this command; nothing to do", folder.path)
        sys.stdout.write(folder.result.read_text())
        return 0

    # 4. data and model
    run = load_pretrained(args.checkpoint, args.data_root, args.num_workers, world.device)
    args.positive_class = from_flags.positive_class(args.positive_class, run.description)
    splits = {
        "val": run.dataset.indices("val"),
        "test": evaluation_rows(run.dataset, "test", args.class_balance),
    }
    before = module_digest(run.network)

    # 5. features
    wanted = [run.dataset.indices("train"), *splits.values()]
    if "fraction" in args.probes:
        wanted.append(run.dataset.indices("pool"))
    rows = torch.cat(wanted).unique()
    both = embed_shared(run.network, run.dataset, run.views, rows, views=0, num_workers=args.num_workers)
    features = dict(zip(("encoder", "projection"), (each[:, 0] for each in both), strict=True))
    log.info("extracted features of %d samples", len(rows))

    # 6. probes
    if world.main:
        results, predictions = evaluate(run, splits, features, rows, args)
        if module_digest(run.network) != before:
            raise ValueError(f"--checkpoint {args.checkpoint}: the frozen encoder has changed; the result is refused")

        # 7. result
        folder.save_arguments(identity, {**given.sources, "checkpoint_sha256": "content of the file"}, {})
        predictions.to_csv(folder.path / "predictions.csv", index=False)
        save_pr_curves(folder.path / "tb", predictions, args.positive_class)
        description = run.description
        result = {
            "kind": "linear_eval",
            "method": description.method,
            "dataset": description.data["name"],
            "seed": description.seed,
            "step": run.step,
            "protocol": args.protocol,
            "class_balance": args.class_balance,
            "class_names": description.class_names,
            "positive_class": args.positive_class,
            "test_samples": len(splits["test"]),
            "encoder_sha256": before,
            "probes": results,
        }
        for line in format_probes(results, description.class_names[args.positive_class]):
            log.info("%s", line)
        folder.save_json("result.json", result)
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
