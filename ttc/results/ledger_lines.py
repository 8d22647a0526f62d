"""The ledger of several runs: one line per run and metric, as CSV, and the refusal to mix what cannot be compared."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One metric of one run.

    Attributes:
        group: data of the run, for people.
        run: name of the row: the method and what else sets the row apart.
        folder: the run folder, relative to --results or to the nearest folder that all runs of the table lie in.
        seed: of the run.
        metric: as in `ledger.measures`.
        value: None where it is not defined, or was not measured.
        low: lower end of the 95 % interval.
        high: upper end.
        split: the samples that were measured.
        n: their number.
        shared: digest of the training arguments that all rows of a group must share.
        training: digest of all training arguments but the seed.
        evaluation: digest of the evaluation's arguments; of the training for its own numbers.
        commit: of the code that measured; empty if unknown.
        dirty: whether that code had uncommitted changes; empty if unknown.
    """

    group: str
    run: str
    folder: str
    seed: int
    metric: str
    value: float | None
    low: float | None
    high: float | None
    split: str
    n: int | None
    shared: str
    training: str
    evaluation: str
    commit: str
    dirty: str


def check(lines: Iterable[Line]) -> None:
    """Refuse lines that must not share a table: other settings, other splits, the same run twice.

    Raises:
        ValueError: the message names two run folders and what differs.
    """
    rules: list[tuple[str, Callable[[Line], object], Callable[[Line], str]]] = [
        ("settings of the training", lambda line: line.group, lambda line: line.shared),
        ("arguments of the training", lambda line: (line.group, line.run), lambda line: line.training),
        ("arguments of the evaluation", lambda line: (line.group, line.metric), lambda line: line.evaluation),
        ("split", lambda line: line.metric, lambda line: line.split),
    ]
    first: dict[object, Line] = {}
    seen: dict[object, Line] = {}
    for line in lines:
        for number, (what, key_of, value_of) in enumerate(rules):
            own_numbers = what.endswith("evaluation") and line.evaluation == line.training
            if own_numbers or not value_of(line):
                continue
            other = first.setdefault((number, key_of(line)), line)
            if value_of(other) != value_of(line):
                raise ValueError(
                    f"{line.folder} and {other.folder} differ in the {what} behind {line.metric} "
                    f"({value_of(other)}, {value_of(line)}); put them in separate tables"
                )
        twin = seen.setdefault((line.group, line.run, line.seed, line.metric), line)
        if twin is not line:
            raise ValueError(
                f"{twin.folder} and {line.folder} are the same run ({line.run}, seed {line.seed}); leave one out"
            )


def to_csv(lines: Sequence[Line]) -> str:
    """Write lines as CSV; an undefined number is an empty cell."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [field.name for field in fields(Line)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    return file.getvalue()


def update(lines: Sequence[Line], newer: Sequence[Line]) -> list[Line]:
    """Add the lines of further runs; runs that are in both are taken from the newer ones, in the older ones' place.

    Names tell apart what was collected together, so that they can differ between the two: see `_one_name_each`.

    Raises:
        ValueError: lines that must not share a table.
    """
    runs: dict[str, list[Line]] = {}
    for each in (lines, newer):
        again: dict[str, list[Line]] = {}
        for line in each:
            again.setdefault(line.folder, []).append(line)
        runs |= again
    merged = _one_name_each([line for of_run in runs.values() for line in of_run])
    check(merged)
    return merged


def _one_name_each(lines: Sequence[Line]) -> list[Line]:
    """Name groups with the same shared settings alike, and rows with the same training; the longest name says most.

    Trainings of one group that are left with the same name get the name of their first folder in addition.
    """
    groups: dict[str, str] = {}
    rows: dict[tuple[str, str], str] = {}
    folders: dict[tuple[str, str], str] = {}
    for line in lines:
        row = (line.shared, line.training)
        groups[line.shared] = max(groups.get(line.shared, ""), line.group, key=len)
        rows[row] = max(rows.get(row, ""), line.run, key=len)
        folders.setdefault(row, re.sub(r"-seed[0-9]+$", "", line.folder.rpartition("/")[2]))
    uses = Counter((shared, name) for (shared, _), name in rows.items())
    names = {row: name if uses[row[0], name] == 1 else f"{name} ({folders[row]})" for row, name in rows.items()}
    return [replace(line, group=groups[line.shared], run=names[line.shared, line.training]) for line in lines]


def from_csv(path: Path) -> list[Line]:
    """Read what `to_csv` wrote.

    Raises:
        ValueError: not such a file, or lines that must not share a table.
    """
    try:
        with path.open(newline="") as file:
            lines = [_parse(row) for row in csv.DictReader(file)]
        if not lines:
            raise ValueError("no lines")
    except OSError as error:
        raise ValueError(f"--from-csv {path} cannot be read ({error.strerror}); pass a ledger file") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"--from-csv {path} is no ledger ({' '.join(str(error).split())}); pass a file that --output wrote"
        ) from None
    check(lines)
    return lines


def _parse(row: Mapping[str, str]) -> Line:
    texts = {name: row[name] for name in (field.name for field in fields(Line))}
    numbers = {name: float(texts[name]) if texts[name] else None for name in ("value", "low", "high")}
    return Line(**{**texts, **numbers, "seed": int(texts["seed"]), "n": int(texts["n"]) if texts["n"] else None})  # type: ignore[arg-type]  # text but for these
