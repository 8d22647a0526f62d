"""Names of the data sources, and the one path from a name to a finished table."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ttc import distributed
from ttc.datasets.cache import open_cache
from ttc.datasets.checks.copies import content_digests, join_copies
from ttc.datasets.checks.doubts import tell_doubts
from ttc.datasets.checks.leaks import (
    Samples,
    check_leaks,
    check_unique_ids,
    refuse_equal_pixels,
    warn_about_equal_pixels,
)
from ttc.datasets.checks.listing import refuse_strange_names
from ttc.datasets.checks.rare import check_classes, warn_of_few_groups
from ttc.datasets.checks.spelling import two_spellings
from ttc.datasets.images import FileImages, Images, TensorImages, find_bad_images, tensor_images
from ttc.datasets.imbalance import draw_subset, subset_counts
from ttc.datasets.loading import channel_statistics
from ttc.datasets.pixels.preprocessing import Preprocessing
from ttc.datasets.prepare import area_cut_off, content_digest_of, prepare_files, prepare_memory, statistics_rows
from ttc.datasets.residence import kept
from ttc.datasets.splits import describe_redrawn, draw_fold, hold_out
from ttc.datasets.table import Dataset, DatasetSettings, Source, count_classes, minority_of

log = logging.getLogger("ttc")

MEDMNIST_NAMES = (
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
)
# Module with a function `read(settings) -> Source`; imported on use, since some need heavy packages.
READERS: dict[str, str] = {
    "digits": "digits",
    "fashion": "fashion",
    **dict.fromkeys(MEDMNIST_NAMES, "medmnist_sets"),
    **dict.fromkeys(("inat21-plants", "inat21-insects", "inat21-mammals"), "inat21"),
    "fracatlas": "fracatlas",
    "ukbb-cardiac": "ukbb_cardiac",
    "imagefolder": "imagefolder",
    "csv": "csv_table",
    "arrays": "arrays",
}
DATASETS = tuple(READERS)
PUBLISHED = frozenset(("digits", "fashion", "ukbb-cardiac", *MEDMNIST_NAMES))
"""Held in memory and used as they are: copies in them are told, not refused, or results could not be compared."""


def load_dataset(
    settings: DatasetSettings, stored: Preprocessing | None = None, *, compare_pixels: bool = True
) -> Dataset:
    """Read a source, draw splits and the imbalanced subset, check for leaks, and compute statistics.

    Args:
        settings: What to load.
        stored: How a checkpoint's run made its pixels; None to decide it from the settings and the data.
        compare_pixels: False where an earlier step has looked for copies and told what is doubtful.

    Returns:
        The finished table.

    Raises:
        ValueError: If the name, a flag or the data is wrong; one line with the remedy.
    """
    if (dataset := kept(settings, stored)) is not None:
        return dataset
    return build_dataset(settings, read_source(settings), stored, compare_pixels=compare_pixels)


def read_source(settings: DatasetSettings) -> Source:
    """Read the samples of a source; arguments and errors as for `load_dataset`."""
    if settings.name.endswith("mnist3d"):
        raise ValueError(f"--dataset {settings.name} holds volumes; only the 2-D MedMNIST sets can be used")
    if settings.name not in READERS:
        raise ValueError(f"--dataset {settings.name} is unknown; choose one of {', '.join(DATASETS)}")
    read: Callable[[DatasetSettings], Source] = importlib.import_module(
        f"ttc.datasets.readers.{READERS[settings.name]}"
    ).read
    return read(settings)


def build_dataset(
    settings: DatasetSettings,
    source: Source,
    stored: Preprocessing | None = None,
    *,
    refuse_leaks: bool = True,
    compare_pixels: bool = True,
) -> Dataset:
    """Turn a reader's samples into the finished table.

    Args:
        settings: What was read.
        source: The samples.
        stored: As for `load_dataset`.
        refuse_leaks: False for a report, which lists leaks and doubtful spellings itself.
        compare_pixels: As `load_dataset`.

    Returns:
        The finished table.

    Raises:
        ValueError: As `load_dataset`.
    """
    if refuse_leaks and compare_pixels:  # else the report tells it, or an earlier step did
        tell_doubts(settings, source)
    source = _without_copies(settings, source, stored)
    splits = _splits(settings, source, refuse_leaks)
    rows = [row for row, label in enumerate(source.labels) if label in source.classes.label_of]
    images, preprocessing = _images(settings, source, rows, splits, stored)
    images, bad = _readable(settings, images, [source.ids[row] for row in rows])
    left_out, paths = {position for position, _ in bad}, source.paths or []
    bad_images = source.bad_images + [(paths[rows[position]], reason) for position, reason in bad]
    rows = [row for position, row in enumerate(rows) if position not in left_out]
    for path, reason in bad_images if distributed.rank() == 0 else []:
        log.warning("left out image %s: %s", path, reason)

    ids = [source.ids[row] for row in rows]
    labels = [source.classes.label_of[source.labels[row]] for row in rows]
    groups = None if source.groups is None else [source.groups[row] for row in rows]
    splits = [splits[row] for row in rows]
    # "pool" belongs to the training side: the draw below, not a leak, separates it from "train".
    sides = ["train" if split == "pool" else split for split in splits]
    names = source.classes.names
    check_classes(labels, sides, names, groups)
    kept_paths = None if source.paths is None else [source.paths[row] for row in rows]
    if refuse_leaks:
        samples = Samples(ids, sides, [names[label] for label in labels], groups, kept_paths)
        distributed.from_first_rank(lambda: _check_leaks(settings, samples, images, compare_pixels))
    splits = _draw(settings, names, ids, labels, splits)
    split_array, label_tensor = np.array(splits, dtype="<U5"), torch.tensor(labels, dtype=torch.int64)
    train = np.flatnonzero(split_array == "train").tolist()
    counts = count_classes(label_tensor[train], len(names))
    if not preprocessing.mean:
        preprocessing = _normalised(settings, preprocessing, images, statistics_rows(images, ids, train, settings.seed))
    dataset = Dataset(
        settings=settings,
        name=settings.name,
        class_names=source.classes.names,
        ids=ids,
        labels=label_tensor,
        splits=split_array,
        groups=groups,
        paths=kept_paths,
        images=images,
        preprocessing=preprocessing,
        content_digest=distributed.from_first_rank(
            lambda: content_digest_of(ids, labels, images, kept_paths, source.pixels, rows)
        ),
        area_cut_off=distributed.from_first_rank(lambda: area_cut_off(preprocessing, kept_paths, ids)),
        minority_class=minority_of(counts, source.classes.names, settings.minority_class),
        bad_images=bad_images,
    )
    if refuse_leaks:
        warn_of_few_groups(dataset)
    return dataset


def _without_copies(settings: DatasetSettings, source: Source, stored: Preprocessing | None) -> Source:
    """Join or leave out images of equal content, as training decodes them, before anything is drawn."""
    if settings.group_copies is None:
        return source
    rows = [row for row, label in enumerate(source.labels) if label in source.classes.label_of]
    images, _ = _images(settings, source, rows, ["train"] * len(source.ids), stored)
    return join_copies(source, content_digests(settings, source, images, rows), settings.group_copies)


def _splits(settings: DatasetSettings, source: Source, refuse_doubts: bool) -> list[str]:
    """Check names, ids, labels and groups, and draw the splits that the source does not define."""
    refuse_strange_names([*source.ids, *(source.paths or ())], "--data-root")
    check_unique_ids(source.ids)
    if refuse_doubts and settings.split_rule > 1 and (doubts := two_spellings(settings, source)):
        raise ValueError(f"--data-root: {doubts[0]}")
    if "train" not in source.splits:
        raise ValueError(
            f"--data-root {settings.data_root}: no row has split 'train'; add training rows or drop the column"
        )
    samples = source.ids, source.labels, source.groups
    # Drawn before classes are formed and files are verified, so that neither changes who is in the test set.
    splits = hold_out(*samples, source.splits, source.held_out, settings.seed, settings.split_rule)
    if settings.fold is None:
        return splits
    classes = source.classes
    class_of = {label: classes.names[number] for label, number in classes.label_of.items()}
    splits = draw_fold(*samples, settings.fold, splits.count("val"), settings.seed, class_of)
    if distributed.rank() == 0:
        log.info("fold %d of %d is the test set; %s", *settings.fold, describe_redrawn(source.splits))
    return splits


def _readable(settings: DatasetSettings, images: Images, ids: Sequence[str]) -> tuple[Images, list[tuple[int, str]]]:
    """Return the images from the cache if one is wanted, without unreadable ones, and those with their reasons."""
    if not isinstance(images, FileImages):
        return images, []
    if settings.cache == "off":
        if settings.on_bad_image == "stop":
            return images, []
        bad = [(row, reason) for row, reason in distributed.from_first_rank(lambda: find_bad_images(images))]
        broken = {row for row, _ in bad}
        paths = [path for row, path in enumerate(images.paths) if row not in broken]
        return replace(images, paths=paths), bad
    cached, bad = open_cache(images, ids, settings.cache, settings.cache_folder)
    if bad and settings.on_bad_image == "stop":
        distributed.from_first_rank(lambda: _refuse_bad(images.paths[bad[0][0]], bad[0][1], len(bad) - 1))
    broken = {row for row, _ in bad}
    rows = [row for row in range(len(images)) if row not in broken]
    contents = [cached.contents[row] for row in rows]
    return replace(cached, rows=torch.tensor(rows, dtype=torch.int64), contents=contents), bad


def _refuse_bad(path: str, reason: str, others: int) -> None:
    more = f" ({others} more are bad, too)" if others else ""
    raise ValueError(
        f"cannot read image {path}: {reason}{more}; repair or remove it, or pretrain with --on-bad-image skip"
    )


def _check_leaks(settings: DatasetSettings, samples: Samples, images: Images, compare_pixels: bool) -> None:
    """Refuse leaks between splits, and tell of equal pixels where the data have no files."""
    check_leaks(samples, images, decode=compare_pixels, rule=settings.split_rule)
    if isinstance(images, TensorImages):
        find = warn_about_equal_pixels if settings.name in PUBLISHED else refuse_equal_pixels
        find(images, samples)


def _images(
    settings: DatasetSettings,
    source: Source,
    rows: Sequence[int],
    splits: Sequence[str],
    stored: Preprocessing | None,
) -> tuple[Images, Preprocessing]:
    """Return the images of `rows`, and how they are made."""
    if source.pixels is not None:
        everything = len(rows) == len(source.pixels)  # spares a copy of gigabytes
        pixels = source.pixels if everything else source.pixels[np.array(rows, dtype=np.int64)]
        images = tensor_images(pixels, settings.image_size if stored is None else stored.decoding.size)
        return images, stored or prepare_memory(settings, images)
    assert source.paths is not None
    paths = [source.paths[row] for row in rows]
    ids, sides = [source.ids[row] for row in rows], [splits[row] for row in rows]
    if stored is None:
        values = distributed.from_first_rank(
            lambda: prepare_files(settings, ids, paths, sides, source.channels).as_dict()
        )
        stored = Preprocessing.from_dict(values)
    return FileImages(paths, stored.decoding), stored


def _draw(
    settings: DatasetSettings, names: Sequence[str], ids: Sequence[str], labels: Sequence[int], splits: Sequence[str]
) -> list[str]:
    """Mark the training samples that the subset leaves out as "pool"."""
    if settings.class_ratios is None and settings.train_samples is None:
        return list(splits)
    side = [row for row, split in enumerate(splits) if split in ("train", "pool")]
    side_labels = [labels[row] for row in side]
    sizes = [side_labels.count(label) for label in range(len(names))]
    counts = subset_counts(sizes, names, settings.class_ratios, settings.train_samples)
    if settings.train_samples is not None and sum(counts) + len(names) <= settings.train_samples:
        log.warning("--train-samples %d: the smallest class allows only %d", settings.train_samples, sum(counts))
    drawn = {side[position] for position in draw_subset([ids[row] for row in side], side_labels, counts, settings.seed)}
    result = list(splits)
    for row in side:
        result[row] = "train" if row in drawn else "pool"
    return result


def _normalised(
    settings: DatasetSettings, preprocessing: Preprocessing, images: Images, rows: torch.Tensor
) -> Preprocessing:
    """Return the preprocessing with the statistics of the training images."""
    channels = preprocessing.decoding.channels
    mean, std = distributed.from_first_rank(lambda: channel_statistics(images, rows, channels, settings.num_workers))
    return replace(preprocessing, mean=tuple(mean), std=tuple(std))
