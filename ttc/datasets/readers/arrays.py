"""Images of one's own in an .npz file: arrays images and label, optionally split, group (patient, site) and id."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttc.datasets.checks.doubts import identifies, unnamed_groups
from ttc.datasets.classes import group_labels, sorted_labels
from ttc.datasets.splits import SPLIT_OF, missing_parts
from ttc.datasets.table import SPLITS, DatasetSettings, Source
from ttc.run.npz import array_names, read_arrays, spelled

SHAPES = "uint8 [N, S, S] or [N, S, S, 3]"


def read(settings: DatasetSettings) -> Source:
    """Read the file that `data_root` names; missing splits are drawn, by group where there is a group array.

    Each array may be called by the singular or the plural: image or images, label or labels, and so on; --label-column
    and the like name others.
    """
    if settings.data_root is None:
        raise ValueError("--dataset arrays needs --data-root, the .npz file with the arrays images and label")
    path = Path(settings.data_root)
    try:
        stored = array_names(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    names = {kind: _name_of(settings, kind, stored, path) for kind in ("label", "split", "group", "id")}
    images = spelled(stored, "image") or "images"
    wanted = [images, *(name for name in names.values() if name is not None)]
    try:
        arrays = dict(zip(wanted, read_arrays(path, wanted), strict=True))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    pixels = _pixels(arrays[images], path)
    cells = {kind: _texts(arrays[name], name, len(pixels), path) for kind, name in names.items() if name is not None}
    if "label" not in cells:
        among = ", ".join(sorted(stored))
        raise ValueError(f"--data-root {path}: no array 'label' among {among}; add it, or name it with --label-column")
    splits = [SPLIT_OF.get(cell.casefold(), "") for cell in cells.get("split", ["train"] * len(pixels))]
    if "" in splits:
        unknown = cells["split"][splits.index("")]
        raise ValueError(f"--data-root {path}: unknown split {unknown!r}; use {', '.join(SPLITS)}")
    labels = sorted_labels(set(cells["label"]))
    return Source(
        ids=cells.get("id") or [f"arrays/{row:06d}" for row in range(len(pixels))],
        labels=cells["label"],
        classes=group_labels({label: label for label in labels}, settings.classes, settings.positive_classes),
        splits=splits,
        held_out=missing_parts(splits, settings.fold),
        pixels=pixels,
        groups=cells.get("group"),
        doubts=[] if "group" in cells else _unnamed(path, stored - set(wanted), len(pixels)),
    )


def _unnamed(path: Path, others: set[str], count: int) -> list[str]:
    """Say which of the arrays that are not used tells whose the images are."""
    columns = {}
    for name in filter(identifies, sorted(others)):
        with contextlib.suppress(OSError, ValueError):  # not used, so it may be anything
            values = read_arrays(path, [name])[0]
            columns[name] = [str(value) for value in values.reshape(-1).tolist()] if values.size == count else []
    return unnamed_groups(columns, "array")


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ValueError(f"--data-root {path} cannot be read ({reason}); pass an .npz file of plain arrays")


def _name_of(settings: DatasetSettings, kind: str, stored: set[str], path: Path) -> str | None:
    """Return the name of an array: the one that a flag gives, or the singular or plural of what it holds."""
    given: str | None = getattr(settings, f"{kind}_column")
    if given == "":  # splits that are another study's
        return None
    if given is not None and given not in stored:
        among = ", ".join(sorted(stored))
        raise ValueError(
            f"--data-root {path}: it has no array {given!r} among {among}; correct --{kind}-column {given}"
        )
    return given or spelled(stored, kind)


def _pixels(pixels: NDArray[np.generic], path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    square = pixels.ndim in (3, 4) and pixels.shape[1] == pixels.shape[2]
    if not square or pixels.dtype != np.uint8 or not len(pixels) or pixels.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"--data-root {path}: the array images is {pixels.dtype} {list(pixels.shape)}; save it as {SHAPES}"
        )
    return pixels.astype(np.uint8, copy=False)


def _texts(values: NDArray[np.generic], name: str, count: int, path: Path) -> list[str]:
    """Return the cells of an array as text; 1.0 is "1"."""
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise ValueError(
            f"--data-root {path}: the array {name} has the shape {list(values.shape)} for {count} images; "
            "give one value per image"
        )
    if values.dtype.kind in "fb" and np.array_equal(values, values.astype(np.int64)):
        values = values.astype(np.int64)
    cells = [
        (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values.tolist()
    ]
    if "" in cells:
        raise ValueError(f"--data-root {path}: the array {name} is empty at image {cells.index('')}; fill it in")
    return cells
