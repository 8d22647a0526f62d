"""Plan the fair study and keep its ledger.

python study/fair/plan.py lines --stage rates --tasks breast --output runs/left.csv     lines that the ledger lacks
python study/fair/plan.py lines --stage reported --runs 'breast/supmin-*-seed3'         lines to repeat these runs
python study/fair/plan.py collect --results runs/fair                                   adds finished runs to the ledger

`bash scripts/run_study.sh` does all of it, task by task.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from study.fair import grid, ledger
from study.fair.state import STAGES, planned
from ttc.flags.parser import Parser
from ttc.run import manifest, runtime
from ttc.run.checkpoint import write_text


def main() -> int:
    """Write a manifest, or collect."""
    parser = Parser("Plan the fair study and keep its ledger.", "python study/fair/plan.py lines --stage rates")
    add = parser.add_argument
    add("action", choices=("lines", "collect"), help="write a manifest, or add finished runs to the ledger")
    add("--stage", choices=STAGES, default="reported", help="which runs: see study/protocol.md")
    add("--tasks", nargs="+", choices=list(grid.TASKS), default=list(grid.TASKS), metavar="TASK", help="data sets")
    add("--runs", nargs="+", metavar="PATTERN", help="runs to repeat, with * and ?, though the ledger has them")
    add("--results", default=str(ROOT / "runs" / "fair"), metavar="FOLDER", help="folder of all run folders")
    add("--ledger", default=str(ROOT / "docs" / "results" / "fair.csv"), metavar="FILE", help="the ledger")
    add("--output", metavar="FILE", help="the manifest; the default is standard output")
    args = parser.parse(sys.argv[1:]).namespace()
    path = Path(args.ledger)
    known = ledger.read(path)
    if args.action == "collect":
        stored = pandas.read_csv(path) if path.is_file() else pandas.DataFrame({"run": []})
        lines = ledger.collect(Path(args.results), stored)
        write_text(path, lines.to_csv(index=False, lineterminator="\n"))
        print(f"{path}: {len(lines)} runs")
        return 0
    runs = planned(args.stage, known, args.tasks)
    done = set(known["run"])
    if args.runs:
        runs = [run for run in runs if any(fnmatchcase(run.name, pattern) for pattern in args.runs)]
        if not runs:
            raise ValueError(f"--runs {args.runs[0]} names no run that is planned; quote the pattern")
    else:
        runs = [run for run in runs if run.name not in done]
    if not runs:
        print(f"{args.stage}: nothing is left to do")
        return 0
    text = manifest.write_manifest([run.line() for run in runs], f"python study/fair/plan.py {' '.join(sys.argv[1:])}")
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(Path(args.output), text)
        manifest.read_manifest(Path(args.output))  # what cannot run is refused here, and ends run_study.sh
        print(f"{args.output}: {len(runs)} runs")
    return 0


if __name__ == "__main__":
    runtime.run(main)
