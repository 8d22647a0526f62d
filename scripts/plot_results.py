"""Draw the figures of a sweep: python scripts/plot_results.py --output FOLDER RUN [RUN ...].

circle and tsne are grids of the embeddings, methods against data sets or ratios; curves are ROC and precision-recall,
all methods in one panel, with the areas and their intervals; reliability; confusion matrices; training curves; scatter
is the probe's accuracy against SAA and CAC. Fine-tuned networks are drawn like the probe. Each figure is written as PNG
and as vector PDF. Runs that lack what a figure needs are left out of it with a warning.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Figures of a few hundred points gain nothing from more threads, which take the cores of other work.
if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import flags
from ttc.evaluation.probe import PROBES
from ttc.flags.parser import Parser
from ttc.results import collect, sweep_figures
from ttc.results.figures.members import members_of
from ttc.results.ledger_lines import of_rows
from ttc.results.table_parts import paper
from ttc.results.table_parts.columns import WANTED
from ttc.results.table_parts.row_names import compared_with
from ttc.run import runtime
from ttc.run.log import start_logging, with_bar


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Draw the figures of a sweep.", "python scripts/plot_results.py --output figures runs/quickstart/*/"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the figures go")
    parser.add_argument(
        "--figures",
        default=",".join(sweep_figures.KINDS),
        metavar="NAME,NAME",
        help="what to draw; leave out tsne when it takes too long",
    )
    flags.add_compare(parser)
    parser.add_argument("--probe", choices=PROBES, help=f"probe that is drawn; the default is {paper.PROBE_RULE}")
    return parser


def main() -> int:
    """Read, draw."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    folders = [Path(run) for run in args.runs]
    runs = [collect.read_run(folder)[0] for folder in with_bar(folders, "runs")]
    compared = compared_with(args.compare)
    also = [*paper.ledger_metrics(), *WANTED]
    lines = of_rows(collect.lines_of(runs, sweep_figures.SCATTERED, also=also, compared=compared, complete=False))
    probe = args.probe or paper.page_probe(lines)
    members = members_of(runs, compared)
    sweep_figures.draw(members, lines, Path(args.output), probe, sweep_figures.kinds(args.figures))
    return 0


if __name__ == "__main__":
    runtime.run(main)
