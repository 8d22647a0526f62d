"""A CSV table of image files: columns path and label, optionally split, group (patient, site) and id."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from ttc.datasets.classes import group_labels
from ttc.datasets.splits import missing_parts
from ttc.datasets.table import SPLITS, DatasetSettings, Source

PATH_COLUMN, LABEL_COLUMN = "path", "label"
OPTIONAL = ("split", "group", "id")
Row = dict[str, str]


def read(settings: DatasetSettings) -> Source:
    """Read the table that `data_root` names; relative paths start at its folder.

    Missing splits are drawn by group where there is a group column. Rows of split "pool" belong to the training
    side and are only used when `class_ratios` or `train_samples` draws anew. An optional column whose cells are
    all empty counts as absent, so that a run's own split.csv can be read back. Rows are sorted by id.
    """
    if settings.data_root is None:
        raise ValueError("--dataset csv needs --data-root, the CSV file with the columns path and label")
    table = Path(settings.data_root)
    columns = _columns(table, settings.label_column or LABEL_COLUMN)
    paths = [str(table.parent / path) for path in columns["path"]]
    ids = columns.get("id", columns["path"])
    splits = columns.get("split", ["train"] * len(ids))
    if "train" not in splits:
        raise ValueError(f"--data-root {table}: no row has split 'train'; add training rows or drop the column")
    labels = _sorted_labels(set(columns["label"]))
    classes = group_labels({label: label for label in labels}, settings.classes, settings.positive_classes)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    groups = columns.get("group")
    return Source(
        ids=[ids[row] for row in order],
        labels=[columns["label"][row] for row in order],
        classes=classes,
        splits=[splits[row] for row in order],
        held_out=missing_parts(splits),
        paths=[paths[row] for row in order],
        groups=None if groups is None else [groups[row] for row in order],
    )


def _columns(table: Path, label_column: str) -> dict[str, list[str]]:
    """Return the columns with their cells, that of the label as "label"; optional ones only where they are filled."""
    lines: list[int] = []
    rows: list[Row] = []
    for line, row in _rows(table, label_column):
        lines.append(line)
        rows.append(row)
    if not rows:
        raise ValueError(f"--data-root {table} has no rows; list one image per line")
    columns = {}
    for name in (PATH_COLUMN, label_column, *OPTIONAL):
        cells = [row.get(name, "") for row in rows]
        if name in OPTIONAL and not any(cells):
            continue
        for line, cell in zip(lines, cells, strict=True):
            if not cell:
                raise ValueError(f"--data-root {table} line {line}: column {name!r} is empty; fill it in")
            if name == "split" and cell not in SPLITS:
                raise ValueError(f"--data-root {table} line {line}: unknown split {cell!r}; use {', '.join(SPLITS)}")
        columns[LABEL_COLUMN if name == label_column else name] = cells
    return columns


def _rows(table: Path, label_column: str) -> Iterator[tuple[int, Row]]:
    """Yield line number and stripped cells of every row."""
    if table.exists() and not table.is_file():
        raise ValueError(f"--data-root {table} is no regular file; pass the CSV file itself")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            for name in (PATH_COLUMN, label_column):
                if name not in header:
                    raise ValueError(
                        f"--data-root {table}: no column {name!r} among {', '.join(header) or 'none'}; "
                        "the first line must name the comma-separated columns path and label (or --label-column)"
                    )
            reader.fieldnames = header
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"--data-root {table} line {reader.line_num}: not {len(header)} cells as in the first line; "
                        "quote cells that contain a comma"
                    )
                yield reader.line_num, {name: cell.strip() for name, cell in row.items()}
    except OSError as error:
        raise ValueError(f"--data-root {table}: {error.strerror}; pass the CSV file itself") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--data-root {table} is no UTF-8 CSV file ({error}); save it as one") from error


def _sorted_labels(labels: set[str]) -> list[str]:
    """Sort by value when every label is a number, else as text: "2" before "10", "B" before "a"."""
    try:
        values = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if not all(map(math.isfinite, values.values())):
        return sorted(labels)
    return sorted(labels, key=lambda label: (values[label], label))
