"""The 2-D MedMNIST sets, read from the `medmnist` package's own .npz files.

The files know no patients. Where another source does, `NAME_groups.csv` beside them (columns split, row, group) tells
which images belong together.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ttc.datasets.classes import ClassGroups, find_label, group_labels
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.csv_file import read_table
from ttc.run.escape import counted
from ttc.run.npz import read_arrays

log = logging.getLogger("ttc")

STORED_SIZES = (28, 64, 128, 224)
NATIVE_SIZE = 28
PARTS = ("train", "val", "test")


def read(settings: DatasetSettings) -> Source:
    """Read a set after checking its md5; the official splits are kept.

    `image_size` selects the stored size where it is one of 28, 64, 128 and 224, else the 28-pixel file is resized.
    """
    from medmnist.info import INFO

    info = INFO[settings.name]
    size = settings.image_size if settings.image_size in STORED_SIZES else NATIVE_SIZE
    suffix = "" if size == NATIVE_SIZE else f"_{size}"
    root = Path(settings.data_root or os.path.expanduser("~/.medmnist"))  # noqa: PTH111  # as it is without a home
    path = root / f"{settings.name}{suffix}.npz"
    if not path.is_file():
        raise ValueError(
            f"--dataset {settings.name}: {path} does not exist; pass its folder as --data-root, or fetch it with: "
            f"mkdir -p '{root}' && python -c \"import medmnist; "
            f"medmnist.{info['python_class']}('train', download=True, root='{root}', size={size})\""
        )
    verify_md5(path, _expected_md5(path, info[f"MD5{suffix}"]))
    source = read_npz(path, settings, info["label"])
    table = root / f"{settings.name}_groups.csv"
    return replace(source, groups=read_groups(table, source)) if table.is_file() else source


def _expected_md5(path: Path, published: str) -> str:
    """Return the published md5, or for a file of the user's own the one in a file NAME.npz.md5 beside it."""
    md5_file = path.with_name(f"{path.name}.md5")
    if not md5_file.is_file():
        return published
    words = md5_file.read_text(errors="replace").split()
    if words[:1] != [published]:
        log.warning("%s is not the published file, says %s beside it", path, md5_file.name)
    return words[0] if words else "nothing"


def verify_md5(path: Path, expected: str) -> None:
    """Raise ValueError when the file's md5 (hex) is not the published one."""
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{path} has md5 {digest.hexdigest()}, not the published {expected}; delete it and fetch it again"
        )


def read_groups(table: Path, source: Source) -> list[str]:
    """Read the group of every sample from a CSV table with the columns split, row (from 0 in its split) and group."""
    columns = ("split", "row", "group")
    cells = read_table(table, "--data-root:", columns, "it needs the columns split, row and group")
    name, group_of = source.ids[0].split("/", 1)[0], {}
    for number, (split, row, group) in enumerate(zip(*(cells.columns[column] for column in columns), strict=True)):
        place = f"{name}/{split}/{int(row):06d}" if row.isdecimal() else ""
        if not place or place in group_of:
            problem = f"row {row!r} is no whole number" if not place else f"row {row} of split {split!r} again"
            raise ValueError(f"{cells.where(number)}: {problem}; give each image one line")
        group_of[place] = group
    missing = [sample_id for sample_id in source.ids if not group_of.get(sample_id)]
    if missing:
        raise ValueError(
            f"{table} has no group for {counted(len(missing), 'image')}, the first is {missing[0]}; add them"
        )
    return [group_of[sample_id] for sample_id in source.ids]


def read_npz(path: Path, settings: DatasetSettings, names: Mapping[str, str]) -> Source:
    """Read a verified file.

    Args:
        path: The .npz file with `{train,val,test}_images` (uint8 [N, H, W] or [N, H, W, 3]) and
            `{train,val,test}_labels` (int [N, 1], or 0/1 [N, L] for a multi-label set).
        settings: Name and class choice.
        names: Name per label.

    Returns:
        All samples with their official splits.

    Raises:
        ValueError: If the file is damaged or the class choice does not fit.
    """
    try:
        images = read_arrays(path, [f"{part}_images" for part in PARTS])
        targets = read_arrays(path, [f"{part}_labels" for part in PARTS])
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and fetch it again") from error
    splits = [part for part, target in zip(PARTS, targets, strict=True) for _ in target]
    ids = [f"{settings.name}/{part}/{row:06d}" for part, t in zip(PARTS, targets, strict=True) for row in range(len(t))]
    target = np.concatenate(targets)
    if target.shape[1] > 1:
        labels, classes = _any_positive(target, settings, names)
    else:
        labels = [str(value) for value in target[:, 0]]
        classes = group_labels(names, settings.classes, settings.positive_classes)
    return Source(ids, labels, classes, splits, held_out={}, pixels=np.concatenate(images))


def _any_positive(
    target: np.ndarray[tuple[int, ...], np.dtype[np.int64]], settings: DatasetSettings, names: Mapping[str, str]
) -> tuple[list[str], ClassGroups]:
    """Form two classes of a multi-label set: positive when any of the named labels is set."""
    if settings.classes is not None or not settings.positive_classes:
        raise ValueError(
            f"--dataset {settings.name} has several labels per image, so --classes cannot split it; "
            "name the findings that make an image positive with --positive-classes"
        )
    flag = "--positive-classes " + ",".join(settings.positive_classes)
    positive = list(dict.fromkeys(find_label(label, names, flag) for label in settings.positive_classes))
    columns = [list(names).index(label) for label in positive]
    name = "/".join(names[label] for label in positive)
    labels = ["1" if row.any() else "0" for row in target[:, columns]]
    return labels, ClassGroups([f"not {name}", name], {"0": 0, "1": 1})
