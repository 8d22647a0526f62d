"""Draw the embeddings of several runs side by side: python scripts/plot_embeddings.py --output FILE.png RUN [RUN ...].

Reads RUN/metrics/embeddings.npz, which compute_metrics.py writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.flags.parser import Parser
from ttc.results.embedding_figures import save_comparison_figure
from ttc.run import runtime
from ttc.run.log import log, start_logging
from ttc.run.npz import read_embeddings


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Draw the embeddings of several runs side by side.",
        "python scripts/plot_embeddings.py --output embeddings.png runs/quickstart/supcon runs/quickstart/supmin",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders that compute_metrics.py has measured")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="picture to write; a PDF is put beside it")
    return parser


def main() -> int:
    """Read, draw."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    runs, class_names = [], []
    for run in map(Path, args.runs):
        path = run / "metrics" / "embeddings.npz"
        if not path.is_file():
            raise ValueError(f"{path} is missing; run compute_metrics.py on {run}/checkpoints/last.pt first")
        saved = read_embeddings(path, run)
        class_names = saved.class_names
        if saved.embeddings.shape[1] < 2:
            log.warning("%s is left out: no unit of its network is active, so it has no embeddings", run)
            continue
        runs.append((run.name, saved.embeddings, saved.labels, saved.prototypes))
    if not runs:
        raise ValueError("no run has embeddings to draw; train with a lower --lr")
    save_comparison_figure(Path(args.output), runs, class_names)
    return 0


if __name__ == "__main__":
    runtime.run(main)
