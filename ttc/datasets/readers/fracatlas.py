"""FracAtlas: 717 X-rays with a fracture and 3,366 without, from the unpacked archive."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from ttc.datasets.classes import group_labels
from ttc.datasets.table import DatasetSettings, Source

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
        strangers = sum(file.name not in listed for file in (root / "images" / folder).iterdir())
        if strangers:
            log.warning("%s: %d files are not in dataset.csv and are left out", root / "images" / folder, strangers)
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
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for column in (ID_COLUMN, LABEL_COLUMN):
                if column not in (reader.fieldnames or []):
                    found = ", ".join(reader.fieldnames or []) or "none"
                    raise ValueError(f"--data-root: {table} has no column {column!r} among {found}; restore the file")
            rows = [(row[ID_COLUMN] or "", row[LABEL_COLUMN] or "", reader.line_num) for row in reader]
    except OSError as error:
        raise ValueError(
            f"--data-root: {table} cannot be read ({error.strerror}); pass the folder FracAtlas of the unpacked archive"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--data-root: {table} is no UTF-8 CSV file ({error}); restore the file") from None
    for name, label, line in rows:
        if label not in LABELS or not name or "/" in name:
            raise ValueError(f"--data-root: {table} line {line}: {name!r} with fractured {label!r}; expected 0 or 1")
    return [(name, label) for name, label, _ in rows]
