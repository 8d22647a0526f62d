"""Decide how the pixels of a data set are made, and take the digest by which it is known again."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttc.datasets.images import CachedImages, Images, TensorImages, in_threads
from ttc.datasets.imbalance import hash_order
from ttc.datasets.pixels.files import content_digest, count_channels, read_regular
from ttc.datasets.pixels.intensity import EIGHT_BIT, FILES
from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing, stored_size
from ttc.datasets.pixels.survey import GRAY_SHARE, choose_decoding, headers_of, mean_area_cut_off, share_without_colour
from ttc.datasets.table import Dataset, DatasetSettings, Source

log = logging.getLogger("ttc")

FILE_IMAGE_SIZE = 224
CHANNEL_PROBE_FILES = 256
COLOUR_PROBE_IMAGES = 64
STATISTICS_FILES = 4096
DIGEST_SAMPLES = 64
"""Images of each class whose content is part of the digest."""


def prepare_memory(settings: DatasetSettings, images: TensorImages) -> Preprocessing:
    """Return how images in memory, resized already, become inputs; and how files are decoded that join them later.

    Raises:
        ValueError: a flag is for image files.
    """
    given = (
        ("--stored-size", settings.stored_size is not None),
        ("--framing", settings.framing != "crop"),
        ("--intensity", settings.intensity != "auto"),
        ("--dicom-window", settings.dicom_window is not None),
    )
    for flag, used in given:
        if used:
            raise ValueError(f"{flag} is for image files; --dataset {settings.name} has none, leave it out")
    size, channels = images.data.shape[-1], images.data.shape[1]
    depths = (EIGHT_BIT,) if settings.edition > 1 else None
    decoding = Decoding(size, channels, depths=depths, edition=settings.edition)
    return Preprocessing("memory", decoding, size, 1.0)


def prepare_files(
    settings: DatasetSettings, ids: Sequence[str], paths: Sequence[str], splits: Sequence[str], channels: int | None
) -> Preprocessing:
    """Decide how image files become inputs.

    Args:
        settings: of the data set.
        ids: id per file.
        paths: the files.
        splits: split per file; the training side decides the range of the values.
        channels: 1 or 3 where the source fixes it.

    Raises:
        ValueError: `--stored-size` is below the image size.
    """
    image_size = settings.image_size or FILE_IMAGE_SIZE
    usual = stored_size(image_size)
    size = settings.stored_size or usual
    if size < image_size:
        raise ValueError(f"--stored-size {size} is below the image size {image_size}; leave it out or raise it")
    probe = hash_order(ids, 0, "channels")[:CHANNEL_PROBE_FILES]
    channels = channels or count_channels([paths[position] for position in probe])
    if settings.edition == 1:
        return Preprocessing("files", Decoding(size, channels, edition=1), image_size, image_size / size)
    training = [row for row, split in enumerate(splits) if split in ("train", "pool")]
    order = hash_order([ids[row] for row in training], 0, "intensity")[:FILES]
    decoding = choose_decoding(
        [paths[training[position]] for position in order],
        size=size,
        channels=channels,
        framing=settings.framing,
        intensity=settings.intensity,
        dicom_window=settings.dicom_window,
    )
    if decoding.depths is not None and len(decoding.depths) > 1:
        log.warning(
            "the training images have different depths, %s; where these follow the class, a network learns the depth "
            "(scripts/check_dataset.py counts them by class)",
            " and ".join(decoding.depths),
        )
    # The centre that evaluation shows is the same whatever the square's size; with all of the image there is no margin.
    shown = image_size / usual if settings.framing == "crop" else 1.0
    return Preprocessing("files", decoding, image_size, shown)


def side_of(source: Source) -> int:
    """Return the side in px of a source's images: the median of the shorter one over a sample of the files."""
    if source.pixels is not None:
        return int(source.pixels.shape[1])
    assert source.paths is not None
    sample = [source.paths[row] for row in hash_order(source.ids, 0, "size")[:CHANNEL_PROBE_FILES]]
    sides = [min(header.width, header.height) for header in headers_of(sample) if header is not None]
    return int(np.median(sides)) if sides else FILE_IMAGE_SIZE


def shows_no_colour(dataset: Dataset) -> bool:
    """Tell whether pictures with three channels are gray, by a sample that is the same for all seeds and folds."""
    chosen = hash_order(dataset.ids, 0, "colour")[:COLOUR_PROBE_IMAGES]
    return share_without_colour(dataset.images[torch.tensor(chosen)]) >= GRAY_SHARE


def area_cut_off(preprocessing: Preprocessing, paths: Sequence[str] | None, ids: Sequence[str]) -> float:
    """Return the share of an image's area that framing leaves out, on average over a sample of the files."""
    if paths is None or preprocessing.decoding.framing != "crop":
        return 0.0
    sample = [paths[row] for row in hash_order(ids, 0, "framing")[:FILES]]
    return mean_area_cut_off(headers_of(sample), preprocessing.decoding.framing)


def statistics_rows(images: Images, ids: Sequence[str], train: Sequence[int], seed: int) -> torch.Tensor:
    """Return the rows behind the statistics: all of split "train" in memory, at most 4,096 files."""
    if not isinstance(images, TensorImages) and len(train) > STATISTICS_FILES:
        order = hash_order([ids[row] for row in train], seed, "statistics")[:STATISTICS_FILES]
        train = sorted(train[position] for position in order)
    return torch.tensor(train, dtype=torch.int64)


def content_digest_of(
    ids: Sequence[str],
    labels: Sequence[int],
    images: Images,
    paths: Sequence[str] | None,
    pixels: NDArray[Any] | None,
    rows: Sequence[int],
) -> str:
    """Return the sha256 (hex) of the content of up to 64 images of each class: of their files, or of their pixels.

    Of files, not of what is decoded from them: another version of a decoder must not make other data.

    Args:
        ids: id per sample.
        labels: class per sample.
        images: of the samples; a cache knows the digests of its files.
        paths: file per sample, or None.
        pixels: of the source, where it holds them in memory.
        rows: of the samples in `pixels`.

    Raises:
        ValueError: a file is missing.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        members[label].append(row)
    chosen: list[int] = []
    for label in sorted(members):
        order = hash_order([ids[row] for row in members[label]], 0, "content")[:DIGEST_SAMPLES]
        chosen += [members[label][position] for position in order]
    if isinstance(images, CachedImages):
        contents = [images.contents[row] for row in chosen]
    elif paths is not None:
        contents = list(in_threads(_content_of, [paths[row] for row in chosen], "compared"))
    else:
        assert pixels is not None
        contents = [hashlib.blake2b(np.ascontiguousarray(pixels[rows[row]]).tobytes()).hexdigest() for row in chosen]
    digest = hashlib.sha256()
    for row, content in zip(chosen, contents, strict=True):
        digest.update(f"{ids[row]}\0{content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _content_of(path: str) -> str:
    try:
        return content_digest(read_regular(path), path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"cannot read image {path}: {reason}; restore it, or pretrain with --on-bad-image skip"
        ) from None
