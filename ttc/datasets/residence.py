"""Where data live: images on the training device, data sets in the process whose forks are the scripts of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from ttc.datasets.images import TensorImages
from ttc.datasets.pixels.preprocessing import Preprocessing
from ttc.datasets.table import Dataset, DatasetSettings

log = logging.getLogger("ttc")
Images = TypeVar("Images")

LARGEST_SHARE = 0.5
"""Of the device's free memory; the rest is left to the network, whose needs are not known yet."""


def resident(images: Images, device: torch.device, free_bytes: int | None = None) -> Images | TensorImages:
    """Move uint8 images to the training device if they take at most half of the memory that is free there.

    Args:
        images: of a data set; what is not in memory stays where it is.
        device: where training takes place; the CPU changes nothing.
        free_bytes: free memory of the device; None asks CUDA.

    Returns:
        The images to use; indices may be on the CPU as before.
    """
    if device.type == "cpu" or not isinstance(images, TensorImages):
        return images
    size = images.data.numel()
    free = torch.cuda.mem_get_info(device)[0] if free_bytes is None else free_bytes
    if size > LARGEST_SHARE * free:
        log.info("images stay in main memory: %d MiB, more than half of what is free on %s", size >> 20, device)
        return images
    return TensorImages(images.data.to(device))


MOST_FILES = 1000
"""A folder with more is not watched, and what is read from it not kept."""


@dataclass(frozen=True)
class _Kept:
    """A data set, what was told while it was prepared, and its files then."""

    dataset: Dataset
    told: list[logging.LogRecord]
    files: list[tuple[str, int, int]]


_KEPT: dict[DatasetSettings, _Kept] = {}


def keep(settings: DatasetSettings, load: Callable[[DatasetSettings], Dataset]) -> None:
    """Prepare a data set for the forks of this process, to which `kept` gives it.

    Args:
        settings: of a source whose images lie in memory; others are read, but not kept.
        load: prepares it.

    Raises:
        ValueError: see `load_dataset`.
    """
    settings, files = replace(settings, num_workers=0), _files(settings)
    if settings in _KEPT or files is None:
        return
    told: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = told.append  # type: ignore[method-assign, assignment]  # instead of a class
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        dataset = load(settings)
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
    images = dataset.images
    if isinstance(images, TensorImages):
        same = (each.dataset.images for each in _KEPT.values())
        twins = (other for other in same if isinstance(other, TensorImages) and torch.equal(other.data, images.data))
        _KEPT[settings] = _Kept(replace(dataset, images=next(twins, images)), told, files)


def kept(settings: DatasetSettings, stored: Preprocessing | None) -> Dataset | None:
    """Return a data set that was prepared before, and tell what was told then; None where there is none such.

    Args:
        settings: all that decides it.
        stored: how a checkpoint's run made its pixels, or None.
    """
    found = _KEPT.get(replace(settings, num_workers=0)) if _KEPT else None
    if found is None or stored not in (None, found.dataset.preprocessing) or found.files != _files(settings):
        return None
    for record in found.told:
        assert isinstance(record.args, tuple)
        logging.getLogger(record.name).log(record.levelno, record.msg, *record.args)
    return replace(found.dataset, settings=settings)


def kept_bytes() -> int:
    """Return how much memory the images take that are kept."""
    pixels = [each.dataset.images.data for each in _KEPT.values() if isinstance(each.dataset.images, TensorImages)]
    return sum({data.data_ptr(): data.numel() for data in pixels}.values())


def _files(settings: DatasetSettings) -> list[tuple[str, int, int]] | None:
    """Return path, size and time of the files of a source; None where they are too many, or nobody says where."""
    if settings.data_root is None:
        return [] if settings.name == "digits" else None
    root = Path(settings.data_root)
    paths = list(islice(root.rglob("*"), MOST_FILES + 1)) if root.is_dir() else [root]
    if len(paths) > MOST_FILES or not root.exists():
        return None
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists())
