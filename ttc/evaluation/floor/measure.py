"""Measure the floor exactly as a probe: the same rows, thresholds, calibration, intervals and predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from ttc.datasets import Dataset, cache
from ttc.evaluation.evaluate import Evaluation, Learned, Results, cross_validate, fit_and_test
from ttc.evaluation.floor.fits import Floor, left_out

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("ttc")

NAME = "floor"
"""Of the row in tables, and of the section, the layer and the head that stand for it."""


class FloorResult(TypedDict):
    """What a result tells about its floor.

    Attributes:
        side: of the images, in pixels.
        probes: as those of an encoder, of models that learned from the same images.
        fits: by probe, how each of its draws or folds came about, see `Fit`.
        clears: by section and probe of the result, whether its AUROC on "test" and on "validation" is above that of
            the floor with the same images; None where one of them is missing.
    """

    side: int
    probes: dict[str, dict[str, object]]
    fits: dict[str, list[dict[str, object]]]
    clears: dict[str, dict[str, dict[str, bool | None]]]


def measure_floor(
    evaluation: Evaluation,
    splits: Mapping[str, Tensor],
    learned: Learned,
    *,
    folds: int | None,
    seed: int,
    bootstrap: int,
    results: Results,
) -> tuple[FloorResult, pandas.DataFrame] | None:
    """Fit and measure the floor, on the rows of the probes and on all training images.

    Args:
        evaluation: of the encoder; nothing is added to it.
        splits: rows of "val" and "test".
        learned: rows that the probes learn from; empty with folds.
        folds: their number, or None.
        seed: as for the probes.
        bootstrap: draws of the intervals.
        results: of the encoder, which are compared.

    Returns:
        What the result tells and the predictions; None, and a line of the log, where there can be none.
    """
    import pandas

    dataset = evaluation.run.dataset
    if dataset.settings.name == "embeddings":
        return None
    learned = {} if folds else {"all": [(seed, dataset.indices("train"))], **learned}
    tested = evaluation.rows if folds else torch.unique(torch.cat([*splits.values()]))
    sets = [rows for drawn in learned.values() for _, rows in drawn] or [tested]
    if reason := left_out(dataset, torch.unique(torch.cat(sets)), tested):
        log.warning("the floor is left out: %s", reason)
        return None
    floor = Floor(dataset, sets, tested, num_workers=evaluation.num_workers, folder=_folder(dataset))
    rows = torch.unique(torch.cat([tested, *sets]))
    beside = replace(
        evaluation,
        rows=rows,
        features={NAME: rows[:, None]},
        fit_floor=floor.fit,
        **{name: type(getattr(evaluation, name))() for name in ("tables", "heads", "calibrators")},
    )
    if folds:
        measured = cross_validate(beside, [NAME], [NAME], folds=folds, seed=seed, bootstrap=bootstrap)[NAME]
        fits = {"folds": [fit.plain() for fit in floor.fits]}
    else:
        measured = fit_and_test(beside, [NAME], [NAME], splits, learned, seed=seed, bootstrap=bootstrap)[NAME]
        plain = (fit.plain() for fit in floor.fits)
        fits = {probe: [next(plain) for _ in drawn] for probe, drawn in learned.items()}
    for probe, summary in measured.items():
        summary["train_samples"] = min(int(str(fit["learned_from"])) for fit in fits.get(probe, fits.get("folds", ())))
    floor.save()
    told = FloorResult(side=floor.side, probes=measured, fits=fits, clears=compare(results, measured))
    return told, pandas.concat(beside.tables)


def _folder(dataset: Dataset) -> Path | None:
    try:
        return cache.cache_folder(dataset.settings.cache_folder)
    except ValueError:
        return None


def compare(
    results: Mapping[str, Mapping[str, Mapping[str, object]]], floor: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, dict[str, bool | None]]]:
    """Tell which results are above the floor that learned from the same images; see `FloorResult.clears`.

    Classifiers that the training itself made learned from all images.
    """
    return {
        section: {
            probe: {
                split: _above(auroc_of(summary, split), auroc_of(floor.get(probe, floor.get("all", {})), split))
                for split in ("test", "validation")
            }
            for probe, summary in probes.items()
        }
        for section, probes in results.items()
    }


def _above(value: float | None, floor: float | None) -> bool | None:
    return None if value is None or floor is None else value > floor


def auroc_of(summary: Mapping[str, object], split: str) -> float | None:
    """Return the mean AUROC over the draws of a probe, on "test" or "validation"; None where it is not defined."""
    metrics = summary if split == "test" else summary.get(split)
    entry = metrics.get("auroc") if isinstance(metrics, Mapping) else None
    value = entry.get("mean", entry.get("value")) if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
