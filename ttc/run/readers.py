"""Readers of what a run has written: each checks all that it hands on, and refuses the rest in one line.

The line names the file, the place in it and what to do. Files may come from anybody: see ttc/run/files.py.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from ttc.run import files
from ttc.run.escape import plain

AGAIN = "run that step again in a new folder"
"""What to do about a damaged file of a run."""

T = TypeVar("T")
N = TypeVar("N", int, float)
Object = dict[str, object]
"""A JSON object."""

_DIGITS = 19
"""Longest whole number; more do not fit into 64 bits, and no count or seed of ours has them."""


@dataclass(frozen=True)
class Source:
    """A file that is being read.

    Attributes:
        path: the file.
        remedy: what to do when it cannot be used.
        within: the run folder that it was found in; None for a file that the user has named.
        what: goes before the path in a message, such as a flag.
    """

    path: Path
    remedy: str = AGAIN
    within: Path | None = None
    what: str = ""

    def refuse(self, reason: str, place: str = "") -> NoReturn:
        """Raise the ValueError that says why the file cannot be used.

        Args:
            reason: such as "is no number".
            place: in the file, such as "measures/train/loss/value" or "line 3".
        """
        where = f", {plain(place, 120)}," if place else ""
        what = f"{self.what} " if self.what else ""
        raise ValueError(f"{what}{self.path}{where} {plain(reason, 200)}; {self.remedy}") from None

    def content(self) -> bytes:
        """Return what the file holds."""
        try:
            return files.read_bytes(self.path, self.within)
        except OSError as error:
            self.refuse(f"cannot be read ({error.strerror})")

    def text(self) -> str:
        """Return what the file holds as text."""
        try:
            return self.content().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.refuse("is damaged: no UTF-8 text")

    def json(self) -> Object:
        """Return the JSON object that the file holds; its numbers are finite."""
        try:
            value = parse(self.text())
        except ValueError as error:
            if str(self.path) in str(error):
                raise
            self.refuse(f"is damaged: {error}")
        return self.mapping(value, "")

    def mapping(self, value: object, place: str) -> Object:
        """Return a JSON object, or refuse what is none."""
        return (
            value if isinstance(value, dict) else self.refuse(f"is damaged: {_name(value)} instead of {{...}}", place)
        )

    def texts(self, value: object, place: str) -> list[str]:
        """Return a list of texts, or refuse what is none."""
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self.refuse(f"is damaged: {_name(value)} instead of a list of texts", place)
        return value

    def part(self, of: Mapping[str, object], name: str, kinds: tuple[type, ...], place: str = "") -> object:
        """Return an entry of a JSON object that must be of one of these types; True and False are no numbers."""
        entry_place = f"{place}/{name}" if place else name
        if name not in of:
            self.refuse("is damaged: it is missing", entry_place)
        value = of[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.refuse(
                f"is damaged: {_name(value)} instead of {' or '.join(map(_KIND_NAMES.__getitem__, kinds))}", entry_place
            )
        return value

    def using(self, use: Callable[[], T]) -> T:
        """Call a function that reads parts of the file without checks; missing or wrong parts are refused."""
        try:
            return use()
        except (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError) as error:
            self.refuse(f"is damaged: missing or wrong parts ({type(error).__name__}: {error})")


_NONE = type(None)
NUMBER, NUMBER_OR_NONE, TEXT, WHOLE = (int, float), (int, float, _NONE), (str,), (int,)
TEXT_OR_NONE, WHOLE_OR_NONE = (str, _NONE), (int, _NONE)
_KIND_NAMES = {
    int: "a whole number", float: "a number", str: "a text", _NONE: "null", dict: "{...}", list: "[...]", bool: "true"
}  # fmt: skip


_NAMING = {
    **dict.fromkeys(("dataset", "method", "batch_sampler"), TEXT), "seed": WHOLE, "epochs": WHOLE_OR_NONE,
    "min_minority_per_batch": WHOLE_OR_NONE, "train_samples": WHOLE_OR_NONE, "class_ratios": (list, _NONE),
}  # fmt: skip


def _name(value: object) -> str:
    return _KIND_NAMES.get(type(value), type(value).__name__)


def parse(text: str) -> object:
    """Read JSON of any shape.

    Raises:
        ValueError: it is none, it is nested too deeply, or it holds a number that no computer number can be.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_real)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise ValueError(f"the number {text[:9]}... has {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


# One reader per kind of file.


def read_arguments(path: Path, within: Path | None = None, remedy: str = AGAIN) -> dict[str, Object]:
    """Read an args.json: flag -> {"value": any JSON value, "source": text}."""
    source = Source(path, remedy, within)
    entries = source.json()
    for name, entry in entries.items():
        source.part(source.mapping(entry, name), "source", TEXT, name)
        if "value" not in source.mapping(entry, name):
            source.refuse("is damaged: it is missing", f"{name}/value")
    return entries  # type: ignore[return-value]  # each entry was looked at


def read_training(path: Path, within: Path | None = None) -> dict[str, Object]:
    """Read the args.json of a pretraining, with the flags after which tables name their rows."""
    entries, source = read_arguments(path, within), Source(path, within=within)
    values = {name: entry["value"] for name, entry in entries.items()}
    for name, kinds in _NAMING.items():
        source.part(values, name, kinds)
    ratios = values["class_ratios"]
    if isinstance(ratios, list) and not all(isinstance(ratio, int | float) for ratio in ratios):
        source.refuse("is damaged: no list of numbers", "class_ratios")
    return entries


def read_result(path: Path, within: Path | None = None) -> Object:
    """Read a result.json or metrics.json; its measures, record, classes and positive class, where it has them, fit."""
    source = Source(path, within=within)
    result = source.json()
    source.part(result, "kind", TEXT)
    if "measures" in result:
        for name, measure in source.mapping(result["measures"], "measures").items():
            place, entry = f"measures/{name}", source.mapping(measure, f"measures/{name}")
            for part in ("value", "low", "high"):
                source.part(entry, part, NUMBER_OR_NONE, place)
            source.part(entry, "split", TEXT_OR_NONE, place)
            source.part(entry, "n", WHOLE_OR_NONE, place)
    if "record" in result:
        git = source.part(source.mapping(result["record"], "record"), "git", (dict,), "record")
        assert isinstance(git, dict)
        source.part(git, "commit", TEXT_OR_NONE, "record/git")
        source.part(git, "dirty", (bool, _NONE), "record/git")
    names = source.texts(result["class_names"], "class_names") if "class_names" in result else None
    for name in ("positive_class", "minority_class"):
        if result.get(name) is not None:
            label = source.part(result, name, WHOLE)
            if names is not None and not 0 <= int(str(label)) < len(names):
                source.refuse(f"is damaged: there is no class {label}", name)
    return result


def read_positive_class(path: Path, within: Path | None = None) -> int:
    """Return the class that the scores beside a result.json are about."""
    result = read_result(path, within)
    return int(str(Source(path).part(result, "positive_class", WHOLE)))


def read_environment(path: Path, within: Path | None = None) -> Object:
    """Read an env.json."""
    source = Source(path, "delete it; reports do without it", within)
    record = source.json()
    for name in ("python", "torch", "torchvision", "platform", "device"):
        source.part(record, name, TEXT)
    git = source.mapping(source.part(record, "git", (dict,)), "git")
    source.part(git, "commit", TEXT_OR_NONE, "git")
    source.part(git, "dirty", (bool, _NONE), "git")
    return record


def read_steps(path: Path, within: Path | None = None) -> list[tuple[str, Object]]:
    """Read a metrics.jsonl: each line as it stands and what it holds; a torn end, which a kill leaves, is left out."""
    source, lines = Source(path, within=within), []
    for number, line in enumerate(source.text().split("\n"), 1):
        try:
            value = parse(line)
        except ValueError:
            break
        entry = source.mapping(value, f"line {number}")
        source.part(entry, "step", NUMBER, f"line {number}")
        if "epoch" in entry:
            source.part(entry, "epoch", NUMBER, f"line {number}")
        lines.append((line, entry))
    return lines


def read_table(source: Source, needed: Sequence[str] = ()) -> dict[str, list[str]]:
    """Read a CSV file with a header: column -> cells, all lines equally long, empty lines left out.

    Args:
        source: the file.
        needed: columns that it must have.
    """
    table = csv.reader(io.StringIO(source.text(), newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        for cells in filter(None, table):
            if rows and len(cells) != len(rows[0]):
                source.refuse(f"has {len(cells)} cells instead of {len(rows[0])}", f"line {table.line_num}")
            rows.append(cells)
    except csv.Error as error:
        source.refuse(f"is no CSV table: {error}", f"line {table.line_num}")
    header = rows[0] if rows else []
    if missing := [name for name in needed if name not in header]:
        source.refuse(f"lacks the column {missing[0]}")
    if len(set(header)) < len(header):
        source.refuse("has two columns of one name")
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def numbers(
    source: Source,
    cells: Sequence[str],
    column: str,
    least: float = -math.inf,
    most: float = math.inf,
    empty: float | None = None,
) -> list[float]:
    """Return the finite numbers, from `least` to `most`, that the cells of a column hold; `empty` for an empty one."""
    return [
        empty if empty is not None and not cell else _cell(source, cell, f"{column} in row {row}", _real, least, most)
        for row, cell in enumerate(cells, 1)
    ]


def wholes(
    source: Source, cells: Sequence[str], column: str, least: float = -math.inf, most: float = math.inf
) -> list[int]:
    """Return the whole numbers, from `least` to `most`, that the cells of a column hold."""
    return [_cell(source, cell, f"{column} in row {row}", _whole, least, most) for row, cell in enumerate(cells, 1)]


def _cell(source: Source, cell: str, place: str, convert: Callable[[str], N], least: float, most: float) -> N:
    try:
        value = convert(cell)
    except ValueError:
        source.refuse(f"is {cell[:40]!r}, but must be a {'whole' if convert is _whole else 'finite'} number", place)
    if not least <= value <= most:
        source.refuse(f"is {cell[:40]}, outside of {least:g} to {most:g}", place)
    return value
