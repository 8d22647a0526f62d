"""Time and memory of the losses, forward and backward, against plain masked forms of SupCon.

    python benchmarks/losses.py --samples 256 1024 --peers --output losses.csv
    python benchmarks/losses.py --samples 4096 32768 --methods supcon supmin --repeats 3
    python benchmarks/losses.py --samples 256 1024 4096 --device cuda --methods simclr supcon --compile

Two references, written from the equations: `masked-supcontrast` builds the pair matrices of Khosla et al.'s form, and
`masked-published` in addition what the published code of SupMin builds at every call (four masks, and the exponentials
without their diagonal). All losses of a batch size take turns; times are medians. Memory is the growth of the peak
during one call, on a CPU in a fresh process per case. Shares of operators are those of one more call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import references, timing
from benchmarks.flags import add_benchmark
from ttc.flags.parser import Parser, whole
from ttc.losses import METHODS, build_objective
from ttc.losses.subclass import SBC
from ttc.run import runtime

CONTRASTIVE = tuple(name for name, method in METHODS.items() if method.objective.space == "projection")
REFERENCES = {
    "masked-published": references.masked_published,
    "masked-supcontrast": references.masked_supcontrast,
}
PEERS = {"pytorch_metric_learning": references.metric_learning_loss, "lightly": references.lightly_loss}
FEATURES = 64
COMPILED = " compiled"


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Time and memory of the losses, forward and backward.",
        "python benchmarks/losses.py --samples 256 1024 --peers --output losses.csv",
    )
    add = parser.add_argument_group("cases").add_argument
    add(
        "--samples",
        type=whole(2),
        nargs="+",
        default=[256, 1024],
        metavar="B",
        help="batch sizes, two views each; from 4096 on limit --methods, since every loss is quadratic in time",
    )
    add("--methods", nargs="+", choices=CONTRASTIVE, default=list(CONTRASTIVE), help="losses to time")
    add("--dimensions", type=whole(1), default=128, metavar="D", help="of the embeddings; --projection-dim of a run")
    add(
        "--reference-limit",
        type=whole(0),
        default=4096,
        metavar="B",
        help="largest batch of the masked forms and peers, whose memory is quadratic; 0 leaves them out",
    )
    add("--compile", action="store_true", help="also time the losses that pretrain.py --compile compiles")
    add_benchmark(parser, repeats=7, peers="pytorch-metric-learning and lightly")
    return parser


def loss_for(name: str, options: argparse.Namespace, samples: int) -> references.Loss:
    """Return one loss."""
    if name in REFERENCES:
        return REFERENCES[name]
    if name in PEERS:
        return PEERS[name]()
    device = runtime.pick_device(options.device)
    objective = build_objective(
        name.removesuffix(COMPILED),
        minority_class=1,
        class_counts=[95 * samples, 5 * samples],
        feature_dim=FEATURES,
        projection_dim=options.dimensions,
    ).to(device)
    objective.validate = False
    if name.endswith(COMPILED):
        objective.compile()
    features = torch.randn(samples, objective.views, FEATURES, device=device)
    ids = torch.arange(samples, device=device)
    if objective.wants_embeddings(10):
        assert isinstance(objective, SBC)
        objective.assign(ids, ids % 20, torch.full((2,), 0.1, dtype=torch.float64, device=device))
    extra = objective.views - 2

    def call(z: Tensor, labels: Tensor) -> Tensor:
        views = torch.cat((z[:, :extra], z), 1) if extra > 0 else z
        loss: Tensor = objective(views, labels, features=features, sample_ids=ids)
        return loss

    return call


def call_of(name: str, options: argparse.Namespace, samples: int) -> Callable[[], None]:
    """Return one forward and backward pass on random unit embeddings of two views, with 5 % minority."""
    device, loss = runtime.pick_device(options.device), loss_for(name, options, samples)
    generator = torch.Generator().manual_seed(0)
    z = nn.functional.normalize(torch.randn(samples, 2, options.dimensions, generator=generator), dim=-1)
    z, labels = z.to(device).requires_grad_(), (torch.arange(samples) % 20 == 0).long().to(device)

    def call() -> None:
        z.grad = None
        torch.autograd.backward(loss(z, labels))

    return call


def peak_mib(name: str, options: argparse.Namespace, samples: int) -> float:
    """Return the memory of one call; on a CPU in a fresh process."""
    torch.set_num_threads(options.threads)
    call = call_of(name, options, samples)
    call_of(name, options, 2)()  # libraries allocate on first use
    return timing.growth_of_peak(call, runtime.pick_device(options.device))


def measure(samples: int, names: list[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per loss for one batch size."""
    device = runtime.pick_device(options.device)
    calls = {name: call_of(name, options, samples) for name in names}
    times = timing.interleave(calls, options.repeats, device)
    # Compiling takes more memory than the loss, and in the same process.
    plain = [name for name in names if not name.endswith(COMPILED)]
    memory = {name: timing.apart(device, peak_mib, name, options, samples) for name in plain}
    rows = []
    for name in names:
        row = {"samples": str(samples), "loss": name, "milliseconds": f"{1000 * statistics.median(times[name]):.2f}"}
        for reference in REFERENCES:
            ratio = f"{timing.times_faster(times[reference], times[name]):.2f}" if reference in times else ""
            row[f"times_faster_than_{reference}"] = ratio
        row["peak_mib"] = f"{memory[name]:.1f}" if name in memory else ""
        for reference in REFERENCES:
            ratio = f"{memory[reference] / memory[name]:.1f}" if {reference, name} <= set(memory) else ""
            row[f"times_less_memory_than_{reference}"] = ratio
        row["largest_operators"] = timing.largest_operators(calls[name], device)
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Measure and write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(options.threads)
    peers = timing.installed_peers(PEERS) if options.peers else []
    compiled = [name + COMPILED for name in options.methods if options.compile and METHODS[name].objective.compiles]
    rows: list[dict[str, str]] = []
    for samples in options.samples:
        quadratic = [*REFERENCES, *peers] if samples <= options.reference_limit else []
        rows += measure(samples, [*quadratic, *options.methods, *compiled], options)
    if options.output:
        timing.write_rows(options.output, rows, runtime.pick_device(options.device))
    return 0


if __name__ == "__main__":
    runtime.run(main)
