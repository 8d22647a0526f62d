"""Write docs/performance.md from the tables of the benchmarks: python benchmarks/write_page.py.

Reads docs/performance/*.csv: of each section those whose name begins with its name, as losses.csv and losses_gpu.csv.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import targets
from benchmarks.tables import CPU, command_of
from ttc.flags.parser import Parser
from ttc.run import runtime
from ttc.run.checkpoint import write_text
from ttc.run.log import log, start_logging

Table = list[dict[str, str]]

SECTIONS = {
    "losses": (
        "Losses",
        "Forward and backward pass, two views, float32, 5 % minority. `masked-supcontrast` is SupCon by full matrices "
        "as it is usually written, `masked-published` with the arrays that the published code of SupMin makes at every "
        "call; both are written from the equations (`benchmarks/references.py`). `peak_mib` is the growth of the peak "
        "memory during one call, on a CPU in a fresh process. Lightly's loss is NT-Xent. The last column has the "
        "operators that take most of a call's time.",
    ),
    "metrics": (
        "Representation metrics",
        "`pairs`: SAD, SAA, CAD, CAC and the Gaussian potential; `peu`: one of five draws. `plain` builds "
        "full matrices (float32 for `pairs`, float64 for `peu`) and sorts; `streamed` is this project's, in float64 "
        "but for PEU's products. `sklearn` computes CAC alone, or PEU with its own streamed argmin. The last column "
        "has the functions that take most of the time by themselves.",
    ),
    "augment": (
        "Augmentation",
        "Two views of RGB images: random resized crop, flip, colour jitter, grayscale, normalised.",
    ),
    "decoding": (
        "Reading image files",
        "Images per second from a JPEG file in the page cache to the stored square: Pillow, Pillow leaving detail out "
        "while it decodes, torchvision, this project's choice between them, and the cache of `--cache disk`, which "
        "checks every image on its first use.",
    ),
    "training": (
        "A whole step of pretraining",
        "Views, network, loss, backward pass and optimizer. `per-sample` augments PIL images one by one and computes "
        "`masked-published`; `ttc` is what pretrain.py does, with channels-last memory unless it says contiguous; "
        "`peers` is kornia with pytorch-metric-learning's SupCon.",
    ),
    "bound": (
        "A step against its network alone",
        "The loop of pretrain.py as it is, and beside it the bound: forward and backward pass of the same network in "
        "the same precision and memory format over one batch of views that lies on the device, the sum of the "
        "embeddings in place of the loss. `percent_of_bound` is the share of the step's time that the network alone "
        "would take. The percentages after it split the step up by the lines of the loop; the loss's backward pass is "
        "part of `network` there. Images come from memory (`tensors`), from `--cache disk` or from JPEG files of twice "
        "the input's width that other processes decode. `files_per_second_and_core` is what one core decodes, "
        "`cores_to_decode` how many of them keep up with the network alone.",
    ),
    "original": (
        "The published pipeline as a whole",
        "SupMin trained as its published code goes about it (`benchmarks/published.py`: PIL images augmented one by "
        "one, the masked loss over full matrices, float32, a learning rate per epoch) and by pretrain.py, from the "
        "same weights, on the same images, for the same number of samples. The accuracy is that of a logistic "
        "regression on frozen features, on balanced validation images, after every epoch; `seconds_until_then` is the "
        "training time up to the first epoch that reaches the wanted one, the median over seeds. The wanted accuracy "
        "was set after a look at such curves, where the published pipeline ends: seconds per epoch are the figure that "
        "no choice of ours moves.",
    ),
    "sweep": (
        "A sweep",
        "Lines of the first study's manifest, run by an earlier version (`before`) and by this one in turns, with one "
        "thread. Seconds are medians over turns, of all processes together. In these lines linear_eval.py draws no "
        "figures, which the earlier one cannot; this one measures the floor too.",
    ),
    "starts": (
        "Starts of evaluations",
        "The evaluation of a small run on digits, most of which is the start, by the same two versions in turns, with "
        "the threads that the libraries choose.",
    ),
    "scaling": (
        "One and several processes",
        "The same global batch on processes of one machine. `model` is the cost model below, `counted` what the step "
        "really multiplied and sent; the model's time divides its FLOP by the rate of the first row.",
    ),
}

COST_MODEL = """\
## Cost model

Per rank and step, leading terms (`benchmarks/costs.py`): B samples of all W ranks, V views, N = B V rows,
A = N / W, D dimensions, P parameters, f FLOP of one image's forward pass.

| cost | formula |
|---|---|
| network | 3 f A FLOP |
| loss | 4 N² D FLOP in one process (each pair serves its row and its column), 8 A N D with several |
| gather of rows, sum of their gradients | (W - 1) / W · (8 N D + 16 B) bytes sent |
| average of the parameters' gradients | 8 P (W - 1) / W bytes sent |
| BatchNorm over all ranks | 32 (W - 1) / W bytes per channel and layer |
"""


def read_tables(folder: Path) -> dict[str, list[Table]]:
    """Read all tables, by benchmark.

    Raises:
        ValueError: there is none.
    """
    by_benchmark: dict[str, list[Table]] = {name: [] for name in SECTIONS}
    for name, found in by_benchmark.items():
        for path in sorted(folder.glob(f"{name}*.csv")):
            with path.open(newline="") as file:
                found.append(list(csv.DictReader(file)))
    if not any(by_benchmark.values()):
        raise ValueError(
            f"{folder}/{next(iter(SECTIONS))}.csv is missing, as all others; run python benchmarks/run_all.py first"
        )
    return by_benchmark


def markdown(rows: Table) -> list[str]:
    """Return the lines of a table, without the columns that say where it comes from."""
    columns = [name for name in rows[0] if name not in ("machine", "commit", "command")]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(row[name] or "-" for name in columns) + " |" for row in rows]


def section(name: str, tables: list[Table], folder: Path) -> list[str]:
    """Return heading, explanation and tables of one benchmark, and the commands of those that the folder lacks."""
    heading, explanation = SECTIONS[name]
    lines = [f"## {heading}", "", explanation, ""]
    for rows in tables:
        origin = f"{rows[0]['machine']}, commit {rows[0]['commit'] or 'unknown'}"
        lines += [f"{origin}; `{rows[0]['command']}`:", "", *markdown(rows), ""]
    for table in CPU:
        if table.startswith(name) and not (folder / f"{table}.csv").is_file():
            lines += [f"Not measured: `{command_of(table)}`.", ""]
    return lines


def advice_lines(training: list[Table]) -> list[str]:
    """Say where channels-last, bf16 and --compile helped, from the measured steps."""
    lines = []
    for rows in training:
        speed = {row["step"]: float(row["images_per_second"]) for row in rows}
        where = f"{re.split('[(,]', rows[0]['machine'])[0].strip()}, {rows[0]['encoder']}, {rows[0]['image_size']} px"
        for flag, with_it, without in (
            ("channels-last memory in fp32", "ttc fp32", "ttc fp32 contiguous"),
            ("channels-last memory in bf16", "ttc bf16", "ttc bf16 contiguous"),
            ("`--precision bf16`", "ttc bf16", "ttc fp32"),
            ("`--compile` in fp32", "ttc fp32 compiled", "ttc fp32"),
            ("`--compile` in bf16", "ttc bf16 compiled", "ttc bf16"),
        ):
            if with_it in speed and without in speed:
                ratio = speed[with_it] / speed[without]
                verdict = "helps" if ratio > 1.05 else "hurts" if ratio < 0.95 else "makes no difference"
                lines.append(f"* {where}: {flag} {verdict}, {ratio:.2f} times the speed without it.")
    return lines


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Write the page of measured times and memory.", "python benchmarks/write_page.py")
    parser.add_argument("--tables", type=Path, default=Path("docs/performance"), metavar="FOLDER", help="CSV files")
    parser.add_argument("--page", default="docs/performance.md", metavar="FILE.md", help="page to write")
    return parser


def main() -> int:
    """Read, compute, write."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    tables = read_tables(options.tables)
    lines = [
        "# Time and memory",
        "",
        "Generated by `python benchmarks/write_page.py` from the tables in `docs/performance/`, which the commands",
        "below wrote; `python benchmarks/run_all.py` runs all of them in about 35 minutes. All",
        "cases of a table take turns in one process, and ratios are medians over turns, so that a noisy machine does",
        "not decide. With one thread, time is the processor time of the process: other work on the machine prolongs it",
        "far less than the time on the wall. `--peers` adds other packages if installed. Each table names the machine",
        "and the commit that it is of.",
        "",
        "## Wanted and measured",
        "",
        "With one thread of a CPU:",
        "",
        *targets.lines(targets.ON_CPU, tables, "cpu"),
        "",
        "Where torch and its libraries are kept from using more than AVX2 (one thread of a CPU):",
        "",
        *targets.lines(targets.ON_AVX2, tables, "avx2"),
        "",
        "On a GPU; figures of an earlier commit stay until there is a GPU to measure again. Two processes on two GPUs",
        "(NCCL) have not been measured:",
        "",
        *targets.lines(targets.ON_GPU, tables, "gpu"),
        "",
    ]
    for name in SECTIONS:
        lines += section(name, tables[name], options.tables)
        if name == "training":
            lines += ["What helped here:", "", *advice_lines(tables[name]), ""]
    lines.append(COST_MODEL)
    write_text(Path(options.page), "\n".join(lines).rstrip() + "\n")
    log.info("wrote %s", options.page)
    return 0


if __name__ == "__main__":
    runtime.run(main)
