"""Manifests: a CSV file with one line per run of a sweep, and how far each of these runs is.

A line has a name, a run folder and a column for each step, which is a script of this project and the flags it gets.
What the steps print and how they ended lies in RESULTS/cells, a log and a record per line.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypedDict

from ttc.run import checkpoint, files, readers, roles
from ttc.run.escape import plain

RESULT_FILES = {
    "pretrain": "result.json",
    "linear_eval": "linear_eval/result.json",
    "finetune": "finetune/result.json",
    "compute_metrics": "metrics/metrics.json",
}
"""Step -> its result in the run folder. The first step trains, the others read its last checkpoint."""

STATES = ("done", "running", "stopped", "failed", "missing")
"""What a line can be; a stopped one was interrupted and goes on where it was."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_OF_THE_RUNNER = ("--output", "--checkpoint", "--resume", "--dry-run")
"""Flags that say what to do with a line, and in which folder; whoever runs it gives them."""

Words = tuple[str, ...]
Expand = Callable[[Words], list[str]]


class Entry(TypedDict):
    """How a step ended: its words with the recipes expanded, "done", "stopped" or "failed", and its last line."""

    words: list[str]
    state: str
    seconds: float
    message: str


@dataclass(frozen=True)
class Line:
    """One line of a manifest.

    Attributes:
        name: unique; names its log.
        folder: run folder, relative to the folder of all results.
        steps: script -> its flags, in the order in which the scripts run.
    """

    name: str
    folder: str
    steps: dict[str, Words]

    def log(self, results: Path) -> Path:
        """Return the file that gets what the steps print; whoever runs the line holds its lock."""
        return results / "cells" / f"{self.name}.log"

    def record(self, results: Path) -> Path:
        """Return the file that says how the steps ended."""
        return results / "cells" / f"{self.name}.json"

    def command(self, step: str, results: Path) -> list[str]:
        """Return the script and the words it is called with."""
        run = results / self.folder
        place = ["--output", str(run)] if step == "pretrain" else ["--checkpoint", str(run / "checkpoints" / "last.pt")]
        return [f"{step}.py", *self.steps[step], *place]


@dataclass(frozen=True)
class Status:
    """How far a line is: one of STATES, the step it is at, and what there is to say."""

    state: str
    step: str = ""
    detail: str = ""


def results_folder(output: str | None, manifest: Path, root: Path) -> Path:
    """Return the folder of all results, spelled the same from wherever it is named.

    Args:
        output: the flag; None for runs/NAME OF THE MANIFEST.
        manifest: the file.
        root: the project's folder, in which the steps run.
    """
    path = root / "runs" / manifest.stem if output is None else Path(output).resolve()
    return path.relative_to(root) if path.is_relative_to(root) else path


def write_manifest(lines: Sequence[Line], comment: str) -> str:
    """Return the text of a manifest; the comment becomes its first line."""
    steps = [step for step in RESULT_FILES if any(step in line.steps for line in lines)]
    text = io.StringIO()
    text.write(f"# {comment}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "folder", *steps])
    writer.writerows([line.name, line.folder, *(shlex.join(line.steps[step]) for step in steps)] for line in lines)
    return text.getvalue()


def read_manifest(path: Path) -> list[Line]:
    """Read a manifest.

    Raises:
        ValueError: it is none, or a line of it cannot be used; one line that names it.
    """
    source = readers.Source(path, "name a manifest of scripts/make_manifest.py")
    text = source.text().splitlines(keepends=True)
    table = csv.reader(["\n" if line.startswith("#") else line for line in text])
    try:
        rows = [(table.line_num, row) for row in table if row]
    except csv.Error as error:
        source.refuse(f"is no CSV table: {error}", f"line {table.line_num}")
    header = rows[0][1] if rows else []
    steps = header[2:]
    if header[:2] != ["name", "folder"] or not steps or steps[0] != "pretrain" or len(set(steps)) != len(steps):
        raise ValueError(
            f"{path}: the first line must be name,folder,pretrain and further steps, not "
            f"{plain(','.join(header), 80)}; {source.remedy}"
        )
    if unknown := set(steps) - RESULT_FILES.keys():
        raise ValueError(f"{path}: column {plain(min(unknown), 80)} is no step; use {', '.join(RESULT_FILES)}")
    lines = [_line(f"{path}:{number}", header, row) for number, row in rows[1:]]
    for attribute in ("name", "folder"):
        values = [getattr(line, attribute) for line in lines]
        if twice := [value for position, value in enumerate(values) if value in values[:position]]:
            raise ValueError(f"{path}: two lines have the {attribute} {twice[0]}; give each line its own")
    if not lines:
        raise ValueError(f"{path} holds no line; name a manifest of scripts/make_manifest.py")
    return lines


def _line(place: str, header: list[str], row: list[str]) -> Line:
    if len(row) != len(header):
        raise ValueError(f"{place}: {len(row)} columns instead of {len(header)}; quote cells that hold a comma")
    name, folder, *flags = row
    if not _NAME.fullmatch(name):
        raise ValueError(f"{place}: name {name!r} must be letters, digits and ._=+- only")
    parts = PurePosixPath(folder).parts
    if not parts or parts[0] in ("/", "cells") or ".." in parts:
        raise ValueError(f"{place}: folder {folder!r} must lie in the folder of the results, outside of its cells")
    try:
        steps = {step: tuple(shlex.split(text)) for step, text in zip(header[2:], flags, strict=True)}
    except ValueError as error:
        raise ValueError(f"{place}: {str(error).lower()}; close the quotation") from None
    for word in (word for words in steps.values() for word in words):
        if word.split("=", 1)[0] in _OF_THE_RUNNER:
            raise ValueError(f"{place}: {word} is given by the runner; take it out")
    return Line(name, folder, steps)


def choose(lines: Sequence[Line], patterns: Sequence[str]) -> list[Line]:
    """Return the lines whose name fits one of the patterns (`*`, `?`, `[...]`); all of them without a pattern.

    Raises:
        ValueError: a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(line.name, pattern) for line in lines):
            raise ValueError(f"--only {pattern} fits no line, for example not {lines[0].name}; correct the pattern")
    return [line for line in lines if not patterns or any(fnmatchcase(line.name, pattern) for pattern in patterns)]


def lock(path: Path, patience: float = 0.0) -> io.TextIOWrapper | None:
    """Open a log for appending and lock it; None if a process that lives has locked it.

    Processes that inherit the file hold the lock too, so that a step that outlives its runner still counts as running.

    Args:
        path: the log.
        patience: seconds to try; whoever asks for the status holds the lock for a moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file, give_up = files.open_append(path, path.parent.parent), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                file.close()
                return None
            time.sleep(0.05)
        else:
            return file


def read_record(line: Line, results: Path) -> dict[str, Entry]:
    """Return how each step of a line ended last."""
    source = readers.Source(line.record(results), "delete it, the steps know what they have done", results)
    if not source.path.exists():
        return {}
    record: dict[str, Entry] = {}
    for step, value in source.json().items():
        entry = source.mapping(value, step)
        state, seconds, message = (
            source.part(entry, name, kinds, step)
            for name, kinds in (("state", readers.TEXT), ("seconds", readers.NUMBER), ("message", readers.TEXT))
        )
        if state not in ("done", "stopped", "failed"):
            source.refuse(f"is damaged: no state is {state}", f"{step}/state")
        words = source.texts(entry.get("words"), f"{step}/words")
        record[step] = Entry(words=words, state=str(state), seconds=float(str(seconds)), message=str(message))
    return record


def write_record(line: Line, results: Path, record: dict[str, Entry]) -> None:
    """Replace the record of a line."""
    checkpoint.write_text(line.record(results), json.dumps(record, indent=1) + "\n")


def entry_of(line: Line, step: str, results: Path, record: dict[str, Entry], expand: Expand) -> Entry | None:
    """Return how a step with these words, recipes included, ended; None if its result has gone since.

    Words may differ in flags that make no other run, such as --num-workers.
    """
    entry = record.get(step)
    if entry is None or roles.words_of_run(entry["words"]) != roles.words_of_run(expand(line.steps[step])):
        return None
    gone = entry["state"] == "done" and not (results / line.folder / RESULT_FILES[step]).is_file()
    return None if gone else entry


def status(line: Line, results: Path, expand: Expand) -> Status:
    """Tell how far a line is, from its files and locks alone.

    Args:
        line: of the manifest.
        results: the folder of all results.
        expand: replaces the recipes among words by what they hold.
    """
    record = read_record(line, results)
    entries = {step: entry_of(line, step, results, record, expand) for step in line.steps}
    left = [step for step, entry in entries.items() if entry is None or entry["state"] != "done"]
    step = left[0] if left else ""
    if line.log(results).is_file():
        file = lock(line.log(results))
        if file is None:
            return Status("running", step)
        file.close()
    if not left:
        return Status("done", detail=f"{sum(entry['seconds'] for entry in entries.values() if entry):.0f} s")
    if entry := entries[step]:
        return Status(entry["state"], step, entry["message"])
    return Status("stopped" if (results / line.folder).is_dir() else "missing", step)
