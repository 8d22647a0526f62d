"""All that is measured of a head on a split, a probe or a fine-tuned network: samples, groups, subgroups.

Legend: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttc.datasets import Dataset
from ttc.evaluation.elsewhere.measure import Protocol, Scored, per_group_metrics, subgroups
from ttc.evaluation.probe import groups_of
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic.calibrators import Calibrator


def scored_rows(dataset: Dataset, rows: Tensor, scores_NK: NDArray[np.float64]) -> Scored:
    """Return the scores of some rows of the data with their labels, groups and ids."""
    labels_N = np.asarray(dataset.labels[rows].numpy())
    return Scored(labels_N, scores_NK, groups_of(dataset, rows), [dataset.ids[row] for row in rows.tolist()])


def split_report(
    samples: Scored,
    validation: Scored | None,
    made_NK: NDArray[np.float64] | None,
    protocol: Protocol,
    calibrator: Calibrator | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, object]:
    """Measure a split.

    Args:
        samples: of the split.
        validation: chooses thresholds, and fits the calibrator of groups; None where there is none.
        made_NK: what a calibrator makes of the scores, at the shares of the samples' own classes; None without one.
        protocol: how.
        calibrator: that made them.
        columns: name -> cell of each sample, whose values make subgroups.

    Returns:
        Result of `clinical_metrics`, with "per_group" (the same of one score per group) if the protocol asks for it,
        and "subgroups" in "details" if there are columns.
    """
    report = protocol.metrics(samples, validation, made_NK, None)
    if protocol.per_group is not None:
        report["per_group"] = per_group_metrics(samples, validation, protocol, calibrator)
    if columns:
        details = report["details"]
        assert isinstance(details, dict)
        threshold = details["thresholds"]["youden"] if "thresholds" in details else None
        details["subgroups"] = subgroups(samples, made_NK, columns, threshold, protocol.positive_class)
    return report


def of_validation(validation: Scored | None, calibrator: Calibrator | None, positive_class: int) -> dict[str, object]:
    """Return what validation fitted ("calibrator") and what the head reaches there ("validation", if there is one).

    The second is what a choice between methods or settings may look at.
    """
    entries: dict[str, object] = {
        "calibrator": None if calibrator is None else {"kind": calibrator.kind, "slope": calibrator.slope}
    }
    if validation is not None:
        found = classification_metrics(
            validation.labels_N, validation.scores_NK, positive_class=positive_class, bootstrap=0
        )
        kept = ("n", "balanced_accuracy", "auroc")
        entries["validation"] = {key: found[key] for key in kept}  # type: ignore[literal-required]
    return entries
