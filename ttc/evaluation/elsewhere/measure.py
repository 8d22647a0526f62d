"""A frozen head on other data: its metrics there, those on the run's own test split, and the difference.

Shape suffixes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttc.evaluation.predictions import read_predictions_table
from ttc.metrics import calibration
from ttc.metrics.clinic.calibrators import Calibrator, binary, fit_calibrator, shares
from ttc.metrics.clinic.independent import difference, recalibrate_in_the_large
from ttc.metrics.clinic.per_group import pool_groups
from ttc.metrics.clinic.subgroups import subgroup_table
from ttc.metrics.clinical import clinical_metrics
from ttc.metrics.intervals import Estimate, bootstrap, estimate, numbered

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float64]

COMPARED = (
    "auroc",
    "auprc",
    "balanced_accuracy",
    "operating_points/youden/sensitivity",
    "operating_points/youden/specificity",
    "operating_points/youden/ppv",
    "operating_points/youden/npv",
    "brier",
    "calibration/after/brier",
    "calibration/after/intercept",
    "calibration/after/slope",
)
"""What is compared, as paths into the metrics."""


@dataclass(frozen=True)
class Scored:
    """Scores of labelled samples.

    Attributes:
        labels_N: [N] classes.
        scores_NK: [N, K] raw class probabilities of a head.
        groups: of each sample, or None.
        ids: of each sample.
    """

    labels_N: NDArray[np.int64]
    scores_NK: Floats
    groups: list[str] | None
    ids: list[str]

    def per_group(self, pool: str, group_label: str, positive_class: int) -> Scored:
        """Return one score per group."""
        if self.groups is None:
            raise ValueError("--per-group needs groups, the data have none; name their column with --group-column")
        labels_G, scores_GK, names = pool_groups(
            self.labels_N, self.scores_NK, self.groups, pool, group_label, positive_class
        )
        return Scored(labels_G, scores_GK, None, names)


@dataclass(frozen=True)
class Protocol:
    """How samples are evaluated.

    Attributes:
        positive_class: the class that the metrics are about.
        deploy_prevalence: shares of the positive class for which predictive values are given too.
        decision_thresholds: see `clinical_metrics`.
        bootstrap: draws.
        seed: of the draws.
        calibration: method of the calibrator of scores per group, which is fitted on validation.
        per_group: "mean", "max" or None.
        group_label: "any" or "all".
    """

    positive_class: int
    deploy_prevalence: Sequence[float]
    decision_thresholds: Sequence[float]
    bootstrap: int
    seed: int
    calibration: str = "auto"
    per_group: str | None = None
    group_label: str = "any"

    @property
    def pooling(self) -> tuple[str, str, int]:
        """The last arguments of `pool_groups`."""
        assert self.per_group is not None
        return self.per_group, self.group_label, self.positive_class

    def metrics(
        self, samples: Scored, validation: Scored | None, made_NK: Floats | None, held: Sequence[float] | None
    ) -> dict[str, object]:
        """Return all metrics of samples, at the thresholds that validation chooses."""
        return clinical_metrics(
            samples.labels_N,
            samples.scores_NK,
            validation=None if validation is None else (validation.labels_N, validation.scores_NK),
            calibrated=made_NK,
            calibrated_at=held,
            groups=samples.groups,
            positive_class=self.positive_class,
            deploy_prevalence=self.deploy_prevalence,
            decision_thresholds=self.decision_thresholds,
            bootstrap=self.bootstrap,
            seed=self.seed,
        )


def read_scored(path: Path, probe: str, positive_class: int, within: Path | None = None) -> dict[str, Scored]:
    """Read the predictions of a probe in a predictions.csv: split -> scores; empty where there are none."""
    table = read_predictions_table(path, within) if path.is_file() else None
    if table is None or "probe" not in table:
        return {}
    predictions = table[table["probe"] == probe]
    return {str(split): _scored(rows, positive_class) for split, rows in predictions.groupby("split", sort=False)}


def _scored(rows: pandas.DataFrame, positive_class: int) -> Scored:
    if "score" in rows:
        scores_N = np.minimum(rows["score"].to_numpy(np.float64), 1.0)
        scores_NK = np.empty((len(rows), 2))
        scores_NK[:, positive_class], scores_NK[:, 1 - positive_class] = scores_N, 1.0 - scores_N
    else:
        names = sorted((name for name in rows if name.startswith("score_")), key=lambda name: int(name[6:]))
        scores_NK = rows[names].to_numpy(np.float64)
    groups = rows["group"].tolist() if "group" in rows else []
    return Scored(rows["label"].to_numpy(np.int64), scores_NK, groups if any(groups) else None, rows["id"].tolist())


def evaluate_elsewhere(
    other: Scored,
    kept: Mapping[str, Scored],
    calibrator: Calibrator | None,
    held: Sequence[float] | None,
    protocol: Protocol,
) -> dict[str, dict[str, object]]:
    """Evaluate a frozen head on other data, and on the run's own test split beside it.

    Args:
        other: the other data.
        kept: split -> scores of the run, "val" and "test"; either may be missing.
        calibrator: frozen in the head, or None.
        held: share of each class at which the frozen probabilities are stated; None for those of validation.
        protocol: how the samples are evaluated.

    Returns:
        "external", "internal" (or empty) and "difference" (external minus internal, of independent samples, by path;
        empty without internal). "external" holds, beside the metrics, "calibration/in_the_large": the calibration
        after new intercepts, fitted on these very labels; and "per_group", if asked for.
    """
    classes = other.scores_NK.shape[1]
    stated = None if calibrator is None else tuple(held or calibrator.prevalence)
    made_NK = None if calibrator is None else calibrator(other.scores_NK, stated)
    validation, test = kept.get("val"), kept.get("test")
    external = protocol.metrics(other, validation, made_NK, stated)
    _add_in_the_large(external, other, made_NK, protocol)
    internal: dict[str, object] = {}
    if test is not None:
        test_shares = shares(test.labels_N, classes)
        test_held = test_shares if all(test_shares) else None
        made_test = None if calibrator is None else calibrator(test.scores_NK, test_held)
        internal = protocol.metrics(test, validation, made_test, test_held if calibrator is not None else None)
    if protocol.per_group is not None:
        external["per_group"] = per_group_metrics(other, validation, protocol, calibrator, frozen=True)
        if test is not None and test.groups is not None:
            internal["per_group"] = per_group_metrics(test, validation, protocol, calibrator)
    return {"external": external, "internal": internal, "difference": _differences(external, internal)}


def per_group_metrics(
    samples: Scored, validation: Scored | None, protocol: Protocol, calibrator: Calibrator | None, frozen: bool = False
) -> dict[str, object]:
    """Return all metrics of one score per group; thresholds and calibrator are chosen on validation's groups.

    Args:
        samples: with groups.
        validation: None, or without groups, leaves thresholds and calibrator out.
        protocol: with `per_group`.
        calibrator: of single samples; without it groups have none either.
        frozen: probabilities are stated at the first deploy prevalence, or that of validation's groups, whatever the
            groups here are; else at the groups' own shares.
    """
    pooled = samples.per_group(*protocol.pooling)
    val_groups, fitted = validation_groups(validation, protocol, calibrator)
    made_GK, held = None, None
    if fitted is not None:
        group_shares = shares(pooled.labels_N, pooled.scores_NK.shape[1])
        held = fitted.prevalence if frozen or not all(group_shares) else group_shares
        if frozen and protocol.deploy_prevalence:
            held = binary(protocol.deploy_prevalence[0], protocol.positive_class)
        made_GK = fitted(pooled.scores_NK, held)
    metrics = protocol.metrics(pooled, val_groups, made_GK, held)
    fields = None if fitted is None else {"kind": fitted.kind, "slope": fitted.slope}
    return {**metrics, "pool": protocol.per_group, "group_label": protocol.group_label, "calibrator": fields}


def validation_groups(
    validation: Scored | None, protocol: Protocol, calibrator: Calibrator | None
) -> tuple[Scored | None, Calibrator | None]:
    """Return validation with one score per group, and the calibrator that fits it; see `per_group_metrics`.

    Groups are too few for isotonic regression.
    """
    if validation is None or validation.groups is None:
        return None, None
    groups = validation.per_group(*protocol.pooling)
    if calibrator is None:
        return groups, None
    method = "auto" if protocol.calibration == "isotonic" else protocol.calibration
    return groups, fit_calibrator(groups.labels_N, groups.scores_NK, method, calibrator.prior or None)


def _add_in_the_large(external: dict[str, object], other: Scored, made_NK: Floats | None, protocol: Protocol) -> None:
    """Put the calibration after a new intercept beside the frozen one."""
    mended_NK = None if made_NK is None else recalibrate_in_the_large(other.labels_N, made_NK)
    labels_N = other.labels_N
    groups_N = numbered(other.groups, len(labels_N))
    sections = external["calibration"]
    details = external["details"]
    assert isinstance(sections, dict)
    assert isinstance(details, dict)
    details["reliability_in_the_large"] = None if mended_NK is None else calibration.reliability(labels_N, mended_NK)
    if mended_NK is None:
        sections["in_the_large"] = None
        return
    measure = calibration.calibration_statistics(labels_N, mended_NK)
    draws = bootstrap(measure, labels_N, protocol.bootstrap, protocol.seed, groups_N)
    values = measure(np.ones((1, len(labels_N))))
    estimates: dict[str, Estimate] = {
        name: estimate(float(value[0]), None if name == "ece" else draws.get(name)) for name, value in values.items()
    }
    if mended_NK.shape[1] == 2 and protocol.positive_class == 0:
        labels_N, mended_NK = 1 - labels_N, mended_NK[:, ::-1]
    sections["in_the_large"] = {**estimates, **calibration.intercept_and_slope(labels_N, mended_NK, groups_N)}


def _differences(external: Mapping[str, object], internal: Mapping[str, object]) -> dict[str, object]:
    """Return external minus internal, for the paths of COMPARED that both have."""
    out: dict[str, object] = {}
    for path in COMPARED if internal else ():
        internal_estimate, external_estimate = at_path(internal, path), at_path(external, path)
        if internal_estimate is not None and external_estimate is not None:
            *folders, name = path.split("/")
            inner: dict[str, object] = out
            for folder in folders:
                inner = inner.setdefault(folder, {})  # type: ignore[assignment]  # folders hold dicts only
            inner[name] = difference(external_estimate, internal_estimate)
    return out


def at_path(metrics: Mapping[str, object], path: str) -> Estimate | None:
    """Return the estimate that a path such as "calibration/after/slope" leads to, or None."""
    entry: object = metrics
    for step in path.split("/"):
        entry = entry.get(step) if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping):
        return None
    value = entry.get("value", entry.get("mean"))
    return {"value": value, "low": entry.get("low"), "high": entry.get("high")}


def check_subgroups(columns: Collection[str], classes: int) -> None:
    """Refuse --subgroup-columns for more than two classes."""
    if columns and classes != 2:
        raise ValueError("--subgroup-columns is for two classes; group them with --classes, or leave it out")


def subgroups(
    samples: Scored,
    made_NK: Floats | None,
    columns: Mapping[str, Sequence[str]],
    threshold: float | None,
    positive_class: int,
) -> dict[str, object]:
    """Return `subgroup_table` of every column, for two classes."""
    check_subgroups(columns, samples.scores_NK.shape[1])
    return {
        name: subgroup_table(
            samples.labels_N == positive_class,
            samples.scores_NK[:, positive_class],
            None if made_NK is None else made_NK[:, positive_class],
            values,
            threshold,
            samples.groups,
        )
        for name, values in columns.items()
    }
