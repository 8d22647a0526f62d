"""The data types: what the user asks for, what a reader hands over, and the table that the scripts use.

Shape legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttc.datasets.classes import ClassGroups
from ttc.datasets.images import Images
from ttc.datasets.pixels.preprocessing import EDITION, FRAMINGS, Preprocessing
from ttc.datasets.pixels.survey import Intensity
from ttc.datasets.splits import NEWEST_RULE
from ttc.run import checkpoint

log = logging.getLogger("ttc")

SPLITS = ("train", "val", "test", "pool")
SPLIT_COLUMNS = ("id", "path", "label", "split", "group")


@dataclass(frozen=True)
class DatasetSettings:
    """Everything that decides the data; plain values, so that a checkpoint can hold it and rebuild the data.

    Args:
        name: A name in `DATASETS`.
        data_root: Folder (or CSV file) of the source; None for sources that need none.
        classes: Source labels or names per class, in label order; empty for every label as a class.
        positive_classes: Source labels or names that form class 1; all others form class 0.
        class_ratios: Share of each class in the training subset.
        train_samples: Upper limit of the training subset's size.
        minority_class: Overrides the counted minority class.
        image_size: Side of the network's input in pixels; None for the source's own size (224 for files).
        on_bad_image: "stop", or "skip" to verify all files at the start and leave the broken ones out.
        label_column: Column of the label in a table; None for "label".
        stored_size: Side of the square that files are decoded to; None for 1.15 times the input's.
        cache: "off", "ram" or "disk": where decoded files are kept; the pixels are the same.
        cache_folder: Where "disk" and the index of a large tree are kept; None for the user's cache folder.
        path_column: The same of the file; None for "path".
        group_column: The same of the group; None for "group", if there is one.
        split_column: The same of the split; None for "split", if there is one.
        id_column: The same of the id; None for "id", if there is one.
        split_rule: Version of the rules for ids and drawn splits; 1 is what earlier versions did.
        fold: (I, K): fold I of K is the test set, whatever splits the source has; None for the usual splits.
        group_copies: "group" or "drop" images of equal content, see `join_copies`; None leaves them as they are.
        intensity: "auto" (the range of the training set), "full" (of the type) or the values that become black and
            white, for image files of more than 8 bits.
        framing: "crop", "pad" or "squash": which part of an image file becomes the square.
        dicom_window: Centre and width in place of the windows of DICOM files.
        edition: Of the rules by which files are decoded; 1 for runs of the versions before `--intensity`.
        seed: Seed of splits and subsets.
        num_workers: Processes or threads that decode files; results do not depend on it.
    """

    name: str
    data_root: str | None = None
    classes: tuple[tuple[str, ...], ...] | None = None
    positive_classes: tuple[str, ...] | None = None
    class_ratios: tuple[float, ...] | None = None
    train_samples: int | None = None
    minority_class: int | None = None
    image_size: int | None = None
    on_bad_image: str = "stop"
    label_column: str | None = None
    stored_size: int | None = None
    cache: str = "off"
    cache_folder: str | None = None
    path_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    id_column: str | None = None
    split_rule: int = NEWEST_RULE
    intensity: Intensity = "auto"
    framing: str = "crop"
    dicom_window: tuple[float, float] | None = None
    edition: int = EDITION
    seed: int = 0
    num_workers: int = 0
    fold: tuple[int, int] | None = None
    group_copies: str | None = None

    def __post_init__(self) -> None:
        """Check the values that no reader checks."""
        if self.on_bad_image not in ("stop", "skip"):
            raise ValueError(f"--on-bad-image {self.on_bad_image} is unknown; use stop or skip")
        if self.cache not in ("off", "ram", "disk"):
            raise ValueError(f"--cache {self.cache} is unknown; use off, ram or disk")
        if not 1 <= self.split_rule <= NEWEST_RULE:
            raise ValueError(f"--split-rule {self.split_rule} is unknown; use 1 to {NEWEST_RULE}")
        if self.fold is not None and not 1 <= self.fold[0] <= self.fold[1] >= 2:
            raise ValueError(
                f"--fold {self.fold[0]}/{self.fold[1]}: write I/K, fold I of K from 1 to K; K is at least 2"
            )
        if self.fold is not None and self.split_rule == 1:
            raise ValueError("--fold is drawn by --split-rule 2; leave --split-rule 1 out")
        for name in ("path", "group", "split", "id"):
            tables = ("csv",) if name == "path" else ("csv", "arrays")
            if self.name not in tables and getattr(self, f"{name}_column") is not None:
                raise ValueError(f"--{name}-column is for tables; --dataset {self.name} has none, leave it out")
        if self.framing not in FRAMINGS:
            raise ValueError(f"--framing {self.framing} is unknown; use {', '.join(FRAMINGS)}")
        if isinstance(self.intensity, str) and self.intensity not in ("auto", "full"):
            raise ValueError(f"--intensity {self.intensity} is unknown; use auto, full or two values LOW HIGH")
        if not isinstance(self.intensity, str) and not self.intensity[0] < self.intensity[1]:
            low, high = self.intensity
            raise ValueError(f"--intensity {low:g} {high:g}: LOW must be below HIGH; swap them")
        if self.dicom_window is not None and not self.dicom_window[1] >= 1:
            raise ValueError(f"--dicom-window: the width {self.dicom_window[1]:g} must be at least 1")
        sizes = (("--image-size", self.image_size), ("--stored-size", self.stored_size))
        for flag, value in (("--train-samples", self.train_samples), *sizes):
            if value is not None and value < 1:
                raise ValueError(f"{flag} {value} must be at least 1; leave it out for the default")


@dataclass(frozen=True, eq=False)
class Source:
    """What a reader hands over, before splits are drawn and classes are formed.

    Args:
        ids: Unique, stable id per sample.
        labels: Source label per sample.
        classes: The classes; samples whose label is in none are dropped.
        splits: Split per sample, as far as the source defines it; "train" for all others.
        held_out: Parts to draw from split "train": a count, or a fraction of it.
        pixels: uint8 [N, H, W] or [N, H, W, C] for images in memory, else None.
        paths: File per sample for images in files, else None.
        groups: Group (patient, site) per sample, or None.
        channels: 1 or 3 where the source fixes it for its files; None to look at them.
        bad_images: Place and reason of images that the reader left out, as `--on-bad-image skip` asks.
        left_out: Source label -> format -> files that are no images and were left out.
        doubts: What the reader found that a user should hear of, one line each with the remedy.
    """

    ids: list[str]
    labels: list[str]
    classes: ClassGroups
    splits: list[str]
    held_out: Mapping[str, int | float]
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None = None
    paths: list[str] | None = None
    groups: list[str] | None = None
    channels: int | None = None
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One table of samples with their images; the row number is the global sample index.

    Rows depend on the source, the classes and (with `--on-bad-image skip`) the broken files, never on the ratio or
    the method.

    Args:
        settings: What the table was built from.
        name: Name of the source.
        class_names: Name per class, in label order.
        ids: Unique, stable id per row.
        labels: int64 [N], class index per row.
        splits: String array [N] of "train", "val", "test" and "pool" (training side, left out of the subset).
        groups: Group per row, or None.
        paths: File per row, or None.
        images: The pixels, uint8; files are decoded to a square somewhat larger than `image_size`.
        preprocessing: How the network's input is made of an image.
        minority_class: Smallest class of split "train"; None when the smallest is not unique.
        bad_images: Path and reason of every file that was skipped.
        content_digest: Of the content of a seeded sample of the images, see `prepare.content_digest_of`.
        area_cut_off: Share of an image's area that the framing leaves out, on average over a sample of the files.
    """

    settings: DatasetSettings
    name: str
    class_names: list[str]
    ids: list[str]
    labels: Tensor
    splits: np.ndarray[tuple[int], np.dtype[np.str_]]
    groups: list[str] | None
    paths: list[str] | None
    images: Images
    preprocessing: Preprocessing
    minority_class: int | None
    bad_images: list[tuple[str, str]]
    content_digest: str | None = None
    area_cut_off: float = 0.0

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return self.preprocessing.image_size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.preprocessing.decoding.channels

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel on split "train", range [0, 1]."""
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel on split "train", same unit."""
        return self.preprocessing.std

    def indices(self, split: str) -> Tensor:
        """Return the rows of a split, ascending, int64."""
        assert split in SPLITS
        return torch.from_numpy(np.flatnonzero(self.splits == split))

    def class_counts(self, split: str) -> list[int]:
        """Return the number of samples per class in a split."""
        return count_classes(self.labels[self.indices(split)], len(self.class_names))

    def split_digest(self) -> str:
        """Return the sha256 (hex) of all (id, label, split) rows."""
        rows = zip(self.ids, self.labels.tolist(), self.splits.tolist(), strict=True)
        text = "".join([f"{sample_id}\0{label}\0{split}\n" for sample_id, label, split in rows])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    def save_split(self, path: str | Path) -> None:
        """Write the table as UTF-8 CSV with the columns id, path, label, split, group, whole or not at all.

        For images in files the result can be read back with `--dataset csv --data-root PATH` from any folder.

        Raises:
            ValueError: It could not be written.
        """
        checkpoint.write_text(Path(path), self._split_text())

    def mend_split(self, path: Path) -> None:
        """Write the table again where a full disk left only a part of it, as earlier versions could."""
        wanted, stored = (
            [row[:1] + row[2:] for row in csv.reader(io.StringIO(text))]
            for text in (self._split_text(), path.read_text(encoding="utf-8", errors="replace"))
        )  # without the paths: images may have moved
        if stored != wanted:
            log.warning("%s is not the split of this run (a full disk?); it is written again", path)
            self.save_split(path)

    def _split_text(self) -> str:
        blank = [""] * len(self.ids)
        paths = blank if self.paths is None else [os.path.abspath(path) for path in self.paths]  # noqa: PTH100
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(SPLIT_COLUMNS)
        writer.writerows(zip(self.ids, paths, self.labels.tolist(), self.splits, self.groups or blank, strict=True))
        return text.getvalue()


def count_classes(labels: Tensor, classes: int) -> list[int]:
    """Count int64 labels [N] per class."""
    return [int(count) for count in torch.bincount(labels, minlength=classes)]


def minority_of(counts: Sequence[int], class_names: Sequence[str], override: int | None) -> int | None:
    """Determine the minority class from the training counts.

    Args:
        counts: Training samples per class.
        class_names: Names for the error message.
        override: `--minority-class`, or None.

    Returns:
        The class index; None when no class is smaller than all others and none is given.

    Raises:
        ValueError: If the override is no class, or the largest class.
    """
    if override is None:
        smallest = min(counts)
        return counts.index(smallest) if counts.count(smallest) == 1 else None
    if not 0 <= override < len(counts):
        raise ValueError(f"--minority-class {override} is no class; use 0 to {len(counts) - 1}")
    if counts[override] == max(counts) > min(counts):
        raise ValueError(
            f"--minority-class {override} ({class_names[override]}) is the largest class with {counts[override]} of "
            f"{sum(counts)} training samples; leave the flag out or use {counts.index(min(counts))}"
        )
    return override
