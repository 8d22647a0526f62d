"""What the files of each class are made of: where classes differ in that, a network learns files and not findings."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ttc.datasets.images import in_threads
from ttc.datasets.imbalance import hash_order
from ttc.datasets.pixels.files import Header
from ttc.datasets.pixels.framing import AREA_WORTH_TELLING, area_cut_off
from ttc.datasets.pixels.intensity import EIGHT_BIT, WINDOWED
from ttc.datasets.pixels.survey import deep_samples, headers_of
from ttc.datasets.table import Dataset

VALUE_FILES = 64
"""Files of each class whose values are looked at."""
BINS = 64
SHARE_APART, LEVELS_APART = 0.2, 64
"""From where two classes are said to differ: shares of a depth or mode, and levels of the 0.5 % or 99.5 % quantile."""
QUANTILES = (0.005, 0.5, 0.995)


@dataclass(frozen=True)
class ClassFiles:
    """The files of one class.

    Attributes:
        name: of the class.
        images: their number.
        depths: depth -> files, all of them.
        modes: format and colour mode -> files.
        range: smallest 0.5 % and largest 99.5 % quantile of the values of a sample of the files of more than 8 bits, in
            their own units; None where there are none.
        levels: 0.5, 50 and 99.5 % quantiles of the bytes that training gets from a sample of the images.
        histogram: shares of 64 equal bins of these bytes, [64], summing to 1.
        area_cut_off: mean and largest share of an image's area that the framing leaves out.
    """

    name: str
    images: int
    depths: Counter[str]
    modes: Counter[str]
    range: tuple[float, float] | None
    levels: tuple[float, float, float]
    histogram: NDArray[np.float64]
    area_cut_off: tuple[float, float]

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "class": self.name,
            "images": self.images,
            "depths": dict(self.depths),
            "modes": dict(self.modes),
            "range": None if self.range is None else list(self.range),
            "levels": list(self.levels),
            "histogram": self.histogram.round(6).tolist(),
            "area_cut_off": {"mean": self.area_cut_off[0], "max": self.area_cut_off[1]},
        }


def files_by_class(dataset: Dataset) -> list[ClassFiles]:
    """Look at the header of every file, and at the values of a seeded sample of each class, in label order."""
    labels = dataset.labels.tolist()
    headers: list[Header | None] = [None] * len(labels)
    if dataset.paths is not None:
        headers = list(in_threads(lambda path: headers_of([path])[0], dataset.paths, "looked at"))
    return [
        _look_at(dataset, name, [row for row, value in enumerate(labels) if value == label], headers)
        for label, name in enumerate(dataset.class_names)
    ]


def _look_at(dataset: Dataset, name: str, rows: Sequence[int], headers: Sequence[Header | None]) -> ClassFiles:
    order = hash_order([dataset.ids[row] for row in rows], 0, "depths")[:VALUE_FILES]
    sample = [rows[position] for position in order]
    decoded = [dataset.images[torch.tensor([row])].flatten() for row in sample]
    values = torch.cat(decoded).numpy() if decoded else np.zeros(1, dtype=np.uint8)
    low, middle, high = (float(quantile) for quantile in np.quantile(values, QUANTILES))
    counts = np.histogram(values, BINS, (0, 256))[0]
    readable = [header for row in rows if (header := headers[row]) is not None]
    framing = dataset.preprocessing.decoding.framing
    cut = [area_cut_off(header.width, header.height, framing) for header in readable]
    deep = [row for row in sample if (header := headers[row]) is not None and header.depth not in (EIGHT_BIT, WINDOWED)]
    return ClassFiles(
        name,
        len(rows),
        Counter(header.depth for header in readable) or Counter({"in memory": len(rows)}),
        Counter(header.mode for header in readable) or Counter({"in memory": len(rows)}),
        _range(dataset, deep),
        (low, middle, high),
        counts / max(1, counts.sum()),
        (statistics.fmean(cut), max(cut)) if cut else (0.0, 0.0),
    )


def _range(dataset: Dataset, rows: Sequence[int]) -> tuple[float, float] | None:
    assert dataset.paths is not None or not rows
    window, ends = dataset.preprocessing.decoding.dicom_window, []
    for row in rows:
        samples = deep_samples((dataset.paths or [])[row], window)
        if samples is not None and samples.depth != WINDOWED:
            finite = samples.values[np.isfinite(samples.values)]
            ends.append(np.quantile(finite, (QUANTILES[0], QUANTILES[2])) if finite.size else np.zeros(2))
    return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else None


def lines_of(classes: Sequence[ClassFiles]) -> list[str]:
    """Return one line per class for people."""
    lines = []
    for files in classes:
        depths = ", ".join(f"{count} {name}" for name, count in files.depths.most_common(3))
        span = "" if files.range is None else f"; values {files.range[0]:g} to {files.range[1]:g}"
        levels = " / ".join(f"{value:g}" for value in files.levels)
        lines.append(f"class {files.name[:30]}: {depths}{span}; bytes {levels} (0.5, 50, 99.5 %)")
    return lines


def warnings_of(classes: Sequence[ClassFiles]) -> list[str]:
    """Return one line per kind of difference between classes, and one for a framing that cuts off much."""
    return [*_differences(classes), *_cut_off(classes)]


def _differences(classes: Sequence[ClassFiles]) -> Iterator[str]:
    remedy = "save all images in one way, or a network learns the file"
    for what, counts in (("depth", [files.depths for files in classes]), ("mode", [files.modes for files in classes])):
        for kind in sorted(set().union(*counts)):
            shares = [count[kind] / max(1, count.total()) for count in counts]
            if max(shares) - min(shares) > SHARE_APART:
                most, least = (classes[shares.index(pick(shares))] for pick in (max, min))
                yield (
                    f"classes differ in {what}: {kind} are {100 * max(shares):.0f} % of {most.name} and "
                    f"{100 * min(shares):.0f} % of {least.name}; {remedy}"
                )
                break
    for place, what in ((0, "darkest"), (2, "brightest")):
        levels = [files.levels[place] for files in classes]
        if max(levels) - min(levels) > LEVELS_APART:
            most, least = (classes[levels.index(pick(levels))] for pick in (max, min))
            yield (
                f"classes differ in range: the {what} 0.5 % lie at {max(levels):.0f} of 255 in {most.name} and at "
                f"{min(levels):.0f} in {least.name}; look at the histograms, or name a range with --intensity LOW HIGH"
            )


def _cut_off(classes: Sequence[ClassFiles]) -> Iterator[str]:
    images = sum(files.images for files in classes)
    mean = sum(files.area_cut_off[0] * files.images for files in classes) / max(1, images)
    if mean > AREA_WORTH_TELLING:
        most = max(files.area_cut_off[1] for files in classes)
        yield (
            f"framing cuts off {100 * mean:.0f} % of the images' area, up to {100 * most:.0f} %; findings there are "
            "not seen: use --framing pad or squash"
        )
