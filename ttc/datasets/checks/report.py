"""What a look at all images of a data set finds: what training would refuse, what is worth a warning, what there is."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ttc.datasets.checks import depths
from ttc.datasets.checks.doubts import doubts_about, told_about
from ttc.datasets.checks.leaks import pixel_digests
from ttc.datasets.checks.listing import describe_formats
from ttc.datasets.checks.rare import least, too_few_groups, too_few_images
from ttc.datasets.checks.spelling import spellings, two_spellings
from ttc.datasets.images import in_threads
from ttc.datasets.imbalance import hash_order
from ttc.datasets.pixels.files import Header
from ttc.datasets.pixels.survey import headers_of
from ttc.datasets.plan import describe
from ttc.datasets.registry import PUBLISHED, build_dataset, read_source
from ttc.datasets.table import SPLITS, Dataset, DatasetSettings, Source
from ttc.run.escape import counted

TILE, GAP, COLUMNS, ROWS, CAPTION = 112, 2, 8, 6, 24


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        dataset: the table, without unreadable images.
        classes: what the files of each class are made of.
        lines: for people, at most 100 columns each where no path is longer.
        problems: one line each, with the remedy: what training refuses.
        warnings: one line each, with the remedy: what training puts up with.
        values: the same as plain values, complete.
    """

    dataset: Dataset
    classes: list[depths.ClassFiles]
    lines: list[str]
    problems: list[str]
    warnings: list[str]
    values: dict[str, object]


def examine(settings: DatasetSettings) -> Report:
    """Read and decode everything once.

    Raises:
        ValueError: If the data cannot be read at all, or a class is missing in a split.
    """
    source = read_source(settings)
    doubts = two_spellings(settings, source)
    dataset = _build(settings, source, doubts)
    counts = {split: dataset.class_counts(split) for split in SPLITS}
    widths, heights = _sizes(dataset)
    classes = depths.files_by_class(dataset)
    formats = sum((files.modes for files in classes), Counter[str]())
    copies = _Copies.among(dataset)
    groups = [] if dataset.groups is None else _divided(dataset.groups, copies.sides)
    unreadable = _by_class(source, dataset.bad_images)
    lines = [
        *describe(dataset),
        *told_about(settings, source),
        f"smallest class: {least(counts)}",
        "images: " + ", ".join(f"{count} {name}" for name, count in formats.most_common()),
        f"size: {_spread(widths)} px wide, {_spread(heights)} px high; the network sees {dataset.channels} x "
        f"{dataset.image_size} x {dataset.image_size}",
        *depths.lines_of(classes),
        f"mean {_numbers(dataset.mean)}, standard deviation {_numbers(dataset.std)} of split train, in [0, 1]",
        copies.line(),
        f"groups: {len(set(dataset.groups or []))}, {len(groups)} in two splits",
        f"unreadable: {len(dataset.bad_images)}" + (f" ({describe_formats(unreadable)})" if unreadable else ""),
    ]
    problems = [f"unreadable image {path}: {reason}" for path, reason in dataset.bad_images]
    problems += [*doubts, *copies.problems()]
    problems += [
        f"group {group!r} is in the splits {' and '.join(parts)}; keep each group in one split"
        for group, parts in groups
    ]
    warnings = [*doubts_about(settings, source), *_left_out(source), *_harmless_spellings(source, doubts)]
    warnings += [*copies.warnings(), *depths.warnings_of(classes), *too_few_groups(dataset), *too_few_images(dataset)]
    values: dict[str, object] = {
        "dataset": dataset.name,
        "class_names": dataset.class_names,
        "class_counts": counts,
        "minority_class": dataset.minority_class,
        "formats": dict(formats),
        "width_px": {"min": min(widths), "median": statistics.median(widths), "max": max(widths)},
        "height_px": {"min": min(heights), "median": statistics.median(heights), "max": max(heights)},
        "channels": dataset.channels,
        "image_size": dataset.image_size,
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": [files.as_dict() for files in classes],
        "area_cut_off": dataset.area_cut_off,
        "left_out": {label: dict(counts) for label, counts in source.left_out.items()},
        "unreadable": [{"path": path, "reason": reason} for path, reason in dataset.bad_images],
        "unreadable_by_class": dict(unreadable),
        "copies": copies.repeated,
        "copies_across_splits": copies.across,
        "copies_under_two_labels": copies.conflicts,
        "spellings": {"labels": spellings(source.labels), "groups": spellings(source.groups or [])},
        "groups": None if dataset.groups is None else len(set(dataset.groups)),
        "groups_in_two_splits": [{"group": group, "splits": parts} for group, parts in groups],
        "split_digest": dataset.split_digest(),
        "problems": problems,
        "warnings": warnings,
    }
    return Report(dataset, classes, lines, problems, warnings, values)


def _build(settings: DatasetSettings, source: Source, doubts: Sequence[str]) -> Dataset:
    try:
        return build_dataset(replace(settings, on_bad_image="skip"), source, refuse_leaks=False)
    except ValueError as error:  # such as a class that lacks a split, since half of it is spelled otherwise
        if not doubts:
            raise
        raise ValueError(f"--data-root: {doubts[0]}") from error


def contact_sheet(dataset: Dataset, label: int, path: Path) -> int:
    """Draw up to 48 training images of a class, as they are before the random crops; return how many."""
    from PIL import Image, ImageDraw

    rows = dataset.indices("train")
    rows = rows[dataset.labels[rows] == label]
    order = hash_order([dataset.ids[row] for row in rows.tolist()], 0, "contact")[: COLUMNS * ROWS]
    images = dataset.images[rows[sorted(order)]].float()
    small = images.shape[-1] < TILE
    tiles = torch.nn.functional.interpolate(
        images, (TILE, TILE), mode="nearest" if small else "bilinear", **({} if small else {"antialias": True})
    )
    pitch = TILE + GAP
    height = CAPTION + pitch * -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (pitch * COLUMNS - GAP, height), "white")
    text = f"{dataset.name}, class {label}: {dataset.class_names[label]}, {len(tiles)} of {len(rows)} in training"
    ImageDraw.Draw(sheet).text((4, 5), text.encode("ascii", "replace").decode(), fill="black")
    for position, tile in enumerate(tiles.round().to(torch.uint8)):
        picture = Image.fromarray(tile.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        sheet.paste(picture, (pitch * (position % COLUMNS), CAPTION + pitch * (position // COLUMNS)))
    sheet.save(path)
    return len(tiles)


@dataclass(frozen=True)
class _Copies:
    """Images that have equal pixels, whatever their files are.

    Attributes:
        sides: split of each row, the pool belonging to training.
        repeated: images that equal an earlier one.
        across: names, with splits, of one image of each split.
        conflicts: names, with classes, of one image of each class.
        inside: the same within one split and class.
        refused: whether training refuses copies; published sets are kept as they are.
    """

    sides: list[str]
    repeated: int
    across: list[list[str]]
    conflicts: list[list[str]]
    inside: list[list[str]]
    refused: bool

    @classmethod
    def among(cls, dataset: Dataset) -> _Copies:
        """Compare the pixels of all images."""
        sides = ["train" if split == "pool" else str(split) for split in dataset.splits]
        classes = [dataset.class_names[label] for label in dataset.labels.tolist()]
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, digest in enumerate(pixel_digests(dataset.images)):
            rows_of[digest].append(row)
        equal = [rows for digest, rows in rows_of.items() if digest and len(rows) > 1]
        names = dataset.paths or dataset.ids
        across, conflicts = ([_one_of_each(rows, values, names) for rows in equal] for values in (sides, classes))
        plain = [rows for rows in equal if len({(sides[row], classes[row]) for row in rows}) == 1]
        return cls(
            sides,
            sum(len(rows) - 1 for rows in equal),
            [rows for rows in across if len(rows) > 1],
            [rows for rows in conflicts if len(rows) > 1],
            [[names[row] for row in rows] for rows in plain],
            dataset.name not in PUBLISHED,
        )

    def line(self) -> str:
        """Count them."""
        repeated = counted(self.repeated, "image has", "images have")
        return (
            f"copies: {repeated} the pixels of an earlier one, {len(self.across)} of these lie in two splits, "
            f"{len(self.conflicts)} under two labels"
        )

    def problems(self) -> list[str]:
        """Return what training refuses."""
        return self._faults() if self.refused else []

    def warnings(self) -> list[str]:
        """Return what counts twice, or what a published set has of it."""
        lines = [] if self.refused else [f"{line} (the published splits are kept)" for line in self._faults()]
        if self.inside:
            more, first = sum(len(names) - 1 for names in self.inside), " and ".join(self.inside[0][:2])
            words = "image equals another one of its", "images equal another one of their"
            lines.append(
                f"{counted(more, *words)} split and class, such as {first}; remove them, or pass --group-copies drop"
            )
        return lines

    def _faults(self) -> list[str]:
        lines = [
            f"one image under two labels: {' and '.join(ids[:2])}; correct one, or remove both"
            for ids in self.conflicts
        ]
        return lines + [
            f"the same content in two splits: {' and '.join(ids[:2])}; remove one, or put both in one group "
            "(--group-copies)"
            for ids in self.across
        ]


def _one_of_each(rows: Sequence[int], values: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return one row's name for each value among the rows."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(values[row], row)
    return [f"{names[row]} ({value})" for value, row in first.items()]


def _sizes(dataset: Dataset) -> tuple[list[int], list[int]]:
    """List widths and heights."""
    if dataset.paths is None:
        height, width = dataset.images[torch.tensor([0])].shape[-2:]
        return [width], [height]
    headers = [header for header in in_threads(_header, dataset.paths, "measured") if header is not None]
    return [header.width for header in headers], [header.height for header in headers]


def _header(path: str) -> Header | None:
    return headers_of([path])[0]


def _by_class(source: Source, bad_images: Sequence[tuple[str, str]]) -> Counter[str]:
    """Count unreadable images by their label."""
    label_of = dict(zip(source.paths or [], source.labels, strict=False))
    return Counter(label_of[path] for path, _ in bad_images if path in label_of)


def _left_out(source: Source) -> list[str]:
    return [
        f"label {label}: left out, since no image format that is read: {describe_formats(formats)}; convert them, "
        "or remove them"
        for label, formats in source.left_out.items()
    ]


def _harmless_spellings(source: Source, refused: Sequence[str]) -> list[str]:
    return [
        f"labels {' and '.join(map(repr, forms))} look like one label in two spellings; write it in one way"
        for forms in spellings(source.labels)
        if not any(all(repr(form) in line for form in forms) for line in refused)
    ]


def _divided(groups: Sequence[str], splits: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return groups with the splits they are in, where these are several."""
    splits_of: dict[str, dict[str, None]] = defaultdict(dict)
    for group, split in zip(groups, splits, strict=True):
        splits_of[group][split] = None
    return [(group, list(parts)) for group, parts in splits_of.items() if len(parts) > 1]


def _spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high} (median {statistics.median(values):g})"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
