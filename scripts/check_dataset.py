"""Look at all images of a data set before training on them.

    python scripts/check_dataset.py --dataset imagefolder --data-root FOLDER

Decodes every image once, prints what it found and writes it to report.json, with a contact sheet per class. Exit code 1
means that something is wrong: an unreadable image, or an image, path or group in two splits. With `--cache disk` the
decoded images are kept for the runs that follow.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import flags
from ttc.datasets.checks.report import contact_sheet, examine
from ttc.flags.data_settings import dataset_settings
from ttc.flags.parser import Parser, whole
from ttc.run import checkpoint, runtime
from ttc.run.escape import plain
from ttc.run.log import log, start_logging

SHOWN = 10


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
    parser.set_defaults(num_workers=0)
    return parser


def main() -> int:
    """Examine, draw, tell."""
    # 1. parse
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)

    # 2. examine
    report = examine(dataset_settings(args))

    # 3. write
    folder = Path(args.output or f"runs/check-{args.dataset}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(folder / "report.json", json.dumps({**report.values, "problems": report.problems}, indent=1))
    for label, name in enumerate(report.dataset.class_names):
        safe = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
        contact_sheet(report.dataset, label, folder / f"class-{label}-{safe}.png")

    # 4. tell
    sys.stdout.write("".join(f"{plain(line)}\n" for line in [*report.lines, *report.problems[:SHOWN]]))
    log.info("report and contact sheets are in %s", folder)
    if report.problems:
        raise ValueError(f"--dataset {args.dataset} has {len(report.problems)} problems, see {folder}/report.json")
    return 0


if __name__ == "__main__":
    runtime.run(main)
