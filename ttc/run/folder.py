"""The run folder: who may write to it, what is in it, and when it is finished.

A run is known by its `args.json`. The same command continues it, another command is refused, and a finished run, one
with a `result.json`, is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ttc.run import checkpoint, files, readers, roles

_BEFORE_THE_RUN = (".lock", "log.txt", "STOP")
"""What a command leaves that failed during its set-up: the corrected command may use the folder."""


def _before_the_run(path: Path) -> bool:
    return path.name in _BEFORE_THE_RUN or path.match(checkpoint.TEMPORARY)


def _remove_leftovers(path: Path) -> None:
    """Remove files that killed processes of a run left half-written; a run in a folder of its own inside is spared."""
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not Path(parent, name, ".lock").exists()]
        for leftover in (Path(parent, name) for name in names):
            if leftover.match(checkpoint.TEMPORARY):
                leftover.unlink(missing_ok=True)


class RunFolder:
    """A folder that belongs to one run and to one process at a time."""

    def __init__(self, path: Path, result: str = "result.json") -> None:
        """Name the folder; nothing is touched yet.

        Args:
            path: the folder.
            result: the file whose presence means that the run is finished.
        """
        self.path = path
        self.result = path / result
        self._made: list[Path] = []
        self._lock: object | None = None

    @property
    def finished(self) -> bool:
        """Whether the run's result is there."""
        return self.result.is_file()

    def claim(self, values: Mapping[str, object], *, resume: str = "auto") -> bool:
        """Make sure that the folder is empty or holds the run that `values` describe, and lock it.

        The lock is the operating system's: it goes with its process, however that ends. It is a record lock, which the
        processes that decode images do not inherit: after SIGKILL they live on for some seconds.

        Args:
            values: flag -> JSON value, as `save_arguments` will write them.
            resume: "auto" (continue the same run), "never" (the folder must hold no run) or a checkpoint's path.

        Returns:
            Whether the run is finished. Of several hosts only the one that claims must say so: to another one the file
            system may not yet show the result.

        Raises:
            ValueError: the folder holds something else, links or pipes, or is in use; nothing was changed.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise ValueError(f"--output {path} is a file; name a folder")
        files.refuse_links(path)
        arguments_file = path / "args.json"
        if arguments_file.is_file():
            if resume == "never":
                raise ValueError(
                    f"--output {path} holds a run and --resume is never; choose another folder, or --resume auto"
                )
            self._compare(arguments_file, values)
        elif path.is_dir() and any(not _before_the_run(entry) for entry in path.iterdir()):
            raise ValueError(f"--output {path} is not empty and holds no run; choose another folder")
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = files.open_append(path / ".lock")
        except OSError as error:
            raise ValueError(f"--output {path} cannot be written ({error.strerror}); choose another folder") from None
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(f"--output {path} is in use by another process; wait for it or stop it") from None
        self._lock = lock
        _remove_leftovers(path)
        return self.finished

    @contextlib.contextmanager
    def taken_back(self) -> Iterator[None]:
        """Remove the folders that `claim` made when the block fails and has left nothing in them."""
        try:
            yield
        except BaseException:
            if self._made and [entry.name for entry in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()
                with contextlib.suppress(OSError):  # another process may have put something there
                    for folder in self._made:
                        folder.rmdir()
            raise

    def _compare(self, arguments_file: Path, values: Mapping[str, object]) -> None:
        stored = readers.read_arguments(arguments_file, self.path, "choose another --output")
        differ = differing(
            {name: None if entry["source"] == "derived" else entry["value"] for name, entry in stored.items()}, values
        )
        if differ:
            raise ValueError(f"--output {self.path} holds another run: {shorten(differ)}; choose another folder")

    def save_arguments(
        self, values: Mapping[str, object], sources: Mapping[str, str], derived: Mapping[str, object]
    ) -> None:
        """Write `args.json`: every value and where it came from.

        Args:
            values: flag -> value as given; None where it is to be derived.
            sources: flag -> where the value came from.
            derived: flag -> value that took the place of a None.
        """
        entries = {name: {"value": value, "source": sources[name]} for name, value in values.items()}
        entries |= {
            name: {"value": value, "source": "derived"} for name, value in derived.items() if values[name] is None
        }
        self.save_json("args.json", entries)

    def settings(self) -> dict[str, object]:
        """Return flag -> value from `args.json`, derived values included, without those that make no other run."""
        entries = readers.read_arguments(self.path / "args.json", self.path)
        return {name: entry["value"] for name, entry in entries.items() if roles.makes_run(name)}

    def result_text(self) -> str:
        """Return the finished result as it stands in its file, which must be one."""
        readers.read_result(self.result, self.path)
        return self.result.read_text()

    def tell(self, whole: bool) -> None:
        """Write the finished result to standard output, as it stands in its file or as `tell` shortens it."""
        text = self.result_text()
        if whole or not sys.stdout.isatty():
            sys.stdout.write(text)
        else:
            tell(json.loads(text), self.result)

    def save_json(self, name: str, value: object) -> Path:
        """Write a JSON file of the run atomically; NaN and infinity are refused."""
        path = self.path / name
        checkpoint.write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
        return path


def differing(stored: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Describe the flags in which two commands differ, leaving out those that do not make another run.

    Args:
        stored: flag -> value as the first command gave it; None where it left the value to be derived.
        wanted: the same of the second command.

    Returns:
        One text such as "--lr (0.1 there, 0.2 now)" per differing flag.
    """
    stored, wanted = (json.loads(json.dumps(dict(values))) for values in (stored, wanted))
    return [
        f"--{name.replace('_', '-')} ({roles.value_of(name, stored)} there, {roles.value_of(name, wanted)} now)"
        for name in sorted(stored.keys() | wanted.keys())
        if roles.makes_run(name) and not roles.same(name, stored, wanted)
    ]


def truncate_jsonl(path: Path, step: int) -> None:
    """Drop the lines of a metrics file that come after `step`: the resumed run writes them again."""
    if not path.exists():
        return
    lines = [line for line, entry in readers.read_steps(path, path.parent) if float(str(entry["step"])) <= step]
    checkpoint.write_text(path, "".join(line + "\n" for line in lines))


def shorten(names: Iterable[object], most: int = 5) -> str:
    """Join names for a message, at most `most` of them."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def logged_curve(path: Path, key: str) -> list[tuple[float, float]]:
    """Return (epochs, value) of the lines of a metrics.jsonl that have a number; a torn last line is skipped."""
    points, steps_per_epoch = [], 1.0
    for _, entry in readers.read_steps(path, path.parent):
        step, epoch, value = (entry.get(name) for name in ("step", "epoch", key))
        assert isinstance(step, int | float)
        if isinstance(epoch, int | float) and epoch > 0 and step > 0:
            steps_per_epoch = step / epoch
        if isinstance(value, int | float):
            points.append((step, float(value)))
    return [(step / steps_per_epoch, value) for step, value in points]


_HEADLINES = ("auroc", "auprc", "balanced_accuracy", "SAA/minority", "CAC/minority", "mean_cosine/all")
"""Endings of the measures that a terminal gets; the file has all of them."""
_MOST_HEADLINES = 6


def tell(result: Mapping[str, object], file: Path | None, whole: bool = False) -> None:
    """Write a result to standard output as one line of JSON: programs get all of it, a terminal what matters.

    Args:
        result: with "kind", and "measures" where it has a ledger.
        file: that holds the result; None where no file does.
        whole: give all of it to a terminal too.
    """
    if whole or file is None or not sys.stdout.isatty():
        sys.stdout.write(json.dumps(result) + "\n")
        return
    measures = result.get("measures")
    values = {name: measure["value"] for name, measure in measures.items()} if isinstance(measures, Mapping) else {}
    named = [
        name for name in values if name.count("/") <= 3 and name.endswith(_HEADLINES) and "/validation/" not in name
    ]
    short = {"kind": result["kind"], "result": str(file)}
    shown = {
        name: value if value is None else round(value, 4)
        for name in named[:_MOST_HEADLINES]
        for value in [values[name]]
    }
    sys.stdout.write(json.dumps({**short, **shown}) + "\n")
