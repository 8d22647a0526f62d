"""Tell how far the runs of a manifest are: python scripts/manifest_status.py MANIFEST [--output FOLDER].

Prints a line per run (done, running, stopped, failed or missing) and the numbers of each; nothing is changed. A stopped
run was interrupted and goes on where it was; a missing one has not been started, but a scheduler may have queued it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ttc.flags.parser import Parser
from ttc.run import manifest, runtime
from ttc.run.escape import plain
from ttc.run.manifest import STATES, Cell, Status


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Tell how far the runs of a manifest are.",
        "python scripts/manifest_status.py scripts/manifests/fashion-mix5-99.csv --state failed",
    )
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="CSV file written by scripts/make_manifest.py")
    add("--output", metavar="FOLDER", help="folder of all results; the default is runs/ and the manifest's name")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="names of lines, with * and ?; the default is all")
    add("--state", nargs="+", choices=STATES, default=list(STATES), help="list only the runs in these states")
    add("--open-lines", action="store_true", help="print only the numbers, from 0, of the lines that need a run")
    return parser


def table(found: list[tuple[Cell, Status]], width: int = 100) -> list[str]:
    """Lay the runs out for a terminal."""
    columns = [("run", "state", "step", "note")]
    columns += [(cell.name, status.state, status.step, plain(status.detail, 4 * width)) for cell, status in found]
    first, second, third = (max(len(row[column]) for row in columns) for column in range(3))
    lines = [f"{name:<{first}}  {state:<{second}}  {step:<{third}}  {note}" for name, state, step, note in columns]
    return [line.rstrip() if len(line) <= width else line[: width - 3] + "..." for line in lines]


def main() -> int:
    """Look at every line, print."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    path = Path(args.manifest).resolve()
    every = manifest.read_manifest(path)
    results = manifest.results_folder(args.output, path, ROOT)
    os.chdir(ROOT)
    found = [
        (cell, manifest.status(cell, results, lambda words: [word for word, _ in parser.expand(words)]))
        for cell in manifest.choose(every, args.only)
    ]
    if args.open_lines:
        # A running line is left out: its element continues by itself.
        lines = [every.index(cell) for cell, status in found if status.state not in ("done", "running")]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return 0
    for line in table([(cell, status) for cell, status in found if status.state in args.state]):
        sys.stdout.write(line + "\n")
    counts = Counter(status.state for _, status in found)
    summary = "  ".join(f"{state} {counts[state]}" for state in STATES)
    sys.stdout.write(f"\n{summary}  of {len(found)}\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
