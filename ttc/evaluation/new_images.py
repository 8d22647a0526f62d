"""Images that were not part of a run: a folder, a table or an npz file, framed as the run framed its own.

Legend: N images, H x W pixels, C channels, F encoder features.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttc.datasets import batches
from ttc.datasets.images import FileImages, TensorImages, relative_id, stored_size, tensor_images
from ttc.datasets.readers.imagefolder import EXTENSIONS
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.run import files
from ttc.run.npz import array_names, read_arrays

_BATCH = 512


def read_images(source: str, description: Description) -> tuple[list[str], TensorImages | FileImages]:
    """List images in the form that a run's network takes.

    Args:
        source: a folder (searched to any depth), a CSV table with a column `path` and perhaps `id`, or an npz file
            with the array `images`, uint8 [N, H, W] or [N, H, W, C], and perhaps `ids` [N].
        description: of the run.

    Returns:
        One id per image, and the images.

    Raises:
        ValueError: nothing to read there, or images that the network cannot take.
    """
    path, channels = Path(source), int(description.encoder["channels"])
    size = _size(description)
    if path.suffix == ".npz":
        return _arrays(path, size, channels)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in EXTENSIONS and each.is_file())
        ids, names = [relative_id(each, path) for each in files], [str(each) for each in files]
    else:
        ids, names = _table(path)
    if not names:
        raise ValueError(f"--images {path} has no images ({', '.join(sorted(EXTENSIONS))}); pass a folder that has")
    return ids, FileImages(names, size, channels)


def _size(description: Description) -> int:
    """Return the side of the stored square: with a margin where the run decoded files, whose centre it then cut out."""
    name, size = str(description.data["name"]), int(description.encoder["image_size"])
    return size if name in ("digits", "fashion") or name.endswith("mnist") else stored_size(size)


def _table(path: Path) -> tuple[list[str], list[str]]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"--images {path} cannot be read ({error}); pass a folder, a CSV file or an npz file"
        ) from None
    if rows and "path" not in rows[0]:
        raise ValueError(f"--images {path} has no column 'path'; the first line must name it")
    if empty := [number for number, row in enumerate(rows, 1) if not row["path"] or None in row]:
        raise ValueError(f"--images {path}, row {empty[0]}: no path, or more cells than columns; correct the row")
    names = [str(path.parent / row["path"]) for row in rows]
    return [row.get("id") or row["path"] for row in rows], names


def _arrays(path: Path, size: int, channels: int) -> tuple[list[str], TensorImages]:
    try:
        (pixels,) = read_arrays(path, ["images"])
        ids = [str(row) for row in range(len(pixels))] if pixels.ndim else []
        if "ids" in array_names(path):
            ids = read_arrays(path, ["ids"])[0].astype(str).tolist()
    except ValueError as error:
        raise ValueError(f"--images {path} cannot be read ({error}); give an .npz of plain arrays") from None
    colours = pixels.shape[3] if pixels.ndim == 4 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(
            f"--images {path}: images are {pixels.dtype} {list(pixels.shape)}; "
            "give squares, uint8 [N, S, S] or [N, S, S, C]"
        )
    if colours != channels and colours != 1:
        raise ValueError(f"--images {path}: {colours} channels, but the network takes {channels}; convert them first")
    if len(ids) != len(pixels) or not ids:
        raise ValueError(f"--images {path}: {len(ids)} ids and {len(pixels)} images; give one id per image")
    images = tensor_images(pixels.astype(np.uint8, copy=False), size)
    return ids, TensorImages(images.data.expand(-1, channels, -1, -1))


def encode(
    network: PretrainNetwork, description: Description, images: TensorImages | FileImages, num_workers: int
) -> tuple[Tensor, Tensor]:
    """Embed plain views of images.

    Args:
        network: in eval mode.
        description: of the run that it comes from.
        images: as `read_images` gives them.
        num_workers: processes that decode image files.

    Returns:
        features [N, F] and z [N, D], float32, on the CPU.
    """
    views, device = description.view_generator(), next(network.parameters()).device
    pieces = torch.split(torch.arange(len(images)), _BATCH)
    found = []
    with torch.no_grad():
        for batch in batches(images, pieces, num_workers):
            inputs = views.plain(batch.to(device)).contiguous(memory_format=torch.channels_last)
            found.append([each.float().cpu() for each in network(inputs)])
    features, z = (torch.cat(each) for each in zip(*found, strict=True))
    return features, z
