"""Two augmented views per image: batches on the device against one image after the other, and against kornia.

    python benchmarks/augment.py --image-size 28 224 --peers --output augment.csv

All make the views of --augmentation natural: random resized crop, flip, colour jitter, grayscale, normalised tensor.
`per-sample` is torchvision's pipeline on PIL images, as a data set with transforms runs it. All pipelines take turns;
times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks import references, timing
from benchmarks.flags import add_benchmark
from ttc.batches.augment import PRESETS, Augmentation, ViewGenerator
from ttc.flags.parser import Parser, whole
from ttc.run import runtime

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PIXELS_PER_BATCH = 256 * 28 * 28
STRENGTH = PRESETS["natural"]


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Time the augmentation of images.",
        "python benchmarks/augment.py --image-size 28 224 --peers --output augment.csv",
    )
    parser.add_argument_group("cases").add_argument(
        "--image-size",
        type=whole(8),
        nargs="+",
        default=[28, 224],
        metavar="PX",
        help="sides of the RGB images, stored and made alike; a batch holds 256 images at 28 px, fewer of larger ones",
    )
    add_benchmark(parser, repeats=5, peers="kornia")
    return parser


def ttc_views(
    images: Tensor, strength: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]
) -> references.Views:
    """Return this project's views; another draw at each call."""
    generator = ViewGenerator(strength, images.shape[-1], mean, std, seed=0)
    ids, draws = torch.arange(len(images), device=images.device), count()
    return lambda: generator.views(images, ids, torch.full_like(ids, next(draws)), references.VIEWS)


PIPELINES = {"per-sample": references.per_sample_views, "ttc": ttc_views, "kornia": references.kornia_views}


def images_of(size: int, device: torch.device) -> Tensor:
    """Return a batch of smooth random images; how long a transform takes does not depend on what they show."""
    batch = max(8, PIXELS_PER_BATCH // size**2)
    coarse = torch.rand(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").mul(255).byte().to(device)


def measure(size: int, names: list[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per pipeline for one size."""
    device = runtime.pick_device(options.device)
    images = images_of(size, device)
    times = timing.interleave(
        {name: PIPELINES[name](images, STRENGTH, MEAN, STD) for name in names}, options.repeats, device
    )
    rows = []
    for name in names:
        row = {"image_size": str(size), "batch": str(len(images)), "pipeline": name}
        row["samples_per_second"] = f"{len(images) / statistics.median(times[name]):.0f}"
        row["ttc_is_times_faster"] = f"{timing.times_faster(times[name], times['ttc']):.2f}"
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Measure and write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(options.threads)
    names = ["per-sample", "ttc", *(timing.installed_peers(["kornia"]) if options.peers else [])]
    rows = [row for size in options.image_size for row in measure(size, names, options)]
    if options.output:
        timing.write_rows(options.output, rows, runtime.pick_device(options.device))
    return 0


if __name__ == "__main__":
    runtime.run(main)
