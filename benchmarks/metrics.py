"""Time and memory of the representation metrics against plain full-matrix computations.

    python benchmarks/metrics.py --samples 1000 5000 --peers --output metrics.csv

Case `pairs` is SAD, SAA, CAD, CAC and the Gaussian potential; case `peu` is one of PEU's five draws. All computations
of a case take turns and the ratio of a turn is taken before the median. On a CPU each call has a fresh process, which
gives its time and the growth of its peak memory; the plain form of `peu` takes 8 GiB and much time at 5,000 samples.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import timing
from benchmarks.flags import add_benchmark
from ttc.flags.parser import Parser, whole
from ttc.metrics.representation import representation_metrics
from ttc.metrics.uniformity import entropy_uniformity
from ttc.run import runtime

MINORITY_SHARE = 0.05
RADIUS = 0.05


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Time and memory of the representation metrics.",
        "python benchmarks/metrics.py --samples 1000 5000 --peers --output metrics.csv",
    )
    add = parser.add_argument_group("cases").add_argument
    add("--samples", type=whole(50), nargs="+", default=[1000], metavar="N", help="samples; time grows with the square")
    add("--views", type=whole(2), default=2, metavar="V", help="views per sample; compute_metrics.py uses five")
    add("--dimensions", type=whole(1), default=128, metavar="D", help="of the embeddings; --projection-dim of a run")
    add("--cases", nargs="+", choices=("pairs", "peu"), default=["pairs", "peu"], help="computations to time")
    add_benchmark(parser, repeats=3, peers="scikit-learn's brute-force neighbours")
    return parser


def rows_and_labels(options: argparse.Namespace, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return seeded embeddings [V, N, D] of two overlapping classes, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(samples) < round(MINORITY_SHARE * samples)).long()
    centres = torch.randn(2, options.dimensions, generator=generator)
    content = centres[labels] + torch.randn(samples, options.dimensions, generator=generator)
    embeddings = content + 0.5 * torch.randn(options.views, samples, options.dimensions, generator=generator)
    device = runtime.pick_device(options.device)
    return torch.nn.functional.normalize(embeddings, dim=2).to(device), labels.to(device)


def call_of(name: str, options: argparse.Namespace, samples: int) -> Callable[[], object]:
    """Return the named computation."""
    embeddings, labels = rows_and_labels(options, samples)
    rows = embeddings.transpose(0, 1).reshape(-1, options.dimensions).double()
    calls: dict[str, Callable[[], object]] = {
        "pairs plain": lambda: full_matrix_metrics(embeddings, labels),
        "pairs streamed": lambda: representation_metrics(embeddings, labels, RADIUS, peu_draws=0),
        "pairs sklearn": lambda: sklearn_neighbours(rows, labels.repeat_interleave(options.views)),
        "peu plain": lambda: full_matrix_uniformity(rows),
        "peu streamed": lambda: entropy_uniformity(rows, [len(rows)], 1, 0),
        "peu sklearn": lambda: sklearn_uniformity(rows),
    }
    return calls[name]


def full_matrix_metrics(embeddings: torch.Tensor, labels: torch.Tensor) -> list[list[float]]:
    """Compute SAD, SAA, CAD, CAC and the potential of each class from M x M matrices and a full sort, in float32."""
    views, samples, dim = embeddings.shape
    rows = embeddings.reshape(-1, dim)
    classes = labels.repeat(views)
    sample = torch.arange(samples, device=rows.device).repeat(views)
    distance = (2 - 2 * rows @ rows.T).clamp_min(0).sqrt()
    others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    same_sample = (sample[:, None] == sample[None, :]) & others
    same_class = (classes[:, None] == classes[None, :]) & others
    order = distance.masked_fill(~others, float("inf")).argsort(dim=1)
    neighbours = max(1, int(RADIUS * len(rows)))
    share = same_class.gather(1, order[:, :neighbours]).float().mean(dim=1)
    nearest = same_sample.gather(1, order[:, :1]).float()
    views_of_first = distance[:samples][same_sample[:samples]].view(samples, views - 1)
    results = []
    for label in (0, 1):
        chosen = classes == label
        inside = distance[chosen][same_class[chosen]]
        results.append(
            [
                float(views_of_first[labels == label].mean()),
                100 * float(nearest[chosen].mean()),
                float(inside.mean()),
                100 * float(share[chosen].mean()),
                float(torch.exp(-2 * inside**2).mean()),
            ]
        )
    return results


def random_points(rows: torch.Tensor) -> torch.Tensor:
    """Draw PEU's points, ten for each row."""
    points = torch.randn(10 * len(rows), rows.shape[1], dtype=rows.dtype)
    return torch.nn.functional.normalize(points, dim=1).to(rows.device)


def entropy_of(nearest: torch.Tensor) -> float:
    """Return the entropy of the assignment as a share of the largest one."""
    share = torch.bincount(nearest).double() / len(nearest)
    return float(torch.special.entr(share).sum() / torch.log(torch.tensor(float(len(nearest)))))


def full_matrix_uniformity(rows: torch.Tensor) -> float:
    """Compute one draw of PEU from one M x 10 M matrix of distances in float64, the precision of the published code."""
    points = random_points(rows)
    squared = (rows @ points.T).mul_(-2).add_(rows.square().sum(1)[:, None]).add_(points.square().sum(1))
    return entropy_of(squared.clamp_min_(0).sqrt_().argmin(dim=1))


def sklearn_neighbours(rows: torch.Tensor, classes: torch.Tensor) -> float:
    """Compute the share of the own class among the nearest rows (CAC) alone."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=max(1, int(RADIUS * len(rows))), algorithm="brute").fit(rows.cpu().numpy())
    index, class_of = torch.from_numpy(search.kneighbors(return_distance=False)), classes.cpu()
    return float((class_of[index] == class_of[:, None]).double().mean())


def sklearn_uniformity(rows: torch.Tensor) -> float:
    """Compute one draw of PEU with scikit-learn's streamed argmin of distances."""
    from sklearn.metrics import pairwise_distances_argmin

    points = random_points(rows).cpu().numpy()
    return entropy_of(torch.from_numpy(pairwise_distances_argmin(rows.cpu().numpy(), points)))


def one_call(name: str, options: argparse.Namespace, samples: int) -> tuple[float, float]:
    """Return seconds and peak memory of one call; on a CPU in a fresh process."""
    torch.set_num_threads(options.threads)
    device = runtime.pick_device(options.device)
    call_of(name, options, 50)()  # libraries allocate their work space on the first call
    call, seconds = call_of(name, options, samples), [0.0]
    peak = timing.growth_of_peak(lambda: seconds.append(timing.seconds(call, device)), device)
    return seconds[-1], peak


def measure(case: str, samples: int, kinds: list[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per computation of a case."""
    device, names = runtime.pick_device(options.device), [f"{case} {kind}" for kind in kinds]
    turns = [
        {name: timing.apart(device, one_call, name, options, samples) for name in names} for _ in range(options.repeats)
    ]
    times = {name: [turn[name][0] for turn in turns] for name in names}
    memory = {name: statistics.median(turn[name][1] for turn in turns) for name in names}
    rows = []
    for kind, name in zip(kinds, names, strict=True):
        row = {"case": case, "samples": str(samples), "views": str(options.views), "computation": kind}
        row["seconds"] = f"{statistics.median(times[name]):.3f}"
        row["times_faster_than_plain"] = f"{timing.times_faster(times[names[0]], times[name]):.2f}"
        row["peak_mib"] = f"{memory[name]:.1f}"
        row["times_less_memory_than_plain"] = f"{memory[names[0]] / memory[name]:.1f}"
        row["largest_calls"] = timing.largest_calls(call_of(name, options, samples)) if kind == "streamed" else ""
        timing.tell(row)
        rows.append(row)
    return rows


def main() -> int:
    """Measure and write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(options.threads)
    peers = timing.installed_peers(["sklearn"]) if options.peers else []
    rows: list[dict[str, str]] = []
    for samples in options.samples:
        for case in options.cases:
            rows += measure(case, samples, ["plain", "streamed", *peers], options)
    if options.output:
        timing.write_rows(options.output, rows, runtime.pick_device(options.device))
    return 0


if __name__ == "__main__":
    runtime.run(main)
