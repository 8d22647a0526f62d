"""Read tables of comma-separated values as people save them; the one reader for all tables that a user writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttc.run import files

_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "an Excel workbook or zip archive"}
_SAVE = "save it as 'CSV UTF-8, comma-separated'"


@dataclass(frozen=True)
class Table:
    """The cells of a table, without the spaces around them.

    Attributes:
        place: what the table is called in messages, such as "--data-root FILE".
        columns: name -> cells; names are unique.
        lines: line of the file on which each row ends.
    """

    place: str
    columns: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Name the table and the line of a row."""
        return f"{self.place} line {self.lines[row]}"

    def filled(self, name: str, remedy: str = "fill it in") -> list[str]:
        """Return the cells of a column.

        Raises:
            ValueError: one of them is empty.
        """
        cells = self.columns[name]
        for row, cell in enumerate(cells):
            if not cell:
                raise ValueError(f"{self.where(row)}: column {name!r} is empty; {remedy}")
        return cells


def read_table(
    path: Path,
    flag: str,
    needed: Sequence[str],
    remedy: str = "name the columns in the first line",
    instead: str = "pass the CSV file itself",
    flag_of: Mapping[str, str] | None = None,
) -> Table:
    """Read a table whose first line names its columns.

    A byte order mark, spaces around cells, blank lines and columns without name and content are left out.

    Args:
        path: The file.
        flag: What named it, for messages: "--data-root".
        needed: Columns that must be there.
        remedy: What to do when one is missing.
        instead: What to do when the file is missing.
        flag_of: Column -> flag that the user named it with, to be corrected where there is no such column.

    Returns:
        The table; it may have no rows.

    Raises:
        ValueError: If the file cannot be read, is no such table, lacks a column, names one twice, or has a row of
            another length; one line with the file, the line and the remedy.
    """
    place = f"{flag} {path}"
    rows = _rows(_text(path, place, instead), place)
    header = [name.strip() for name in rows[0][1]] if rows else []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(
                f"{place} line {line}: not {len(header)} cells as in the first line but {len(row)}; "
                f"{'complete the line' if len(row) < len(header) else 'quote cells that contain a comma'}"
            )
    columns: dict[str, list[str]] = {}
    for number, name in enumerate(header):
        cells = [row[number].strip() for _, row in rows[1:]]
        if not name and not any(cells):
            continue
        if name in columns:
            raise ValueError(f"{place}: two columns are called {name!r}; rename or remove one of them")
        columns[name] = cells
    for name in needed:
        if name not in columns:
            among, given = ", ".join(header) or "none", (flag_of or {}).get(name)
            fault, other = f"{place}: no column {name!r} among {among}", f"correct {given} {name}, or rename a column"
            raise ValueError(f"{fault}; {_hint(name, header, given) or (other if given else remedy)}")
    return Table(place, columns, [line for line, _ in rows[1:]])


def _text(path: Path, place: str, instead: str) -> str:
    if path.exists() and not path.is_file():
        raise ValueError(f"{place} is no regular file; {instead}")
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error.strerror}); {instead}") from None
    for start, kind in _OTHER_ENCODINGS.items():
        if content.startswith(start):
            raise ValueError(f"{place} is no UTF-8 CSV file but {kind}; {_SAVE}")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ValueError(f"{place} line {line} holds a zero byte, so this is no UTF-8 CSV file; {_SAVE}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{place} line {line} is no UTF-8 text, so this is no UTF-8 CSV file; {_SAVE}") from None


def _rows(text: str, place: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, with the lines on which they end."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{place} line {reader.line_num} is no UTF-8 CSV file ({error}); {_SAVE}") from None


def _hint(name: str, header: Sequence[str], given: str | None) -> str | None:
    """Say what is wrong with a first line that is separated by something else, or spells the column otherwise."""
    for other in header:
        if other.casefold() == name.casefold():
            return f"write {given} {other}" if given else f"rename {other!r} to {name!r}"
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            return f"the cells are separated by {name}; separate them by commas"
    return None
