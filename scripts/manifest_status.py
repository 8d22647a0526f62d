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
from ttc.run.manifest import STATES, Line, Status


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


def table(statuses: list[tuple[Line, Status]], width: int = 100) -> list[str]:
    """Lay the runs out for a terminal."""
    rows = [("run", "state", "step", "note")]
    rows += [(line.name, status.state, status.step, plain(status.detail, 4 * width)) for line, status in statuses]
    first, second, third = (max(len(row[column]) for row in rows) for column in range(3))
    texts = [f"{name:<{first}}  {state:<{second}}  {step:<{third}}  {note}" for name, state, step, note in rows]
    return [text.rstrip() if len(text) <= width else text[: width - 3] + "..." for text in texts]


def main() -> int:
    """Look at every line, print."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    path = Path(args.manifest).resolve()
    all_lines = manifest.read_manifest(path)
    results = manifest.results_folder(args.output, path, ROOT)
    os.chdir(ROOT)
    statuses = [
        (line, manifest.status(line, results, lambda words: [word for word, _ in parser.expand(words)]))
        for line in manifest.choose(all_lines, args.only)
    ]
    if args.open_lines:
        # A running line is left out: its element continues by itself.
        numbers = [all_lines.index(line) for line, status in statuses if status.state not in ("done", "running")]
        sys.stdout.write("".join(f"{number}\n" for number in numbers))
        return 0
    for text in table([(line, status) for line, status in statuses if status.state in args.state]):
        sys.stdout.write(text + "\n")
    counts = Counter(status.state for _, status in statuses)
    summary = "  ".join(f"{state} {counts[state]}" for state in STATES)
    sys.stdout.write(f"\n{summary}  of {len(statuses)}\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
