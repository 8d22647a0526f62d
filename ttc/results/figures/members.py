"""The runs of a sweep, and where each is drawn in its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ttc.results.collect import Run
from ttc.results.floor.rows import ROW
from ttc.results.table_parts.row_names import places_of
from ttc.run.escape import plain
from ttc.run.log import log

T = TypeVar("T")

_WIDE = 9
"""Most methods beside each other; where there are more, and fewer groups, they are below each other."""


@dataclass(frozen=True)
class Figure:
    """A figure that was written: PNG (the PDF is beside it), a short title, and how to read it."""

    path: Path
    title: str
    caption: str


Planned = list[tuple[Figure, Callable[[], None]]]
"""Figures, each with what draws it."""


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its folder, and the group and row of the table that it belongs to."""

    path: Path
    group: str
    row: str
    seed: int


def members_of(runs: Sequence[Run], compared: frozenset[str] | None = None) -> list[Member]:
    """Return the runs of a sweep with their places in the table; rows may differ in the flags of `compared`."""
    places = places_of(runs, compared)
    return [
        Member(run.path, group, row, int(str(run.training["seed"])))
        for run, (group, row) in zip(runs, places, strict=True)
    ]


def rows_of(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Return the members by row; the group is part of the name where there are several."""
    several = len({member.group for member in members}) > 1
    out: dict[str, list[Member]] = {}
    for member in members:
        out.setdefault(name_of(member.row, member.group, several), []).append(member)
    return out


def name_of(row: str, group: str, several: bool) -> str:
    return f"{plain(row)}\n{plain(group)}" if several else plain(row)


def laid_out(members: Sequence[Member], by_row: Mapping[str, T]) -> tuple[dict[str, T | None], int]:
    """Return the values of the rows in the order of the panels, None where there is no run, and the panels in a line.

    Several groups make a grid: one row of the table below the other, or, where there are too many, beside each other.
    """
    groups, rows = (list(dict.fromkeys(getattr(member, part) for member in members)) for part in ("group", "row"))
    rows = [row for row in [*rows, ROW] if any(name_of(row, group, len(groups) > 1) in by_row for group in groups)]
    if len(groups) == 1:
        return dict(by_row), 5
    if len(rows) <= max(_WIDE, len(groups)):
        names, columns = [name_of(row, group, True) for group in groups for row in rows], len(rows)
    else:
        names, columns = [name_of(row, group, True) for row in rows for group in groups], len(groups)
    return {name: by_row.get(name) for name in names}, columns


def existing(member: Member, *names: str) -> Path | None:
    path = member.path.joinpath(*names)
    if not path.is_file():
        log.warning("%s is missing; the run is left out of a figure", path)
    return path if path.is_file() else None
