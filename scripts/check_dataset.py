"""Look at all images of a data set before training on them.

    python scripts/check_dataset.py --dataset imagefolder --data-root FOLDER

Decodes every image once, prints what it found and writes it to report.json, with a contact sheet per class and a
histogram of the grey values. Exit code 1 means that training would refuse the data: an unreadable image, an image under
two labels or in two splits, a group in two splits, a label in two spellings. Warnings leave it 0. With `--cache disk`
the decoded images are kept for the runs that follow.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import flags
from ttc.datasets.checks.depths import ClassFiles
from ttc.datasets.checks.report import contact_sheet, examine
from ttc.flags.data_settings import dataset_settings
from ttc.flags.parser import Parser, whole
from ttc.results.figure_style import colour_of, save, short_name
from ttc.run import checkpoint, runtime
from ttc.run.escape import counted, plain
from ttc.run.log import log, start_logging, writing

SHOWN, WIDTH = 5, 100


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Look at all images of a data set before training on them.",
        "python scripts/check_dataset.py --dataset imagefolder --data-root FOLDER",
    )
    flags.add_data(parser)
    add = parser.add_argument_group("output").add_argument
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="S", help="of splits and draws, as for pretrain.py")
    add("--output", metavar="FOLDER", help="where report and pictures go; the default is runs/check-DATASET")
    add("--json", metavar="FILE", help="also write the report there, for other programs")
    parser.set_defaults(num_workers=0)
    return parser


def draw_histograms(classes: Sequence[ClassFiles], path: Path) -> None:
    """Draw how often each class has each grey value, as training gets it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, files in enumerate(classes):
        bins = len(files.histogram)
        edges = [256 * number / bins for number in range(bins + 1)]
        name = f"{short_name(files.name)} ({files.images})"
        axes.stairs(100 * files.histogram, edges, color=colour_of(label), linewidth=1.5, label=name)
    axes.set(xlabel="value of a pixel (0 black, 255 white)", ylabel="share of pixels in %", xlim=(0, 256))
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def main() -> int:
    """Examine, draw, tell."""
    # 1. parse
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)

    # 2. examine
    report = examine(dataset_settings(args))

    # 3. write
    folder = Path(args.output or f"runs/check-{args.dataset}")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (folder / "report.json", args.json):
            if name is not None:
                checkpoint.write_text(Path(name), json.dumps(report.values, indent=1) + "\n")
        for label, name in enumerate(report.dataset.class_names):
            safe = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
            contact_sheet(report.dataset, label, folder / f"class-{label}-{safe}.png")
        draw_histograms(report.classes, folder / "histograms.png")

    # 4. tell
    for kind, entries in (("", report.lines), ("problem: ", report.problems), ("warning: ", report.warnings)):
        shown = entries if not kind else entries[:SHOWN]
        sys.stdout.write("".join(f"{wrapped(plain(kind + line))}\n" for line in shown))
        if len(shown) < len(entries):
            sys.stdout.write(f"{kind}{len(entries) - len(shown)} more, see report.json\n")
    log.info("report, contact sheets and histograms are in %s", folder)
    if report.problems:
        raise ValueError(
            f"--dataset {args.dataset} has {counted(len(report.problems), 'problem')}, see {folder}/report.json"
        )
    return 0


def wrapped(line: str) -> str:
    """Break a line that is longer than 100 columns between words; a path stays whole."""
    return (
        textwrap.fill(
            line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False, drop_whitespace=True
        )
        if len(line) > WIDTH
        else line
    )


if __name__ == "__main__":
    runtime.run(main)
