"""How much of a step of pretrain.py is the network: its own loop against the network alone.

    python benchmarks/bound.py --output bound.csv
    python benchmarks/bound.py --encoder resnet50 --image-size 224 --batch-size 4 --steps 1
    python benchmarks/bound.py --device cuda --encoder resnet50 --image-size 224 --batch-size 256 --num-workers 4 8 16

The network alone is the bound: forward and backward pass of the same network in the same precision and memory format
over one batch of views that lies on the device, with the sum of the embeddings in place of the loss. The loop brings
the batches (from memory, from `--cache disk` or from JPEG files that are drawn for this), makes the views, computes the
loss, steps the optimizer and writes its log; every turn holds at least one line of it. All take turns in one process.
On a CPU with one thread the time is the process's own, and that in which it waits for processes that decode. The last
columns split a step up by the lines of the loop; the loss's backward pass counts as the network's there.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import pictures, timing
from benchmarks.flags import add_benchmark
from benchmarks.loop import PARTS, Loop
from ttc.datasets import Dataset, TensorImages
from ttc.datasets.images import CachedImages, FileImages
from ttc.datasets.pixels.decoding import decode_file
from ttc.flags.parser import Parser, whole
from ttc.run import runtime

SOURCES = ("tensors", "disk", "jpeg")
PREFETCHED = 2
"""Batches that a process which decodes works ahead."""
LOG_EVERY = 10
DECODED = 40
"""Files by which the decoder is timed."""


@dataclass(frozen=True)
class Case:
    """One source of the images; with JPEG files the number of processes that decode."""

    source: str
    workers: int = 0

    @property
    def lead(self) -> int:
        """Steps before those that are timed, which use up what was decoded while the others had their turn."""
        return PREFETCHED * self.workers


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Time the loop of pretrain.py against its network alone.",
        "python benchmarks/bound.py --encoder resnet50 --image-size 224 --batch-size 4 --steps 1 --output bound.csv",
    )
    add = parser.add_argument_group("cases").add_argument
    encoder_help = "resnet18-wN, a ResNet-18 for small images with N >= 8 channels first, or one of pretrain.py"
    add("--encoder", nargs="+", default=["resnet18-w16"], metavar="NAME", help=encoder_help)
    add("--image-size", type=whole(8), default=28, metavar="PX", help="input of the network")
    add("--image-pixels", type=whole(16), metavar="PX", help="width of the files; the default is twice the input's")
    add("--batch-size", type=whole(2), default=256, metavar="B", help="samples of a step, two views each")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="as in pretrain.py")
    add("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), help="where images come from")
    workers_help = "processes that decode files; one row for each number"
    add("--num-workers", type=whole(1), nargs="+", default=[1], metavar="N", help=workers_help)
    steps_help = "steps per turn; raise it on a GPU, where steps are short"
    add("--steps", type=whole(1), default=2, metavar="N", help=steps_help)
    add_benchmark(parser, repeats=5)
    return parser


def in_memory(dataset: Dataset) -> Dataset:
    """Return the data set with its cached images in memory."""
    assert isinstance(dataset.images, CachedImages)
    return replace(dataset, images=TensorImages(dataset.images.data[dataset.images.rows]))


def build_loop(encoder: str, case: Case, options: argparse.Namespace, folder: Path) -> Loop:
    """Set up the run of a case."""
    words = ["--dataset", "imagefolder", "--data-root", folder / "images", "--image-size", options.image_size]
    words += ["--encoder", encoder, "--batch-size", options.batch_size, "--precision", options.precision]
    words += ["--method", "supmin", "--augmentation", "natural", "--epochs", 1, "--warmup-epochs", 0, "--lr", 0.01]
    words += ["--log-every-steps", min(options.steps, LOG_EVERY), "--num-workers", case.workers]
    if case.source != "jpeg":
        words += ["--cache", "disk", "--cache-folder", folder / "cache"]
    change = in_memory if case.source == "tensors" else lambda dataset: dataset
    run = folder / encoder / f"{case.source}{case.workers}"
    return Loop([str(word) for word in words], run, runtime.pick_device(options.device), change)


class NetworkAlone:
    """The network of a loop, over and over on the same views."""

    def __init__(self, loop: Loop) -> None:
        """Copy the network and make the views."""
        self._network, self._autocast = copy.deepcopy(loop.state.network), loop.recipe.autocast
        batch, count = loop.first_batch(), loop.state.objective.views
        views = loop.recipe.views.views(batch.images, batch.ids, batch.draws, count).flatten(0, 1)
        self._views = views.contiguous(memory_format=torch.channels_last)

    def steps(self, count: int) -> None:
        """Make so many forward and backward passes."""
        for _ in range(count):
            with self._autocast():
                _, z = self._network(self._views)
            self._network.zero_grad(set_to_none=True)
            torch.autograd.backward(z.sum())


def seconds_of(loop: Loop, steps: int, device: torch.device) -> float:
    """Return the time of so many steps; to processor time is added how long the loop waited for batches."""
    waited = loop.waited
    seconds = timing.seconds(lambda: loop.steps(steps), device)
    return seconds + (loop.waited - waited if timing.counts_processor_time(device) else 0.0)


def decoded_per_second(dataset: Dataset) -> float:
    """Return how many of the files one core decodes in a second."""
    images = dataset.images
    assert isinstance(images, FileImages)
    paths = images.paths[:DECODED]
    cpu = torch.device("cpu")
    return len(paths) / timing.seconds(lambda: [decode_file(path, images.decoding) for path in paths], cpu)


def measure(encoder: str, cases: list[Case], options: argparse.Namespace, folder: Path) -> list[dict[str, str]]:
    """Return one row per case for one encoder."""
    device, steps = runtime.pick_device(options.device), options.steps
    loops = {case: build_loop(encoder, case, options, folder) for case in cases}
    alone = NetworkAlone(loops[cases[0]])
    bound: list[float] = []
    times: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(options.repeats + 1):  # the first turn warms up
        bound.append(timing.seconds(lambda: alone.steps(steps), device) / steps)
        for case, loop in loops.items():
            loop.steps(case.lead)
            times[case].append(seconds_of(loop, steps, device) / steps)
    rows = []
    for case, loop in loops.items():
        row = {"encoder": encoder, "image_size": str(options.image_size), "batch": str(options.batch_size)}
        row |= {"precision": options.precision, "images_from": case.source, "workers": str(case.workers or "")}
        row |= {"milliseconds": f"{1000 * statistics.median(times[case][1:]):.0f}"}
        row |= {"network_alone": f"{1000 * statistics.median(bound[1:]):.0f}"}
        row |= {"percent_of_bound": f"{100 * timing.times_faster(bound[1:], times[case][1:]):.1f}"}
        loop.steps(case.lead)
        shares = loop.profile(steps, device)
        row |= {f"{part}_percent": f"{100 * shares[part]:.1f}" for part in PARTS}
        row |= {"files_per_second_and_core": "", "cores_to_decode": ""}
        if case.source == "jpeg":
            rate = decoded_per_second(loop.dataset)
            wanted = options.batch_size / statistics.median(bound[1:])
            row |= {"files_per_second_and_core": f"{rate:.0f}", "cores_to_decode": f"{wanted / rate:.2g}"}
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Draw, measure, write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    options.image_pixels = options.image_pixels or max(16, 2 * options.image_size)
    device = runtime.pick_device(options.device)
    timing.start(options.threads)
    cases = [Case(source, n) for source in options.sources for n in (options.num_workers if source == "jpeg" else [0])]
    most = max(case.lead for case in cases) + options.steps
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        # One epoch that no case comes to the end of: what happens between two epochs is no part of a step.
        training = options.batch_size * ((options.repeats + 2) * most + 2)
        pictures.write_dataset(Path(name) / "images", training, options.image_pixels)
        for encoder in options.encoder:
            rows += measure(encoder, cases, options, Path(name))
    if options.output:
        timing.write_rows(options.output, rows, device)
    return 0


if __name__ == "__main__":
    runtime.run(main)
