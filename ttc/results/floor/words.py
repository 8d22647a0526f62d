"""The floor beside other results: what it is, who does not clear it, and what to change first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from ttc.evaluation.floor.measure import FloorResult, auroc_of
from ttc.models.description import Description
from ttc.results.table_parts import WIDTH

FEW_STEPS, SMALL_CROP, SMALL_IMAGE = 1500, 0.5, 128
"""Below these a run has room for more steps (docs/budget.md has what they gain), milder crops and larger images."""

_MODELS = {"linear": "linear model", "svm": "SVM"}


def explained(floor: FloorResult) -> list[str]:
    """Say what the row of the floor is, in lines for the table."""
    lines = [f"floor: plain classifiers of the raw pixels ({floor['side']} px), learned from the same images:"]
    for probe, fits in floor["fits"].items():
        first = fits[0]
        features = "the pixels" if first["features"] == "pixels" else "principal components"
        how = f"  {probe}: {_MODELS[str(first['model'])]} on {features}, C {first['strength']:g}, chosen "
        how += "by nobody: validation lacks a class" if first["validation"] is None else "by validation"
        drawn = f", {first['learned_from']} of {first['of']} images" if first["learned_from"] != first["of"] else ""
        lines.append(how + drawn + (f" (first of {len(fits)} fits)" if len(fits) > 1 else ""))
    if any(marked(floor, section, probe) for section, probes in floor["clears"].items() for probe in probes):
        lines.append("<: AUROC not above that of the floor, on test or on validation")
    return lines


def row_title(section: str, probe: str, *, marked: bool) -> str:
    """Return 26 columns: the section in 15, then probe and mark; a longer section is cut where all do not fit."""
    end = f"{probe:<9}<" if marked else probe
    if len(section) < 15:
        return f"{section:<15}{end:<11}"
    end = f" {probe} <" if marked else f" {probe}"
    left = 26 - len(end)
    return f"{(section if len(section) <= left else f'{section[: left - 2]}..') + end:<26}"


def marked(floor: FloorResult | None, section: str, probe: str) -> bool:
    """Tell whether a result does not clear the floor, on test or on validation."""
    return floor is not None and False in floor["clears"].get(section, {}).get(probe, {}).values()


def falls_short(
    results: Mapping[str, Mapping[str, Mapping[str, object]]],
    floor: FloorResult | None,
    description: Description,
    arguments: Mapping[str, object],
    step: int,
) -> list[str]:
    """Say that the first section does not clear the floor, and what to change first; nothing if it does.

    Args:
        results: metrics by section and probe; of the first section the probe on all images counts, if there is one.
        floor: of the same evaluation, if there is one.
        description: of the run.
        arguments: flag -> value of the run.
        step: optimizer steps of the run.
    """
    section = next(iter(results))
    probe = "all" if "all" in results[section] else next(iter(results[section]))
    if floor is None or not marked(floor, section, probe):
        return []
    beside = floor["probes"].get(probe, floor["probes"].get("all", {}))
    texts = []
    for split in ("test", "validation"):
        reached, needed = auroc_of(results[section][probe], split), auroc_of(beside, split)
        if reached is not None and needed is not None:
            texts.append(f"{100 * reached:.1f} on {split} (floor {100 * needed:.1f})")
    line = f"{section} {probe} does not clear the floor of raw pixels: AUROC {' and '.join(texts)}"
    if description.method == "embeddings":
        return textwrap.wrap(line, WIDTH)
    if not step:
        return textwrap.wrap(f"{line}; the encoder is untrained", WIDTH)
    remedies = ", ".join(_remedies(description, arguments, step))
    usual = "the method, or more images; the usual remedies are in use"
    return textwrap.wrap(f"{line}; change first: {remedies or usual}", WIDTH)


def _remedies(description: Description, arguments: Mapping[str, object], step: int) -> Iterator[str]:
    """Yield what the run does not do yet."""
    if step < FEW_STEPS:
        yield f"more steps (--epochs; it took {step} steps)"
    scale = description.augmentation.get("scale")
    if isinstance(scale, list | tuple) and scale[0] < SMALL_CROP:
        yield f"milder crops (--crop-scale; they keep {100 * scale[0]:g} % and more)"
    size = description.preprocessing.image_size
    resized = description.preprocessing.source == "files" or description.data.get("image_size") is not None
    if resized and size < SMALL_IMAGE:
        yield f"larger images (--image-size; now {size})"
    if not arguments.get("weights"):
        yield "pretrained weights (--weights)"
