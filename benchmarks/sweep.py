"""Time lines of a study's manifest, and starts of evaluations, against an earlier version of this project.

python benchmarks/sweep.py --lines 20 --output docs/performance/sweep.csv

Both versions run the same lines by their own scripts/run_cells.py, some at a time and in turns, with one thread and
a cache of its own; then they evaluate a small run on digits, with the threads that the libraries choose.
Processor time is of all processes that a command starts.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import timing
from ttc.flags.parser import Parser, whole
from ttc.run import manifest, runtime
from ttc.run.log import log

ROOT = Path(__file__).resolve().parents[1]
EVALUATIONS = ("linear_eval", "compute_metrics")
_SUBREAPER = 36
"""Linux: PR_SET_CHILD_SUBREAPER, by which processes whose parents have ended become children of this one."""


class Version:
    """A checkout of the project, with folders of its own for results and cache."""

    def __init__(self, code: Path, folder: Path) -> None:
        """Remember the place of the code, and where this version writes."""
        self.code, self.folder = code, folder
        self._environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
        # Without the last one every start compiles the project's own modules again, which no user's does.
        for name in ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"):
            self._environment.pop(name, None)

    def run(self, *words: str | Path, one_thread: bool) -> str:
        """Run a script of this version and return its error stream; see `time`."""
        command = [sys.executable, *map(str, words)]
        environment = self._environment | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
        done = subprocess.run(command, cwd=self.code, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            raise ValueError(f"{' '.join(command)} in {self.code} ended with {done.returncode}: {last}")
        return done.stderr

    def time(self, *words: str | Path, one_thread: bool) -> tuple[float, float]:
        """Run a script of this version; return processor time and time on the wall, in seconds.

        Args:
            words: the script and what follows it.
            one_thread: as sweeps do it; else with the threads that the libraries choose.

        Raises:
            ValueError: it failed.
        """
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.run(*words, one_thread=one_thread)
        seconds = time.perf_counter() - start
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds


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


def time_start(versions: Sequence[Version], script: str, repeats: int) -> Turns:
    """Evaluate a run on digits in turns, after one turn to warm up."""
    turns = []
    for turn in range(repeats + 1):
        times = []
        for each in versions:
            run = each.folder / "digits"
            if not run.is_dir():
                each.time("pretrain.py", "--epochs", "2", "--output", run, one_thread=False)
            output = each.folder / f"{script}-{turn}"
            words = (f"{script}.py", "--checkpoint", run / "checkpoints" / "last.pt", "--output", output)
            times.append(each.time(*words, one_thread=False))
        turns.append(times)
    return turns[1:]


def largest_imports(version: Version, script: str, most: int = 4) -> str:
    """Return which packages take most of the time to import at such a start, as shares of the whole start.

    Python measures that itself (`-X importtime`), which makes an import a little slower.
    """
    words = (f"{script}.py", "--checkpoint", version.folder / "digits" / "checkpoints" / "last.pt")
    start = time.perf_counter()
    told = version.run("-X", "importtime", *words, "--output", version.folder / f"{script}-imports", one_thread=False)
    whole_start = time.perf_counter() - start
    spent: dict[str, float] = {}
    for own, name in _IMPORT.findall(told):
        spent[name] = spent.get(name, 0.0) + int(own) / 1e6
    largest = sorted(spent.items(), key=lambda each: -each[1])[:most]
    return "; ".join(f"import {name} {100 * seconds / whole_start:.0f} %" for name, seconds in largest)


_IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\w+)", re.MULTILINE)
"""Microseconds in a module itself, and the package that it belongs to."""
Turns = list[list[tuple[float, float]]]
"""Of each turn, for both versions, processor time and time on the wall."""


def row_of(case: str, turns: Turns) -> dict[str, str]:
    """Return medians over turns, and of the later version's share of the earlier one's time in the same turn."""
    row = {"case": case, "turns": str(len(turns))}
    for kind, name in enumerate(("processor", "elapsed")):
        before, now = ([turn[version][kind] for turn in turns] for version in (0, 1))
        row |= {f"{name}_seconds_before": f"{statistics.median(before):.1f}"}
        row |= {f"{name}_seconds": f"{statistics.median(now):.1f}"}
        row |= {f"percent_of_{name}_time": f"{100 / timing.times_faster(before, now):.0f}"}
    return row


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Time lines of a manifest against an earlier version.", "python benchmarks/sweep.py --lines 20")
    add = parser.add_argument
    add("--before", default="93a57da", metavar="COMMIT", help="the earlier version, or a folder with its code")
    add("--manifest", default="scripts/manifests/study.csv", metavar="FILE", help="of both versions")
    add("--only", default="*-seed0", metavar="PATTERN", help="names of lines, with * and ?")
    add("--lines", type=whole(0), default=20, metavar="N", help="the first lines that fit; 0 leaves them out")
    add("--chunk", type=whole(1), default=10, metavar="N", help="lines of a turn")
    add("--repeats", type=whole(1), default=3, metavar="N", help="turns of the evaluations on digits")
    add("--data-root", metavar="PATH", help="where the images lie here, if not where the manifest says")
    add("--output", type=Path, metavar="FILE.csv", help="table to write")
    return parser


def main() -> int:
    """Take turns, tell."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    timing.start(threads=1)
    if sys.platform != "linux":
        raise ValueError("benchmarks/sweep.py counts the time of all processes, which it can on Linux only")
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp())
    try:
        before = Path(args.before)
        if not before.is_dir():
            before = folder / "code"
            subprocess.run(["git", "clone", "--quiet", ROOT, before], check=True)
            subprocess.run(["git", "-C", before, "checkout", "--quiet", args.before], check=True)
        versions = [Version(before.resolve(), folder / "before"), Version(ROOT, folder / "now")]
        rows = []
        if lines := shared_lines(versions, args.manifest, args.only, args.lines) if args.lines else []:
            more = [] if args.data_root is None else ["--data-root", args.data_root]
            turns = time_lines(versions, args.manifest, lines, args.chunk, more)
            rows.append({**row_of(f"{len(lines)} lines, {args.chunk} a turn", turns), "largest_imports": ""})
            timing.tell(rows[-1])
        for script in EVALUATIONS:
            rows.append(row_of(f"{script}.py on digits", time_start(versions, script, args.repeats)))
            rows[-1]["largest_imports"] = largest_imports(versions[1], script)
            timing.tell(rows[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.output:
        timing.write_rows(args.output, rows, torch.device("cpu"))
    return 0


if __name__ == "__main__":
    runtime.run(main)
