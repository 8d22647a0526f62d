"""Images that were not part of a run, in a folder, a table or an npz file, preprocessed as the run's own.

Legend: N images, H x W pixels, C channels, F encoder features.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttc.datasets import batches
from ttc.datasets.checks.listing import list_images, refuse_all_missing, refuse_strange_names
from ttc.datasets.images import FileImages, TensorImages, relative_id, tensor_images
from ttc.datasets.pixels.files import EXTENSIONS, is_image
from ttc.datasets.pixels.preprocessing import EDITION, Decoding, Preprocessing
from ttc.datasets.pixels.survey import Intensity
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.run.csv_file import read_table
from ttc.run.npz import array_names, read_arrays, spelled

log = logging.getLogger("ttc")

_BATCH = 512
BRIGHTNESS_IMAGES = 256
"""New images whose mean is compared with that of training."""
BRIGHTNESS_FACTOR, BRIGHTNESS_DEVIATIONS, LEAST_DIFFERENCE = 5.0, 3.0, 0.01
"""From where a mean is told: this many times as dark or bright, or deviations of training pixels away; other scanners
and hospitals stay below a factor of 3. The last is a difference, in [0, 1], that is never told."""


def read_images(
    source: str,
    description: Description,
    path_column: str | None = None,
    id_column: str | None = None,
    intensity: Intensity | None = None,
) -> tuple[list[str], TensorImages | FileImages]:
    """List images in the form that a run's network takes.

    Args:
        source: a folder (searched to any depth), a CSV table with a column `path` and perhaps `id`, or an npz file
            with the array `images`, uint8 [N, H, W] or [N, H, W, C], and perhaps `ids` [N].
        description: of the run.
        path_column: column of the file in a table; None for "path".
        id_column: column of the id; None for "id", if there is one, else the path.
        intensity: "full" or the values of black and white, for files of more than 8 bits whose depth is not that of
            the run's images; None takes the run's range, and refuses other depths.

    Returns:
        One id per image, and the images.

    Raises:
        ValueError: there is nothing to read, or the network cannot take the images.
    """
    path, decoding = Path(source), description.preprocessing.decoding
    _refuse_others(path)
    if path.suffix == ".npz":
        return _arrays(path, decoding.size, decoding.channels)
    if path.is_dir():
        listing = list_images(path, "--images", deep=True)
        if listing.left_out:
            log.warning("left out, since no image format that is read: %s", listing.describe())
        ids, names = [relative_id(file, path) for file in listing.images], [str(file) for file in listing.images]
    else:
        ids, names = _table(path, path_column or "path", id_column)
    if not names:
        raise ValueError(f"--images {path} has no images ({', '.join(sorted(EXTENSIONS))}); pass a folder that has")
    refuse_strange_names([*ids, *names], "--images")
    return ids, FileImages(names, decoding if intensity is None else with_intensity(decoding, intensity))


def _refuse_others(path: Path) -> None:
    """Raise ValueError when a path is no folder, table or .npz file: a single image, a pattern, or nothing at all."""
    remedy = "give a folder of images, a CSV table with a column path, or an .npz file"
    if not path.exists():
        pattern = " (the shell found no file that matches)" if any(mark in str(path) for mark in "*?[") else ""
        raise ValueError(f"--images {path} does not exist{pattern}; {remedy}")
    if path.is_file() and is_image(path):
        raise ValueError(f"--images {path} is a single image; {remedy}")


def with_intensity(decoding: Decoding, intensity: Intensity) -> Decoding:
    """Return a run's decoding that takes files of any depth, by "full" or the values of black and white."""
    assert intensity != "auto", "which is for the training set"
    black, white = (None, None) if isinstance(intensity, str) else intensity
    return replace(decoding, black=black, white=white, largest=None, depths=None, edition=EDITION)


def _table(path: Path, path_column: str, id_column: str | None) -> tuple[list[str], list[str]]:
    needed = [path_column] if id_column is None else [path_column, id_column]
    flag_of = {path_column: "--path-column"} if path_column != "path" else {}
    flag_of |= {} if id_column is None else {id_column: "--id-column"}
    remedy = "the first line must name it (or --path-column, --id-column)"
    table = read_table(path, "--images", needed, remedy, flag_of=flag_of)
    cells = table.filled(path_column)
    names = [str(path.parent / name) for name in cells]
    refuse_all_missing(names, table.place)
    id_cells = table.columns.get(id_column or "id")
    return cells if id_cells is None else [cell or name for cell, name in zip(id_cells, cells, strict=True)], names


def _arrays(path: Path, size: int, channels: int) -> tuple[list[str], TensorImages]:
    try:
        stored = array_names(path)
        (pixels,) = read_arrays(path, [spelled(stored, "image") or "images"])
        ids = [str(row) for row in range(len(pixels))] if pixels.ndim else []
        if (named := spelled(stored, "id")) is not None:
            ids = read_arrays(path, [named])[0].astype(str).tolist()
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
    network: PretrainNetwork,
    description: Description,
    images: TensorImages | FileImages,
    num_workers: int,
) -> tuple[Tensor, Tensor]:
    """Embed images without augmentation; warn where they are far darker or brighter than those of training.

    Args:
        network: in eval mode.
        description: of the run that it comes from.
        images: as `read_images` gives them.
        num_workers: processes that decode image files.

    Returns:
        features [N, F] and z [N, D], float32, on the CPU.
    """
    views, device = description.view_generator(), next(network.parameters()).device
    indices = torch.split(torch.arange(len(images)), _BATCH)
    looked_at = torch.zeros(len(images), dtype=torch.bool)
    looked_at[torch.linspace(0, len(images) - 1, min(len(images), BRIGHTNESS_IMAGES)).long()] = True
    outputs, means = [], []
    with torch.no_grad():
        for rows, batch in zip(indices, batches(images, indices, num_workers), strict=True):
            means.append(batch[looked_at[rows]].flatten(1).float().mean(dim=1) / 255)
            inputs = views.plain(batch.to(device)).contiguous(memory_format=torch.channels_last)
            outputs.append([output.float().cpu() for output in network(inputs)])
    if line := other_brightness(float(torch.cat(means).mean()), description.preprocessing):
        what = "--intensity" if isinstance(images, FileImages) else "how they were scaled to bytes"
        log.warning("%s; check %s", line, what)
    features, z = (torch.cat(pieces) for pieces in zip(*outputs, strict=True))
    return features, z


def other_brightness(mean: float, training: Preprocessing) -> str | None:
    """Say that new images are far darker or brighter than those of training, as read with a wrong range.

    Args:
        mean: of the pixels of new images, in [0, 1].
        training: of the run; one that took mean and deviation from the weights it started from says nothing.
    """
    if not training.mean or all(map(_is_round, (*training.mean, *training.std))):
        return None
    before, deviation = (sum(values) / len(values) for values in (training.mean, training.std))
    dark, bright = sorted((mean, before)), sorted((1.0 - mean, 1.0 - before))
    far = (
        abs(mean - before) > BRIGHTNESS_DEVIATIONS * deviation
        or dark[1] > BRIGHTNESS_FACTOR * dark[0]
        or bright[1] > BRIGHTNESS_FACTOR * bright[0]
    )
    if not far or abs(mean - before) < LEAST_DIFFERENCE:
        return None
    return f"the new images have a mean of {mean:.3f} of full range, those of training {before:.3f}"


def _is_round(value: float) -> bool:
    """Tell numbers that people wrote, such as 0.485, and thirds of their sums, from those that were measured."""
    return any(abs(number - round(number, 8)) < 1e-12 for number in (value, 3 * value))
