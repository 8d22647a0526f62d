"""Time the representation metrics against a plain full-matrix computation.

`python scripts/benchmark_metrics.py --samples 1000 5000 --output metrics.csv`

Both run in turns inside one process, and the ratio of a turn is taken before the median, so that a noisy machine
does not decide. Peak memory is measured in a fresh process each, above what the process held before the call.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ttc.metrics.representation import representation_metrics
from ttc.metrics.uniformity import entropy_uniformity

MINORITY_SHARE = 0.05
RADIUS = 0.05


def main() -> int:
    """Measure every case, print one line each and write the CSV file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[1000, 5000], help="samples per case (default: 1000 5000)"
    )
    parser.add_argument("--views", type=int, default=2, help="views per sample (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=128, help="embedding dimensions (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns, after one to warm up (default: %(default)s)")
    parser.add_argument("--peu", action="store_true", help="also measure one draw of PEU, which is slow")
    parser.add_argument("--output", type=Path, default=Path("benchmark_metrics.csv"), help="default: %(default)s")
    parser.add_argument("--memory-of", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_memory(args.memory_of, args.samples[0], args.views, args.dim))
        return 0

    rows = []
    for samples in args.samples:
        for case in ["neighbours", "peu"] if args.peu else ["neighbours"]:
            row: dict[str, object] = {"case": case, "samples": samples, "views": args.views, "dim": args.dim}
            row |= {"threads": args.threads, "repeats": args.repeats}
            row |= measure(case, samples, args.views, args.dim, args.repeats)
            for kind in ("plain", "streamed"):
                row[f"{kind}_mib"] = memory_in_fresh_process(f"{case}-{kind}", samples, args)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows.append(row)
    with args.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return 0


def measure(case: str, samples: int, views: int, dim: int, repeats: int) -> dict[str, float]:
    """Run both implementations in turns and return median seconds and the median ratio."""
    plain, streamed = (prepare(f"{case}-{kind}", samples, views, dim) for kind in ("plain", "streamed"))
    turns = [(seconds(plain), seconds(streamed)) for _ in range(repeats + 1)][1:]
    return {
        "plain_s": round(statistics.median(turn[0] for turn in turns), 4),
        "streamed_s": round(statistics.median(turn[1] for turn in turns), 4),
        "ratio": round(statistics.median(turn[0] / turn[1] for turn in turns), 2),
    }


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def prepare(name: str, samples: int, views: int, dim: int) -> Callable[[], object]:
    """Return the named computation on seeded data of two overlapping classes."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(samples) < round(MINORITY_SHARE * samples)).long()
    centres = torch.randn(2, dim, generator=generator)
    content = centres[labels] + torch.randn(samples, dim, generator=generator)
    embeddings = content + 0.5 * torch.randn(views, samples, dim, generator=generator)
    embeddings = torch.nn.functional.normalize(embeddings, dim=2)
    rows = embeddings.transpose(0, 1).reshape(-1, dim)
    if name == "neighbours-plain":
        return lambda: full_matrix_metrics(embeddings, labels)
    if name == "neighbours-streamed":
        return lambda: representation_metrics(embeddings, labels, RADIUS, peu_draws=0)
    if name == "peu-plain":
        return lambda: full_matrix_uniformity(rows)
    assert name == "peu-streamed"
    return lambda: entropy_uniformity(rows, [len(rows)], 1, 0)


def full_matrix_metrics(embeddings: torch.Tensor, labels: torch.Tensor) -> list[list[float]]:
    """Compute SAD, SAA, CAD, CAC and the potential of each class from M x M matrices and a full sort, in float32."""
    views, samples, dim = embeddings.shape
    rows = embeddings.reshape(-1, dim)
    classes = labels.repeat(views)
    sample = torch.arange(samples).repeat(views)
    distance = (2 - 2 * rows @ rows.T).clamp_min(0).sqrt()
    own = ~torch.eye(len(rows), dtype=torch.bool)
    same_sample = (sample[:, None] == sample[None, :]) & own
    same_class = (classes[:, None] == classes[None, :]) & own
    order = distance.masked_fill(~own, float("inf")).argsort(dim=1)
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


def full_matrix_uniformity(rows: torch.Tensor) -> float:
    """Compute one draw of PEU from the M x 10 M matrix of distances, in float32."""
    points = torch.nn.functional.normalize(torch.randn(10 * len(rows), rows.shape[1]), dim=1)
    nearest = (2 - 2 * rows @ points.T).argmin(dim=1)
    share = torch.bincount(nearest).double() / len(rows)
    return float(torch.special.entr(share).sum() / torch.log(torch.tensor(float(len(rows)))))


def memory_in_fresh_process(name: str, samples: int, args: argparse.Namespace) -> float:
    """Run one computation in a process of its own and return its peak memory in MiB."""
    command = [sys.executable, __file__, "--memory-of", name, "--samples", str(samples), "--views", str(args.views)]
    command += ["--dim", str(args.dim), "--threads", str(args.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_memory(name: str, samples: int, views: int, dim: int) -> float:
    """Return how far one call raises the peak memory of this process, in MiB."""
    prepare(name, 50, views, dim)()  # libraries allocate their work space on the first call
    call = prepare(name, samples, views, dim)
    before = high_water_mark_kib()
    call()
    return round((high_water_mark_kib() - before) / 1024, 1)


def high_water_mark_kib() -> int:
    """Return the peak resident memory of this process (Linux; getrusage would include that of the parent)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
