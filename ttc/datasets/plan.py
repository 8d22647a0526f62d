"""The lines about the data in the plan that is printed before training."""

from __future__ import annotations

from ttc.datasets.pixels.framing import AREA_WORTH_TELLING
from ttc.datasets.pixels.intensity import EIGHT_BIT
from ttc.datasets.table import SPLITS, Dataset
from ttc.run.escape import counted


def describe(dataset: Dataset) -> list[str]:
    """Return the class table as lines of at most 100 columns, for the plan that is printed before training."""
    counts = {split: dataset.class_counts(split) for split in SPLITS}
    total = sum(counts["train"])
    lines = [f"{'class':>5}  {'name':<30}" + "".join(f"{s:>9}" for s in SPLITS) + "  share of train"]
    for label, name in enumerate(dataset.class_names):
        short_name = name if len(name) <= 30 else name[:27] + "..."
        numbers = "".join(f"{counts[split][label]:>9}" for split in SPLITS)
        share = f"{100 * counts['train'][label] / total:>14.2f} %"
        marker = "  minority" if label == dataset.minority_class else ""
        lines.append(f"{label:>5}  {short_name:<30}{numbers}{share}{marker}")
    lines += _describe_pixels(dataset)
    if dataset.bad_images:
        unreadable = counted(len(dataset.bad_images), "unreadable image was", "unreadable images were")
        lines.append(f"{unreadable} left out; the first: {dataset.bad_images[0][0]}"[:100])
    return lines


def _describe_pixels(dataset: Dataset) -> list[str]:
    """Return what becomes of grey values and borders, where that is not plain; nothing for 8-bit squares."""
    decoding, lines = dataset.preprocessing.decoding, []
    deep = decoding.depths is None or any(depth != EIGHT_BIT for depth in decoding.depths)
    if dataset.preprocessing.source == "files" and decoding.edition > 1 and deep:
        named = "any depth" if decoding.depths is None else " and ".join(decoding.depths)
        lines.append(f"intensity: files of {named}; black to white is {decoding.range_text()}")
    if dataset.area_cut_off > AREA_WORTH_TELLING:
        lines.append(
            f"framing: {100 * dataset.area_cut_off:.0f} % of the images' area is cut off; "
            "--framing pad or squash shows all"
        )
    return lines
