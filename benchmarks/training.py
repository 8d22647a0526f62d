"""Time whole steps of pretraining: views, network, loss, backward pass, optimizer.

    python benchmarks/training.py --compile --peers --output training.csv
    python benchmarks/training.py --ranks 1 2 --output scaling.csv
    python benchmarks/training.py --encoder resnet50 --image-size 224 --batch-size 16 --micro-batch-size 4 --repeats 1

The images are random pixels. `per-sample` augments one PIL image after another and computes the masked loss in float32,
`ttc` is what pretrain.py does, `peers` kornia with the loss of pytorch-metric-learning. Times are medians in turns.
An image in the table is one view: a sample counts twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks import costs, references, timing
from benchmarks.flags import add_benchmark
from benchmarks.networks import encoder_of
from ttc import distributed
from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.flags.parser import Parser, whole
from ttc.losses import build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.encoders import EncoderSpec
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import build_optimizer
from ttc.run import runtime
from ttc.training.embedder import MicroBatchEmbedder

VIEWS, CHANNELS, DIMENSIONS = references.VIEWS, 3, 128
MEAN, STD = (0.5,) * CHANNELS, (0.25,) * CHANNELS


@dataclass(frozen=True)
class Variant:
    """One way to make a step."""

    pipeline: str = "ttc"
    precision: str = "fp32"
    channels_last: bool = True
    compiled: bool = False


REFERENCE, PEERS = "per-sample fp32", "peers fp32"
VARIANTS = {
    REFERENCE: Variant("per-sample", channels_last=False),
    "ttc fp32 contiguous": Variant(channels_last=False),
    "ttc fp32": Variant(),
    "ttc bf16 contiguous": Variant(precision="bf16", channels_last=False),
    "ttc bf16": Variant(precision="bf16"),
    "ttc fp32 compiled": Variant(compiled=True),
    "ttc bf16 compiled": Variant(precision="bf16", compiled=True),
    PEERS: Variant("peers", channels_last=False),
}


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Time whole steps of pretraining.", "python benchmarks/training.py --output training.csv")
    add = parser.add_argument_group("cases").add_argument
    add("--image-size", type=whole(8), default=28, metavar="PX", help="side of the RGB images")
    add("--batch-size", type=whole(2), default=64, metavar="B", help="samples of all ranks, two views each")
    add(
        "--encoder",
        default="resnet18-w16",
        metavar="NAME",
        help="resnet18-wN, a ResNet-18 for small images with N >= 8 channels first (usual: 64), or one of pretrain.py",
    )
    add(
        "--steps",
        nargs="+",
        choices=[name for name, variant in VARIANTS.items() if variant.pipeline == "ttc" and not variant.compiled],
        metavar="STEP",
        help="only these of this project's steps, for example 'ttc bf16', beside the reference",
    )
    micro_batch_help = "embed so many samples at a time, if a batch does not fit into memory; leaves the reference out"
    add("--micro-batch-size", type=whole(1), metavar="M", help=micro_batch_help)
    add("--compile", action="store_true", help="also time compiled networks; the first step then takes a minute")
    add("--ranks", type=whole(1), nargs="+", metavar="W", help="measure these numbers of processes instead of variants")
    add_benchmark(parser, repeats=5, peers="kornia with pytorch-metric-learning")
    return parser


def build_network(options: argparse.Namespace) -> PretrainNetwork:
    """Return encoder and projection head with seeded weights."""
    runtime.seed_everything(0, rank=0)
    return PretrainNetwork(encoder_of(EncoderSpec(options.encoder, CHANNELS, options.image_size)), DIMENSIONS)


class Step:
    """One training step on a fixed batch, with other views at each call."""

    def __init__(self, variant: Variant, options: argparse.Namespace) -> None:
        """Build images, network, loss and optimizer for this rank's piece of the batch."""
        self.variant, self.device = variant, runtime.pick_device(options.device)
        samples = options.batch_size // distributed.world_size()
        generator = torch.Generator().manual_seed(distributed.rank())
        shape = (samples, CHANNELS, options.image_size, options.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(self.device)
        self.ids = torch.arange(samples, device=self.device) + distributed.rank() * samples
        self.labels = (self.ids % 20 == 0).long()
        self.make_views = self._views(images)
        self.loss = self._loss()
        self.raw = synchronise(build_network(options), self.device)
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.raw.to(self.device).to(memory_format=layout)
        if variant.compiled:
            self.raw.compile()
        several = distributed.world_size() > 1
        self.images, self.draws = images, count()
        self.micro_batches = samples // min(options.micro_batch_size or samples, samples)
        network: nn.Module = self.raw if self.micro_batches == 1 else self._in_micro_batches(options)
        self.network: nn.Module = distributed.DistributedDataParallel(network) if several else network
        self.optimizer = build_optimizer("sgd", (self.raw,), lr=0.01, weight_decay=1e-4)

    def _in_micro_batches(self, options: argparse.Namespace) -> MicroBatchEmbedder:
        return MicroBatchEmbedder(
            self.raw,
            build_objective("supmin", minority_class=1).to(self.device),
            ViewGenerator(PRESETS["natural"], options.image_size, MEAN, STD, seed=0),
            MinorityCutMix(0.0, 1, 0),
            micro_batches=self.micro_batches,
            autocast=lambda: runtime.autocast(self.device, self.variant.precision),
        )

    def _views(self, images: Tensor) -> references.Views:
        if self.variant.pipeline == "per-sample":
            return references.per_sample_views(images, PRESETS["natural"], MEAN, STD)
        if self.variant.pipeline == "peers":
            return references.kornia_views(images, PRESETS["natural"], MEAN, STD)
        generator, draws = ViewGenerator(PRESETS["natural"], images.shape[-1], MEAN, STD, seed=0), count()
        return lambda: generator.views(images, self.ids, torch.full_like(self.ids, next(draws)), VIEWS)

    def _loss(self) -> references.Loss:
        if self.variant.pipeline == "per-sample":
            return references.masked_published
        if self.variant.pipeline == "peers":
            return references.metric_learning_loss()
        objective = build_objective("supmin", minority_class=1).to(self.device)
        objective.validate = False
        return lambda z, labels: objective(z, labels, distributed.pool_of(z, labels, self.ids))

    def __call__(self) -> None:
        """Make one step."""
        if self.micro_batches > 1:
            _, z = self.network(self.images, self.labels, self.ids, torch.full_like(self.ids, next(self.draws)))
        else:
            inputs = self.make_views().flatten(0, 1).to(self.device)
            if self.variant.channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with runtime.autocast(self.device, self.variant.precision):
                _, z = self.network(inputs)
            z = z.unflatten(0, (-1, VIEWS))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.loss(z, self.labels))
        self.optimizer.step()


def measure_variants(names: Sequence[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per variant."""
    device = runtime.pick_device(options.device)
    steps: dict[str, Callable[[], None]] = {name: Step(VARIANTS[name], options) for name in names}
    times = timing.interleave(steps, options.repeats, device)
    rows = []
    for name in names:
        median = statistics.median(times[name])
        row = {"encoder": options.encoder, "image_size": str(options.image_size)}
        row |= {"batch": str(options.batch_size), "step": name, "milliseconds": f"{1000 * median:.0f}"}
        rate = VIEWS * options.batch_size / median
        row["images_per_second"] = f"{rate:.0f}" if rate >= 10 else f"{rate:.3g}"
        if options.micro_batch_size is None:
            row["times_faster_than_per-sample"] = f"{timing.times_faster(times[REFERENCE], times[name]):.2f}"
        else:
            row |= {"micro_batch": str(options.micro_batch_size), "seconds_per_image": f"{1 / rate:.3g}"}
        timing.tell(row)
        rows.append(row)
    return rows


def one_rank(options: argparse.Namespace) -> dict[str, float]:
    """Time and count steps of one rank; called in a process per rank."""
    torch.set_num_threads(options.threads)
    distributed.start(runtime.pick_device(options.device))
    step = Step(Variant(), options)
    step()
    cpu, wall = [], []
    for _ in range(options.repeats):
        distributed.wait()
        start_cpu, start_wall = time.process_time(), time.perf_counter()
        step()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start_wall)
    with costs.flop_counter() as counter, costs.Traffic() as traffic:
        step()
    distributed.stop()
    return {
        "cpu_seconds": statistics.median(cpu),
        "wall_seconds": statistics.median(wall),
        "flops": float(counter.get_total_flops()),
        "sent_bytes": traffic.sent_bytes,
    }


def measure_ranks(options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per number of processes, the cost model beside what was counted and timed."""
    network = build_network(options)
    image = torch.zeros(1, CHANNELS, options.image_size, options.image_size)
    rows: list[dict[str, str]] = []
    rate = 0.0
    for ranks in options.ranks:
        measured = timing.on_ranks(ranks, one_rank, options)
        model = costs.step_cost(
            batch=options.batch_size,
            views=VIEWS,
            dimensions=DIMENSIONS,
            ranks=ranks,
            forward_flops=costs.count_forward_flops(network, image),
            parameters=sum(p.numel() for p in network.parameters()),
            batchnorm_channels=costs.count_batchnorm_channels(network),
        )
        slowest = max(measured, key=lambda rank: rank["cpu_seconds"])
        rate = rate or model.flops / slowest["cpu_seconds"]
        row = {"encoder": options.encoder, "batch": str(options.batch_size), "ranks": str(ranks)}
        row |= {"gflop_model": f"{model.flops / 1e9:.2f}", "gflop_counted": f"{slowest['flops'] / 1e9:.2f}"}
        row |= {"sent_kib_model": f"{model.sent_bytes / 1024:.0f}"}
        row |= {"sent_kib_counted": f"{slowest['sent_bytes'] / 1024:.0f}"}
        row |= {"milliseconds_model": f"{1000 * model.flops / rate:.0f}"}
        row |= {"milliseconds_processor": f"{1000 * slowest['cpu_seconds']:.0f}"}
        row |= {"milliseconds_elapsed": f"{1000 * slowest['wall_seconds']:.0f}"}
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Measure and write."""
    parser = build_parser()
    options = parser.parse(sys.argv[1:]).namespace()
    if options.micro_batch_size and (options.peers or options.ranks or options.batch_size % options.micro_batch_size):
        parser.refuse("--micro-batch-size must divide --batch-size, and goes neither with --peers nor with --ranks")
    timing.start(options.threads)
    if options.ranks:
        rows = measure_ranks(options)
    else:
        peers = options.peers and len(timing.installed_peers(["kornia", "pytorch_metric_learning"])) == 2
        usual = [name for name, variant in VARIANTS.items() if name not in (REFERENCE, PEERS) and not variant.compiled]
        names = options.steps or usual
        compiled = [f"{name} compiled" for name in names if options.compile and f"{name} compiled" in VARIANTS]
        reference = [REFERENCE] if options.micro_batch_size is None else []
        rows = measure_variants([*reference, *names, *compiled, *([PEERS] if peers else [])], options)
    if options.output:
        timing.write_rows(options.output, rows, runtime.pick_device(options.device))
    return 0


if __name__ == "__main__":
    runtime.run(main)
