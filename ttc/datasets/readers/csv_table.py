"""A CSV table of image files: columns path and label, optionally split, group (patient, site) and id."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ttc.datasets.checks.doubts import unnamed_groups
from ttc.datasets.checks.listing import refuse_all_missing
from ttc.datasets.classes import group_labels, sorted_labels
from ttc.datasets.splits import SPLIT_OF, missing_parts
from ttc.datasets.table import SPLITS, DatasetSettings, Source
from ttc.run.csv_file import Table, read_table
from ttc.run.escape import counted

COLUMNS = ("path", "label", "split", "group", "id")
"""What is read, and the default names of the columns; --path-column and the like name others."""
NEEDED = ("path", "label")


def read(settings: DatasetSettings) -> Source:
    """Read the table that `data_root` names; relative paths start at its folder.

    Missing splits are drawn by group where there is a group column. Rows of split "pool" belong to the training
    side and are only used when `class_ratios` or `train_samples` draws anew. An optional column whose cells are
    all empty counts as absent, so that a run's own split.csv can be read back. Rows are sorted by id.
    """
    if settings.data_root is None:
        raise ValueError("--dataset csv needs --data-root, the CSV file with the columns path and label")
    path = Path(settings.data_root)
    table, columns = _columns(path, settings)
    paths = [str(path.parent / name) for name in columns["path"]]
    refuse_all_missing(paths, table.place)
    ids = columns.get("id") or (columns["path"] if settings.split_rule == 1 else ids_of(columns["path"]))
    if settings.group_copies != "drop":  # which leaves one of them, as far as their pixels are equal
        _refuse_repeated(table, ids, columns)
    splits = _splits(table, columns["split"]) if "split" in columns else ["train"] * len(ids)
    labels = sorted_labels(set(columns["label"]))
    classes = group_labels({label: label for label in labels}, settings.classes, settings.positive_classes)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    groups = columns.get("group")
    return Source(
        ids=[ids[row] for row in order],
        labels=[columns["label"][row] for row in order],
        classes=classes,
        splits=[splits[row] for row in order],
        held_out=missing_parts(splits, settings.fold),
        paths=[paths[row] for row in order],
        groups=None if groups is None else [groups[row] for row in order],
        doubts=[] if groups is not None else _unnamed(table, settings),
    )


def _unnamed(table: Table, settings: DatasetSettings) -> list[str]:
    used = {getattr(settings, f"{kind}_column") or kind for kind in COLUMNS}
    return unnamed_groups({name: cells for name, cells in table.columns.items() if name not in used}, "column")


def ids_of(paths: Sequence[str]) -> list[str]:
    """Return the paths of a table as ids: absolute ones from the deepest folder that all files share.

    So they stay what they are when all images move to another place.
    """
    if not any(os.path.isabs(path) for path in paths):  # noqa: PTH117  # a Path per file takes longer
        return list(paths)
    places = [os.path.abspath(path) for path in paths]  # noqa: PTH100  # unlike Path, it takes out ".."
    shared = os.path.commonpath({os.path.dirname(place) for place in places})  # noqa: PTH120
    return [place[len(shared) :].lstrip("/") for place in places]


def _columns(path: Path, settings: DatasetSettings) -> tuple[Table, dict[str, list[str]]]:
    """Return the table, and the cells by what they are; optional columns only where they are named or filled."""
    flags = {kind: f"{kind}_column" for kind in COLUMNS}
    chosen: dict[str, str | None] = {kind: getattr(settings, flag) for kind, flag in flags.items()}
    names = {kind: name or kind for kind, name in chosen.items()}
    needed = [names[kind] for kind in COLUMNS if kind in NEEDED or chosen[kind]]
    table = read_table(
        path,
        "--data-root",
        needed,
        "the first line must name the comma-separated columns path and label (or --path-column, --label-column, ...)",
        flag_of={name: f"--{kind}-column" for kind, name in chosen.items() if name},
    )
    twice = {name for name in needed if needed.count(name) > 1}
    if twice:
        raise ValueError(f"{table.place}: two flags name the column {min(twice)!r}; name one column each")
    if not table.lines:
        raise ValueError(f"{table.place} has no rows; list one image per line")
    columns = {}
    for kind, name in names.items():
        if chosen[kind] == "":  # its splits are another study's
            continue
        if kind in NEEDED or chosen[kind] or any(table.columns.get(name, ())):
            columns[kind] = table.filled(name)
    return table, columns


def _refuse_repeated(table: Table, ids: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError when two rows have one id; the remedy depends on whether they are one image."""
    row_of: dict[str, int] = {}
    for row, sample_id in enumerate(ids):
        first = row_of.setdefault(sample_id, row)
        if first == row:
            continue
        paths, labels = ([columns[kind][each] for each in (first, row)] for kind in NEEDED)
        remedy = "remove one of these lines, or train with --group-copies drop"
        if paths[0] != paths[1]:
            remedy = "give each image an id of its own"
        elif labels[0] != labels[1]:
            remedy = f"its labels are {labels[0]!r} and {labels[1]!r}: correct one and remove the other"
        lines, more = f"{table.lines[first]} and {table.lines[row]}", len(ids) - len(set(ids)) - 1
        others = f" ({counted(more, 'more such line')})" if more else ""
        raise ValueError(f"{table.place} lines {lines}: id {sample_id!r} occurs twice{others}; {remedy}")


def _splits(table: Table, cells: Sequence[str]) -> list[str]:
    """Return the split of every row; "Train", "validation" and the like are understood."""
    splits = []
    for row, cell in enumerate(cells):
        split = SPLIT_OF.get(cell.casefold())
        if split is None:
            raise ValueError(f"{table.where(row)}: unknown split {cell!r}; use {', '.join(SPLITS)}")
        splits.append(split)
    return splits
