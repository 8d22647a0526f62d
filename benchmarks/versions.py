"""Two checkouts of the project side by side: commands of both in turns, timed with all their processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import timing
from ttc.flags.parser import Parser

ROOT = Path(__file__).resolve().parents[1]
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

    def time(self, *words: str | Path, one_thread: bool) -> tuple[float, float]:
        """Run a script of this version; return processor time and time on the wall, in seconds.

        Args:
            words: the script and what follows it.
            one_thread: as sweeps do it; else with the threads that the libraries choose.

        Raises:
            ValueError: it failed.
        """
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, *map(str, words)]
        environment = self._environment | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
        done = subprocess.run(command, cwd=self.code, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            raise ValueError(f"{' '.join(command)} in {self.code} ended with {done.returncode}: {last}")
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds


def add_before(parser: Parser) -> None:
    """Add the flag that names the earlier version."""
    text = "the earlier version, or a folder with its code"
    parser.add_argument("--before", default="93a57da", metavar="COMMIT", help=text)


@contextlib.contextmanager
def side_by_side(before: str) -> Iterator[list[Version]]:
    """Yield the earlier version and this one, each with an empty folder of its own, and delete what they wrote.

    Args:
        before: commit of the earlier version, or a folder with its code.

    Raises:
        ValueError: not on Linux, which alone counts the time of processes whose parents have ended.
    """
    if sys.platform != "linux":
        raise ValueError("the time of all processes of a command is counted on Linux only")
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp())
    try:
        code = Path(before)
        if not code.is_dir():
            code = folder / "code"
            subprocess.run(["git", "clone", "--quiet", ROOT, code], check=True)
            subprocess.run(["git", "-C", code, "checkout", "--quiet", before], check=True)
        yield [Version(code.resolve(), folder / "before"), Version(ROOT, folder / "now")]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
