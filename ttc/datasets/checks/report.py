"""What a look at all images of a data set finds: sizes, modes, unreadable files, duplicates, leaks, contact sheets."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch

from ttc.datasets.images import CachedImages, TensorImages, in_threads
from ttc.datasets.imbalance import hash_order
from ttc.datasets.pixels.files import read_header, read_regular
from ttc.datasets.plan import describe
from ttc.datasets.registry import build_dataset, read_source
from ttc.datasets.table import SPLITS, Dataset, DatasetSettings

TILE, GAP, COLUMNS, ROWS, CAPTION = 112, 2, 8, 6, 24


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        dataset: the table, without unreadable images.
        lines: for people, at most 100 columns each where no path is longer.
        problems: one line each; empty when training may start.
        values: the same as plain values, complete.
    """

    dataset: Dataset
    lines: list[str]
    problems: list[str]
    values: dict[str, object]


def examine(settings: DatasetSettings) -> Report:
    """Read and decode everything once.

    Raises:
        ValueError: If the data cannot be read at all, or a class is missing in a split.
    """
    source = read_source(settings)
    dataset = build_dataset(replace(settings, on_bad_image="skip"), source, refuse_leaks=False)
    counts = {split: dataset.class_counts(split) for split in SPLITS}
    formats, widths, heights = _shapes(dataset)
    contents = _contents(dataset)
    copies = _copies(contents, dataset.splits.tolist())
    names = dataset.paths or dataset.ids
    across = [[f"{names[row]} ({dataset.splits[row]})" for row in rows] for rows in copies]
    groups = [] if dataset.groups is None else _divided(dataset.groups, dataset.splits.tolist())
    repeated = sum(count - 1 for count in Counter(contents).values())
    lines = [
        *describe(dataset),
        "images: " + ", ".join(f"{count} {name}" for name, count in formats.most_common()),
        f"size: {_spread(widths)} px wide, {_spread(heights)} px high; the network sees {dataset.channels} x "
        f"{dataset.image_size} x {dataset.image_size}",
        f"mean {_numbers(dataset.mean)}, standard deviation {_numbers(dataset.std)} of split train, in [0, 1]",
        f"copies: {repeated} images equal an earlier one, {len(across)} of these contents lie in two splits",
        f"groups: {len(set(dataset.groups or []))}, {len(groups)} in two splits",
        f"unreadable: {len(dataset.bad_images)}",
    ]
    problems = [f"unreadable image {path}: {reason}" for path, reason in dataset.bad_images]
    problems += [f"the same content in two splits: {' and '.join(each[:2])}" for each in across]
    problems += [f"group {group!r} is in the splits {' and '.join(parts)}" for group, parts in groups]
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
        "unreadable": [{"path": path, "reason": reason} for path, reason in dataset.bad_images],
        "copies": repeated,
        "copies_across_splits": across,
        "groups": None if dataset.groups is None else len(set(dataset.groups)),
        "groups_in_two_splits": [{"group": group, "splits": parts} for group, parts in groups],
        "split_digest": dataset.split_digest(),
    }
    return Report(dataset, lines, problems, values)


def contact_sheet(dataset: Dataset, label: int, path: Path) -> int:
    """Draw up to 48 training images of a class, as they are before the random crops; return how many."""
    from PIL import Image, ImageDraw

    rows = dataset.indices("train")
    rows = rows[dataset.labels[rows] == label]
    order = hash_order([dataset.ids[row] for row in rows.tolist()], 0, "contact")[: COLUMNS * ROWS]
    shown = dataset.images[rows[sorted(order)]].float()
    small = shown.shape[-1] < TILE
    tiles = torch.nn.functional.interpolate(
        shown, (TILE, TILE), mode="nearest" if small else "bilinear", **({} if small else {"antialias": True})
    )
    pitch = TILE + GAP
    height = CAPTION + pitch * -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (pitch * COLUMNS - GAP, height), "white")
    text = f"{dataset.name}, class {label}: {dataset.class_names[label]}, {len(tiles)} of {len(rows)} training images"
    ImageDraw.Draw(sheet).text((4, 5), text.encode("ascii", "replace").decode(), fill="black")
    for position, tile in enumerate(tiles.round().to(torch.uint8)):
        picture = Image.fromarray(tile.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        sheet.paste(picture, (pitch * (position % COLUMNS), CAPTION + pitch * (position // COLUMNS)))
    sheet.save(path)
    return len(tiles)


def _shapes(dataset: Dataset) -> tuple[Counter[str], list[int], list[int]]:
    """Count formats with modes, and list widths and heights."""
    if dataset.paths is None:
        height, width = dataset.images[torch.tensor([0])].shape[-2:]
        return Counter({"in memory": len(dataset.ids)}), [width], [height]
    formats: Counter[str] = Counter()
    widths, heights = [], []

    def header(path: str) -> tuple[str, int, int]:
        found = read_header(path)
        return found.mode, found.width, found.height

    for name, width, height in in_threads(header, dataset.paths, "looked at"):
        formats[name] += 1
        widths.append(width)
        heights.append(height)
    return formats, widths, heights


def _contents(dataset: Dataset) -> Sequence[str]:
    """Return a digest of each image's content: of its file where it has one."""
    if isinstance(dataset.images, CachedImages):
        return dataset.images.contents
    if isinstance(dataset.images, TensorImages):
        return [blake2b(image.numpy().tobytes(), digest_size=16).hexdigest() for image in dataset.images.data]
    assert dataset.paths is not None
    return list(
        in_threads(lambda path: blake2b(read_regular(path), digest_size=16).hexdigest(), dataset.paths, "hashed")
    )


def _copies(contents: Sequence[str], splits: Sequence[str]) -> list[list[int]]:
    """Return rows of equal content in different splits, one of each split; the pool belongs to training."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row, (content, split) in enumerate(zip(contents, splits, strict=True)):
        found[content].setdefault("train" if split == "pool" else split, row)
    return [list(rows.values()) for rows in found.values() if len(rows) > 1]


def _divided(groups: Sequence[str], splits: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return groups with the splits they are in, where these are several."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for group, split in zip(groups, splits, strict=True):
        found[group]["train" if split == "pool" else split] = None
    return [(group, list(parts)) for group, parts in found.items() if len(parts) > 1]


def _spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high} (median {statistics.median(values):g})"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
