"""What a class can tell with so many images and groups: too few of them make a result that is worth nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from ttc import distributed
from ttc.datasets.table import Dataset
from ttc.run.escape import counted

log = logging.getLogger("ttc")

FEWEST_GROUPS = 10
"""Below so many groups that carry a class a test says little about the next group."""
FEWEST_IMAGES = 10
"""The same for the images of a class in validation or test."""


def too_few_groups(dataset: Dataset) -> list[str]:
    """Return a line for each class that few groups carry."""
    if dataset.groups is None:
        return []
    lines = []
    for label, name in enumerate(dataset.class_names):
        rows = [row for row, value in enumerate(dataset.labels.tolist()) if value == label]
        images = Counter(dataset.groups[row] for row in rows)
        if len(images) >= FEWEST_GROUPS:
            continue
        share = "two of them have " if len(images) > 1 else "which has all "
        most = sum(count for _, count in images.most_common(2))
        parts = ", ".join(
            f"{len({dataset.groups[row] for row in rows if dataset.splits[row] == split})} in {split}"
            for split in ("train", "val", "test")
        )
        carriers, total = counted(len(images), "group"), counted(len(rows), "image")
        lines.append(
            f"class {label} ({name}) is carried by {carriers} only ({parts}), {share}{most} of its {total}: a result "
            "says nothing about new groups; collect more, and never believe one seed"
        )
    return lines


def warn_of_few_groups(dataset: Dataset) -> None:
    """Log what `too_few_groups` says, on the first rank."""
    for line in too_few_groups(dataset) if distributed.rank() == 0 else []:
        log.warning("%s", line)


def too_few_images(dataset: Dataset) -> list[str]:
    """Return a line if validation or test has few images of a class."""
    few = [
        f"{count} of class {label} ({dataset.class_names[label]}) in {split}"
        for split in ("val", "test")
        for label, count in enumerate(dataset.class_counts(split))
        if count < FEWEST_IMAGES
    ]
    if not few:
        return []
    return [
        f"few images: {', '.join(few)}; intervals are wide: collect more, or repeat the experiment in folds (--fold)"
    ]


def least(counts: Mapping[str, Sequence[int]]) -> str:
    """Tell the size of the smallest class of each split: "12 in train, 2 in val, 4 in test"."""
    return ", ".join(f"{min(counts[split])} in {split}" for split in ("train", "val", "test"))


def check_classes(
    labels: Sequence[int], sides: Sequence[str], names: Sequence[str], groups: Sequence[str] | None
) -> None:
    """Raise ValueError when a class has no sample in one of train, val and test."""
    present = set(zip(labels, sides, strict=True))
    for label, name in enumerate(names):
        missing = [split for split in ("train", "val", "test") if (label, split) not in present]
        if not missing:
            continue
        rows = [row for row, value in enumerate(labels) if value == label]
        units, what = len(rows), "image"
        if groups is not None:
            units, what = len({groups[row] for row in rows}), "group"
        reason = f"class {label} ({name}) has no sample in split {missing[0]!r}"
        remedy = "add images, or group more labels into the class with --classes"
        if units < 3:
            few = counted(units, f"{what} is", f"{what}s are")
            remedy = f"its {few} too few: at least 3 are needed, one each for train, val and test; {remedy}"
        raise ValueError(f"--data-root: {reason}; {remedy}")
