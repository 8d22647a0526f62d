"""Time evaluations of a small run, most of which is their start, against an earlier version of this project.

python benchmarks/starts.py --repeats 5 --output docs/performance/starts.csv

Both versions train a network on digits for two epochs and evaluate it in turns, with the threads that the libraries
choose. The last row is what every start takes at least.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import timing
from benchmarks.versions import Turns, Version, add_before, row_of, side_by_side
from ttc.flags.parser import Parser, whole
from ttc.run import runtime

CASES = {
    "linear_eval.py": ("linear_eval.py",),
    "compute_metrics.py": ("compute_metrics.py",),
    "compute_metrics.py, no figure": ("compute_metrics.py", "--scatter", "none"),
    "import torch": ("-c", "import torch"),
}


def time_case(versions: Sequence[Version], words: Sequence[str], repeats: int) -> Turns:
    """Run a script on the network, or Python without one, in turns; one turn more warms up."""
    turns = []
    for turn in range(repeats + 1):
        times = []
        for each in versions:
            run = each.folder / "digits"
            if not run.is_dir():
                each.time("pretrain.py", "--epochs", "2", "--output", run, one_thread=False)
            output = each.folder / f"{'-'.join(words)}-{turn}"
            place = () if words[0] == "-c" else ("--checkpoint", run / "checkpoints" / "last.pt", "--output", output)
            times.append(each.time(*words, *place, one_thread=False))
        turns.append(times)
    return turns[1:]


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Time starts of evaluations against an earlier version.", "python benchmarks/starts.py")
    add_before(parser)
    add = parser.add_argument
    add("--repeats", type=whole(1), default=5, metavar="N", help="turns that count")
    add("--output", type=Path, metavar="FILE.csv", help="table to write")
    return parser


def main() -> int:
    """Take turns, tell."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(threads=1)
    rows = []
    with side_by_side(args.before) as versions:
        for case, words in CASES.items():
            rows.append(row_of(case, time_case(versions, words, args.repeats)))
            timing.tell(rows[-1])
    if args.output:
        timing.write_rows(args.output, rows, torch.device("cpu"))
    return 0


if __name__ == "__main__":
    runtime.run(main)
