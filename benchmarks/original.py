"""Train as the published code of SupMin does and as pretrain.py does, on the same images, and time both.

    python benchmarks/original.py --output original.csv

Both start from the same weights and see the same number of images of the same views' strength at the same learning
rates; benchmarks/published.py is the former, pretrain.py's own loop the latter, its log and checkpoints included. After
every epoch, outside of the time, a logistic regression on frozen features learns from up to 1,000 images of each class
and is scored on the validation images. Epochs take turns in one process. Without the images of Fashion-MNIST (Debian's
package dataset-fashion-mnist) it is scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks import timing
from benchmarks.flags import add_benchmark
from benchmarks.loop import Loop
from benchmarks.published import Length, Published
from ttc.datasets import TensorImages
from ttc.evaluation.probe import balanced_rows, fit_logistic
from ttc.flags.parser import Parser, real, whole
from ttc.metrics.classification import classification_metrics
from ttc.models.pretrained import embed
from ttc.run import runtime
from ttc.run.log import log

RECIPES = Path(__file__).resolve().parents[1] / "scripts" / "recipes"
DATA = {
    "fashion": ("fashion-mix5-95.args", "/usr/share/datasets/fashion-mnist"),
    "digits": ("digits-lowhigh.args", "/"),
}
"""Recipe of the data, and the folder that it needs."""
PROBE_IMAGES = 1000
PUBLISHED = "published fp32"
RUNS = {"pretrain.py fp32": "fp32", "pretrain.py bf16": "bf16"}


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Time the published pipeline and this one.", "python benchmarks/original.py --output original.csv")
    add = parser.add_argument_group("cases").add_argument
    add("--data", choices=tuple(DATA), help="images; the default is fashion where its files are, else digits")
    add("--image-size", type=whole(8), default=28, metavar="PX", help="input of the network")
    add("--encoder", default="convnet-w16", metavar="NAME", help="of pretrain.py; its own choice up to 64 px")
    add("--epochs", type=whole(1), default=6, metavar="N", help="of each run")
    add("--accuracy", type=real(0, 1), default=0.81, metavar="A", help="balanced accuracy that is to be reached")
    add_benchmark(parser, repeats=3)
    return parser


def build_loop(precision: str, seed: int, options: argparse.Namespace, folder: Path) -> Loop:
    """Set up a run of pretrain.py."""
    words = [
        f"@{RECIPES / DATA[options.data][0]}",
        "--method",
        "supmin",
        "--image-size",
        options.image_size,
        "--seed",
        seed,
    ]
    words += ["--encoder", options.encoder, "--epochs", options.epochs, "--warmup-epochs", min(2, options.epochs)]
    words += ["--precision", precision, "--metrics-every-epochs", 0, "--save-every-epochs", options.epochs]
    return Loop([str(word) for word in words], folder, runtime.pick_device(options.device))


def build_published(loop: Loop) -> Published:
    """Set up the published pipeline on the images of a run of pretrain.py, from the same weights."""
    args, rows, images = loop.args, loop.dataset.indices("train"), loop.dataset.images
    assert isinstance(images, TensorImages)
    network = copy.deepcopy(loop.state.network).to(memory_format=torch.contiguous_format)
    labels = loop.dataset.labels[rows].eq(loop.dataset.minority_class or 0).long()
    length = Length(args.batch_size, args.epochs, args.warmup_epochs, args.lr, args.weight_decay)
    return Published(network, images.data[rows], labels, loop.recipe.views, length, args.seed)


def accuracy(network: nn.Module, loop: Loop) -> float:
    """Return the balanced accuracy of a probe of the network's features."""
    data, views = loop.dataset, loop.recipe.views
    pool = torch.cat([data.indices("train"), data.indices("pool")])
    learned = balanced_rows(data, pool, PROBE_IMAGES, "probe", seed=0)
    rows = torch.cat([learned, data.indices("val")])
    features = torch.cat([part[:, 0] for part, _ in embed(network, data, views, rows, views=0)])
    labels, first = data.labels[rows], len(learned)
    scores = fit_logistic(features[:first], labels[:first], None)(features[first:])
    metrics = classification_metrics(labels[first:].numpy(), scores, bootstrap=0)
    value = metrics["balanced_accuracy"]["value"]
    assert value is not None
    return value


Curve = list[tuple[float, float]]
"""Seconds of each epoch, and the accuracy after it."""


def train(seed: int, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Curve], int]:
    """Train all runs of a seed, epoch by epoch in turns; return their curves and the samples of an epoch."""
    loops = {name: build_loop(kind, seed, options, folder / f"{kind}{seed}") for name, kind in RUNS.items()}
    first = next(iter(loops.values()))
    published = build_published(first)
    epochs: dict[str, tuple[Callable[[], object], nn.Module]] = {PUBLISHED: (published.epoch, published.network)}
    for name, loop in loops.items():
        epochs[name] = (lambda loop=loop: loop.steps(loop.steps_per_epoch), loop.state.network)  # type: ignore[misc]
    curves: dict[str, Curve] = {name: [] for name in epochs}
    for _ in range(options.epochs):
        for name, (epoch, network) in epochs.items():
            seconds = timing.seconds(epoch, runtime.pick_device(options.device))
            curves[name].append((seconds, accuracy(network, first)))
            log.info("seed %d  %s  %.2f s  accuracy %.3f", seed, name, *curves[name][-1])
    return curves, first.steps_per_epoch * first.args.batch_size


def seconds_until(curve: Curve, wanted: float) -> float | None:
    """Return the training time up to the first epoch after which the accuracy is reached; None if it never is."""
    total = 0.0
    for seconds, reached in curve:
        total += seconds
        if reached >= wanted:
            return total
    return None


def rows_of(seeds: list[dict[str, Curve]], options: argparse.Namespace, samples: int) -> list[dict[str, str]]:
    """Return one row per pipeline."""
    rows = []
    for name in seeds[0]:
        seconds, slow = ([curve[0] for run in seeds for curve in run[key]] for key in (name, PUBLISHED))
        until, slow_until = ([seconds_until(run[key], options.accuracy) for run in seeds] for key in (name, PUBLISHED))
        row = {"data": options.data, "encoder": options.encoder, "image_size": str(options.image_size)}
        row |= {"samples_of_an_epoch": str(samples), "epochs": str(options.epochs), "seeds": str(len(seeds))}
        row |= {"pipeline": name, "seconds_per_epoch": f"{statistics.median(seconds):.2f}"}
        row |= {"times_faster_than_published": f"{timing.times_faster(slow, seconds):.2f}"}
        row |= {"accuracy_at_the_end": f"{statistics.mean(run[name][-1][1] for run in seeds):.3f}"}
        row |= {"accuracy_wanted": f"{options.accuracy:g}", "seconds_until_then": "", "times_sooner": ""}
        row |= {"seeds_that_reach_it": str(len(until) - until.count(None))}
        pairs = [(a, b) for a, b in zip(slow_until, until, strict=True) if a is not None and b is not None]
        if pairs:
            row["seconds_until_then"] = f"{statistics.median(fast for _, fast in pairs):.1f}"
            row["times_sooner"] = f"{statistics.median(a / b for a, b in pairs):.2f}"
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Train, time, write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    device = runtime.pick_device(options.device)
    timing.start(options.threads)
    options.data = options.data or next(name for name, (_, folder) in DATA.items() if Path(folder).is_dir())
    with tempfile.TemporaryDirectory() as folder:
        seeds = [train(seed, options, Path(folder)) for seed in range(options.repeats)]
    rows = rows_of([curves for curves, _ in seeds], options, seeds[0][1])
    if options.output:
        timing.write_rows(options.output, rows, device)
    return 0


if __name__ == "__main__":
    runtime.run(main)
