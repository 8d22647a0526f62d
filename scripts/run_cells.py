"""Run lines of a manifest: python scripts/run_cells.py MANIFEST [--jobs N] [--only PATTERN ...].

Each line is pretrained, probed and measured, one step after the other, N lines at a time. Finished steps are left
alone, a line that another process is at is skipped, a line that fails does not hold up the others. What the steps print
goes to RESULTS/cells/NAME.log. On SIGTERM and SIGUSR1 the steps save and stop; so they do on Ctrl-C, which reaches them
directly.

Exit codes: 0 all lines are done, 1 some are not (they are listed), 75 stopped on request; the same command goes on.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import warm
from ttc.flags.parser import Parser, whole
from ttc.run import manifest, runtime
from ttc.run.log import log, start_logging
from ttc.run.manifest import RESULT_FILES, Entry, Line, Status

Process = subprocess.Popen[bytes] | warm.WarmProcess


@dataclass(frozen=True)
class Runner:
    """How lines are run.

    Attributes:
        results: the folder of all results.
        start: starts a script, given its file and what follows it, and the file for its standard error.
        launch: the words before a script's name in the log.
        more: words for every step after those of the manifest.
        expand: replaces the recipes among words by what they hold.
        stop: signals that arrived.
    """

    results: Path
    start: Callable[[Sequence[str], IO[str]], Process]
    launch: Sequence[str]
    more: Sequence[str]
    expand: manifest.Expand
    stop: runtime.StopRequest

    def run(self, line: Line) -> Status:
        """Run the steps of a line that are left."""
        if self.stop.signal_name is not None:
            return Status("stopped", "", "not started")
        file = manifest.lock(line.log(self.results), patience=2)
        if file is None:
            return Status("running", "", "another process is at it")
        with file:
            record = manifest.read_record(line, self.results)
            for step in line.steps:
                entry = manifest.entry_of(line, step, self.results, record, self.expand)
                if entry is None or entry["state"] != "done":
                    record[step] = entry = self._step(line, step, file)
                    manifest.write_record(line, self.results, record)
                if entry["state"] != "done":
                    return Status(entry["state"], step, entry["message"])
        return Status("done")

    def _step(self, line: Line, step: str, file: IO[str]) -> Entry:
        started = time.monotonic()
        command = [*line.command(step, self.results), *self.more]
        file.write(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join([*self.launch, *command])}\n")
        file.flush()
        code = self.call(command, file)
        # A launcher of several processes has one exit code for all that can happen to them.
        asked = self.stop.signal_name is not None
        state = "done" if code == 0 else "stopped" if asked or code == runtime.EXIT_STOPPED else "failed"
        message = "" if state == "done" else last_line(line.log(self.results)) or f"exit code {code}"
        words = self.expand(line.steps[step])
        return Entry(words=words, state=state, seconds=round(time.monotonic() - started, 1), message=message)

    def call(self, command: Sequence[str], file: IO[str]) -> int:
        """Run a script, handing on a request to stop; return its exit code."""
        return self.stop.wait_for(self.start(command, file))

    def plan(self, line: Line) -> Status:
        """Check the command of the first step without running it."""
        if self.stop.signal_name is not None:
            return Status("stopped", "", "not started")
        with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
            code = self.call([*line.command("pretrain", self.results), *self.more, "--dry-run"], file)
            state = "done" if code == 0 else "failed" if self.stop.signal_name is None else "stopped"
            return Status(state, "pretrain" if code else "", last_line(Path(file.name)) if code else "")


def launcher(launch: Sequence[str]) -> Callable[[Sequence[str], IO[str]], Process]:
    """Return what starts scripts with these words before them."""

    def start(words: Sequence[str], stderr: IO[str]) -> Process:
        return subprocess.Popen(
            [*launch, *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )

    return start


def last_line(path: Path) -> str:
    """Return the last line of a log that is not a comment of the runner."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "" if not lines or lines[-1].startswith("== ") else lines[-1]


def time_left(seconds: Sequence[float], lines: int, jobs: int) -> str:
    """Return how long the lines that are left will take, as the end of a sentence; "" where none is.

    Args:
        seconds: that finished lines took, also in earlier calls.
        lines: that are left, the running ones among them.
        jobs: lines at a time.
    """
    if not lines:
        return ""
    left = statistics.fmean(seconds) * lines / min(jobs, lines)
    return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Run lines of a manifest.", "python scripts/run_cells.py scripts/manifests/fashion-mix5-99.csv --jobs 2"
    )
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="CSV file written by scripts/make_manifest.py")
    add("--output", metavar="FOLDER", help="folder of all results; the default is runs/ and the manifest's name")
    add("--jobs", type=whole(1), default=1, metavar="N", help="lines at a time; the cores or devices you have")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="names of lines, with * and ?; the default is all")
    add(
        "--ledger",
        metavar="FILE",
        help="leave out lines whose run is in this ledger already, such as docs/results/study-ledger.csv",
    )
    add("--line", type=whole(0), metavar="I", help="only this line, counted from 0; for job arrays")
    add("--data-root", metavar="PATH", help="where the images lie here, if not where the manifest says")
    add(
        "--launch",
        metavar="WORDS",
        help="what starts a script, such as 'python -m torch.distributed.run --nproc-per-node 4'; "
        "the default is this Python",
    )
    add("--dry-run", action="store_true", help="only check and plan the first step of each line; writes nothing")
    return parser


def main() -> int:
    """Read the manifest, run its lines, tell how they ended."""
    # 1. parse
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()

    # 2. runtime
    start_logging(main=True)
    stop = runtime.StopRequest()

    # 3. lines
    path = Path(args.manifest).resolve()
    lines = manifest.read_manifest(path)
    if args.line is not None:
        if args.line >= len(lines):
            raise ValueError(f"--line {args.line}: {args.manifest} has the lines 0 to {len(lines) - 1}")
        lines = [lines[args.line]]
    lines = manifest.choose(lines, args.only)
    if args.ledger is not None:
        from ttc.results.ledger_lines import from_csv  # imports pandas, which nothing else here needs

        finished = set(from_csv(Path(args.ledger))["folder"])
        left = [line for line in lines if line.folder not in finished]
        log.info("%d of %d lines are in %s; %d are left", len(lines) - len(left), len(lines), args.ledger, len(left))
        lines = left
    results = manifest.results_folder(args.output, path, ROOT)
    more = [] if args.data_root is None else ["--data-root", str(Path(args.data_root).resolve())]
    # The steps run in the project's folder, which is what the recipes' and the results' names refer to.
    os.chdir(ROOT)

    # 4. run
    def expand(words: Sequence[str]) -> list[str]:
        return [word for word, _ in parser.expand(words)]

    launch = [sys.executable] if args.launch is None else shlex.split(args.launch)
    scripts = ["pretrain"] if args.dry_run else [step for line in lines for step in line.steps]
    unfinished = [
        line for line in lines if any(not (results / line.folder / RESULT_FILES[step]).is_file() for step in line.steps)
    ]
    warm.prepare(scripts, [] if args.dry_run else [[*line.steps["pretrain"], *more] for line in unfinished])
    # Threads, which an import may start where it may have several, do not survive a fork.
    alone = os.environ.get("OMP_NUM_THREADS") == "1"
    runner = Runner(
        results=results,
        start=warm.WarmProcess if alone and args.launch is None else launcher(launch),
        launch=launch,
        more=more,
        expand=expand,
        stop=stop,
    )
    for line in lines:  # a recipe that cannot be read ends the command before anything runs
        for words in line.steps.values():
            runner.expand(words)
    ended: dict[str, Status] = {}
    seconds: list[float] = []
    with ThreadPoolExecutor(args.jobs) as executor:
        futures = {executor.submit(runner.plan if args.dry_run else runner.run, line): line for line in lines}
        for future in as_completed(futures):
            name = futures[future].name
            try:
                status = future.result()
            except (ValueError, OSError) as error:
                status = Status("failed", "", str(error))
            ended[name] = status
            told = f"[{len(ended)}/{len(lines)}] {name}: {status.state} {status.step} {status.detail}".rstrip()
            if status.state == "done" and not args.dry_run:
                record = manifest.read_record(futures[future], results)
                seconds.append(sum(entry["seconds"] for entry in record.values()))
                told += time_left(seconds, len(lines) - len(ended), args.jobs)
            log.info("%s", told)

    # 5. result
    bad = {name: status for name, status in ended.items() if status.state != "done"}
    if bad:
        log.error("not done: %d of %d", len(bad), len(lines))
        for name, status in bad.items():
            log.error("  %s", f"{name}: {status.state} {status.step} {status.detail}".rstrip())
    if stop.signal_name is not None and bad:
        return runtime.EXIT_STOPPED
    stopped = bad and all(status.state == "stopped" for status in bad.values())
    return runtime.EXIT_STOPPED if stopped else 1 if bad else 0


if __name__ == "__main__":
    runtime.run(main)
