"""Time and memory of the losses, forward and backward, against a plain masked SupCon.

    python scripts/benchmark_losses.py --output losses.csv
    python scripts/benchmark_losses.py --samples 32768 --methods supcon --bf16-multiply --no-reference --repeats 1

All losses of a batch size take turns, so that a busy machine slows them alike; the columns are medians. Memory is the
growth of the process's peak during one call, in a fresh process per case.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ttc.losses import METHODS, build_objective, method

Loss = Callable[[Tensor, Tensor], Tensor]
CONTRASTIVE = tuple(name for name in METHODS if method(name).objective.space == "projection")
REFERENCE = "masked-supcon"
PEERS = ("pytorch_metric_learning", "lightly")
TEMPERATURE = 0.07


def masked_supcon(z_BVD: Tensor, labels_B: Tensor) -> Tensor:
    """Return SupCon by full N x N matrices of masks and logits, the way it is usually written."""
    rows_ND = z_BVD.flatten(0, 1)
    labels_N = labels_B.repeat_interleave(z_BVD.shape[1])
    others_NN = 1.0 - torch.eye(len(rows_ND), device=rows_ND.device)
    positives_NN = (labels_N[:, None] == labels_N).float() * others_NN
    logits_NN = rows_ND @ rows_ND.T / TEMPERATURE
    logits_NN = logits_NN - logits_NN.max(1, keepdim=True).values.detach()
    log_probability_NN = logits_NN - (logits_NN.exp() * others_NN).sum(1, keepdim=True).log()
    return -((positives_NN * log_probability_NN).sum(1) / positives_NN.sum(1)).mean()


def losses_for(names: Sequence[str], options: argparse.Namespace, samples: int) -> dict[str, Loss]:
    """Return the losses by name, each taking embeddings and labels."""
    return {name: loss_for(name, options, samples) for name in names}


def loss_for(name: str, options: argparse.Namespace, samples: int) -> Loss:
    """Return one loss."""
    if name == REFERENCE:
        return masked_supcon
    if name == "pytorch_metric_learning":
        from pytorch_metric_learning.losses import SupConLoss

        peer = SupConLoss(temperature=TEMPERATURE)
        return lambda z, labels: peer(z.flatten(0, 1), labels.repeat_interleave(z.shape[1]))
    if name == "lightly":
        from lightly.loss import SupConLoss as LightlySupCon

        lightly = LightlySupCon(temperature=TEMPERATURE)
        return lambda z, labels: lightly(z, labels)
    objective = build_objective(
        name,
        minority_class=1,
        class_counts=[95 * samples, 5 * samples],
        feature_dim=64,
        projection_dim=options.dimensions,
    ).to(options.device)
    objective.validate, objective.bf16_multiply = False, options.bf16_multiply
    features = torch.randn(samples, objective.views, 64, device=options.device)
    ids = torch.arange(samples, device=options.device)
    if objective.wants_embeddings(10):
        objective.assign(ids, ids % 20, torch.full((2,), 0.1, dtype=torch.float64, device=options.device))
    extra = objective.views - 2

    def call(z: Tensor, labels: Tensor) -> Tensor:
        views = torch.cat((z[:, :extra], z), 1) if extra > 0 else z
        loss: Tensor = objective(views, labels, features=features, sample_ids=ids)
        return loss

    return call


def batch_of(samples: int, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random unit embeddings of two views, and labels with 5 % minority."""
    generator = torch.Generator().manual_seed(0)
    z = nn.functional.normalize(torch.randn(samples, 2, options.dimensions, generator=generator), dim=-1)
    labels = (torch.arange(samples) % 20 == 0).long()
    return z.to(options.device).requires_grad_(), labels.to(options.device)


def seconds(loss: Loss, z: Tensor, labels: Tensor) -> float:
    """Return the time of one forward and backward pass."""
    z.grad = None
    if z.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(z, labels).backward()
    if z.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def process_mib(field: str) -> float:
    """Return a memory figure of this process from the kernel's status file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def growth_of_peak(name: str, samples: int, options: argparse.Namespace) -> float:
    """Return by how many MiB one call raises the peak of this process or device."""
    loss = loss_for(name, options, samples)
    z, labels = batch_of(samples, options)
    seconds(loss_for(name, options, 2), *batch_of(2, options))  # libraries allocate on first use
    if z.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds(loss, z, labels)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before_mib = process_mib("VmRSS")
    seconds(loss, z, labels)
    return process_mib("VmHWM") - before_mib


def memory_in_fresh_process(name: str, samples: int, options: argparse.Namespace) -> float:
    """Run `growth_of_peak` in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--samples", str(samples), "--device", options.device]
    command += ["--dimensions", str(options.dimensions), "--threads", str(options.threads)]
    command += ["--bf16-multiply"] if options.bf16_multiply else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(samples: int, names: list[str], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return one row per loss for one batch size."""
    z, labels = batch_of(samples, options)
    losses = losses_for(names, options, samples)
    for loss in losses.values():
        seconds(loss, z, labels)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, loss in losses.items():
            times[name].append(seconds(loss, z, labels))
    rows = []
    for name in names:
        median = statistics.median(times[name])
        ratios = [r / t for r, t in zip(times.get(REFERENCE, []), times[name], strict=False)]
        rows.append(
            {
                "samples": str(samples),
                "loss": name,
                "milliseconds": f"{1000 * median:.2f}",
                "times_faster": f"{statistics.median(ratios):.2f}" if ratios else "",
                "peak_mib": f"{memory_in_fresh_process(name, samples, options):.1f}",
            }
        )
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[256, 1024, 4096], help="batch sizes B, two views each"
    )
    parser.add_argument("--methods", nargs="+", choices=CONTRASTIVE, default=list(CONTRASTIVE), help="losses to time")
    parser.add_argument("--dimensions", type=int, default=128, help="dimension of the embeddings")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls per loss")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16-multiply", action="store_true", help="multiply pairs of rows in bfloat16")
    parser.add_argument("--no-reference", action="store_true", help="leave the masked reference out: it is quadratic")
    parser.add_argument("--peers", action="store_true", help=f"also time {' and '.join(PEERS)} if installed")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    parser.add_argument("--memory-of", help="print the memory of this loss for the first batch size and stop")
    return parser.parse_args()


def main() -> None:
    """Measure and write."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        sys.stdout.write(f"{growth_of_peak(options.memory_of, options.samples[0], options)}\n")
        return
    names = [*([] if options.no_reference else [REFERENCE]), *options.methods]
    if options.peers:
        names += [peer for peer in PEERS if importlib.util.find_spec(peer)]
    rows = [row for samples in options.samples for row in measure(samples, names, options)]
    if options.output:
        with options.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
