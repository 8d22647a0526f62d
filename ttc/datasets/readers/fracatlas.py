"""FracAtlas: 717 X-rays with a fracture and 3,366 without, from the unpacked archive."""

from __future__ import annotations

import logging
from pathlib import Path

from ttc.datasets.checks.listing import is_hidden
from ttc.datasets.classes import group_labels
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.csv_file import read_table
from ttc.run.escape import counted

log = logging.getLogger("ttc")

LABELS = {"0": "not fractured", "1": "fractured"}
FOLDERS = {"0": "Non_fractured", "1": "Fractured"}
DEFAULT_CLASSES = ("0", "1")
HELD_OUT = {"test": 0.2, "val": 0.1}
ID_COLUMN, LABEL_COLUMN = "image_id", "fractured"


def read(settings: DatasetSettings) -> Source:
    """Read `dataset.csv`, which lists the images, and find them in `images/{Fractured,Non_fractured}`.

    No split for classification is published: 20 % test and 10 % validation are drawn, stratified.
    """
    if settings.data_root is None:
        raise ValueError("--dataset fracatlas needs --data-root, the folder FracAtlas of the unpacked archive")
    root = Path(settings.data_root)
    root = root / "FracAtlas" if (root / "FracAtlas").is_dir() else root
    table = root / "dataset.csv"
    rows = sorted(_rows(table))
    listed = {name for name, _ in rows}
    if len(listed) < len(rows):
        raise ValueError(f"--data-root: {table} names an image twice; unpack the archive again")
    for folder in FOLDERS.values():
        if not (root / "images" / folder).is_dir():
            raise ValueError(f"--data-root {root} has no folder images/{folder}; unpack the archive again")
        files = (root / "images" / folder).iterdir()
        strangers = sum(file.name not in listed and not is_hidden(file.name) for file in files)
        if strangers:
            log.warning(
                "%s: %s not in dataset.csv and left out",
                root / "images" / folder,
                counted(strangers, "file is", "files are"),
            )
    return Source(
        ids=[f"fracatlas/{name}" for name, _ in rows],
        labels=[label for _, label in rows],
        classes=group_labels(LABELS, settings.classes, settings.positive_classes, DEFAULT_CLASSES),
        splits=["train"] * len(rows),
        held_out=HELD_OUT,
        paths=[str(root / "images" / FOLDERS[label] / name) for name, label in rows],
        channels=1,
    )


def _rows(table: Path) -> list[tuple[str, str]]:
    """Return image name and label of every line."""
    instead = "pass the folder FracAtlas of the unpacked archive"
    cells = read_table(table, "--data-root:", (ID_COLUMN, LABEL_COLUMN), "restore the file", instead)
    rows = list(zip(cells.columns[ID_COLUMN], cells.columns[LABEL_COLUMN], cells.lines, strict=True))
    for name, label, line in rows:
        if label not in LABELS or not name or "/" in name:
            raise ValueError(f"--data-root: {table} line {line}: {name!r} with fractured {label!r}; expected 0 or 1")
    return [(name, label) for name, label, _ in rows]
