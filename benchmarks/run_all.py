"""Write all tables of docs/performance/ and the page, one benchmark after another: python benchmarks/run_all.py.

Takes about 35 minutes on a CPU. After an interruption the same command goes on where it
was: a table that this round has written is left alone. Tables of a GPU are written where there is one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import tables
from ttc.flags.parser import Parser
from ttc.run import runtime
from ttc.run.log import log, start_logging

ROOT = Path(__file__).resolve().parents[1]
ROUND = ROOT / tables.FOLDER / ".round"
"""Made when a round begins and deleted at its end: what is newer was written by this round."""


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Write all tables of docs/performance/ and the page.", "python benchmarks/run_all.py")
    names = (*tables.CPU, *tables.GPU)
    parser.add_argument("--only", nargs="+", choices=names, metavar="TABLE", help=f"of {', '.join(names)}")
    return parser


def write_table(name: str) -> bool:
    """Write a table; return whether that went well."""
    start, command = time.perf_counter(), [sys.executable, *tables.words_of(name)]
    log.info("%s: %s", name, tables.command_of(name))
    code = subprocess.run(command, cwd=ROOT, env=tables.environment_of(name), check=False).returncode
    result = f"failed with exit code {code}" if code else "written"
    log.info("%s: %s after %.0f s", name, result, time.perf_counter() - start)
    return code == 0


def is_new(name: str) -> bool:
    """Tell whether this round has written a table."""
    path = ROOT / tables.FOLDER / f"{name}.csv"
    return path.is_file() and path.stat().st_mtime > ROUND.stat().st_mtime


def main() -> int:
    """Write what is missing."""
    options = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    names = options.only
    if not names:
        gpu = torch.cuda.is_available()
        if not gpu:
            log.info("not measured: no GPU: %s", ", ".join(tables.GPU))
        if not ROUND.exists():
            ROUND.touch()
        names = [name for name in (*tables.CPU, *(tables.GPU if gpu else ())) if not is_new(name)]
    missing = [name for name in names if not write_table(name)]
    subprocess.run([sys.executable, "benchmarks/write_page.py"], cwd=ROOT, check=True)
    if missing:
        raise ValueError(f"not written: {', '.join(missing)}; the same command tries them again")
    if not options.only:
        ROUND.unlink()
    return 0


if __name__ == "__main__":
    runtime.run(main)
