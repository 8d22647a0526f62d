"""Time lines of a study's manifest against an earlier version of this project.

python benchmarks/sweep.py --lines 20 --output docs/performance/sweep.csv

Both versions run the same lines by their own scripts/run_cells.py, some at a time and in turns, with one thread and
a cache of its own. Processor time is of all processes that a command starts.
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
from ttc.run import manifest, runtime
from ttc.run.log import log


def shared_lines(versions: Sequence[Version], name: str, pattern: str, most: int) -> list[str]:
    """Return the names of the first lines that the manifests of both versions have, among those that fit a pattern."""
    names = [[line.name for line in manifest.read_manifest(each.code / name)] for each in versions]
    both = [line for line in manifest.read_manifest(versions[1].code / name) if line.name in names[0]]
    return [line.name for line in manifest.choose(both, [pattern])][:most]


def time_lines(versions: Sequence[Version], name: str, lines: Sequence[str], chunk: int, more: Sequence[str]) -> Turns:
    """Run the lines in turns of a chunk by each version."""
    turns = []
    for first in range(0, len(lines), chunk):
        only = lines[first : first + chunk]
        words = ("scripts/run_cells.py", name, *more, "--only", *only)
        turns.append([each.time(*words, "--output", each.folder / "sweep", one_thread=True) for each in versions])
        log.info("%d of %d lines: %s", first + len(only), len(lines), turns[-1])
    return turns


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Time lines of a manifest against an earlier version.", "python benchmarks/sweep.py --lines 20")
    add_before(parser)
    add = parser.add_argument
    add("--manifest", default="scripts/manifests/study.csv", metavar="FILE", help="of both versions")
    add("--only", default="*-seed0", metavar="PATTERN", help="names of lines, with * and ?")
    add("--lines", type=whole(1), default=20, metavar="N", help="the first lines that fit")
    add("--chunk", type=whole(1), default=10, metavar="N", help="lines of a turn")
    add("--data-root", metavar="PATH", help="where the images lie here, if not where the manifest says")
    add("--output", type=Path, metavar="FILE.csv", help="table to write")
    return parser


def main() -> int:
    """Take turns, tell."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(threads=1)
    more = [] if args.data_root is None else ["--data-root", args.data_root]
    with side_by_side(args.before) as versions:
        lines = shared_lines(versions, args.manifest, args.only, args.lines)
        if not lines:
            raise ValueError(f"--only {args.only} fits no line that --manifest {args.manifest} has in both versions")
        row = row_of(
            f"{len(lines)} lines, {args.chunk} a turn", time_lines(versions, args.manifest, lines, args.chunk, more)
        )
    timing.tell(row)
    if args.output:
        timing.write_rows(args.output, [row], torch.device("cpu"))
    return 0


if __name__ == "__main__":
    runtime.run(main)
