"""Fit heads on the features of a frozen encoder, measure them and keep their predictions.

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc.evaluation.elsewhere.measure import Protocol, Scored, per_group_metrics, subgroups
from ttc.evaluation.heads import Predict, knn_classifier, train_paper_probe
from ttc.evaluation.predictions import prediction_table
from ttc.evaluation.probabilities import classifier_prior, held_at
from ttc.evaluation.probe import FittedProbe, fit_logistic, groups_of
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic.calibrators import Calibrator, fit_calibrator, shares
from ttc.metrics.clinical import DECISION_THRESHOLDS
from ttc.models.pretrained import Pretrained

if TYPE_CHECKING:
    import pandas

Probabilities = NDArray[np.float64]
"""[N, K]."""


@dataclass(frozen=True)
class Evaluation:
    """What all heads of one evaluation share.

    Attributes:
        run: the checkpoint.
        rows: [N] int64, ascending.
        features: layer -> [N, F] features of `rows`.
        protocol: "logistic" or "paper", for the linear head.
        neighbours: of the knn head.
        votes: of the knn head, see `knn_classifier`.
        positive_class: the class that the metrics are about.
        deploy_prevalence: see `clinical_metrics`.
        seed: of the bootstrap.
        num_workers: processes that decode image files.
        calibration: of `calibrators.METHODS`.
        decision_thresholds: see `clinical_metrics`.
        per_group: "mean" or "max" evaluates one score per group too; None does not.
        group_label: when a group is positive, "any" or "all".
        columns: further columns, by name and dataset row, in whose parts predictions are measured.
        tables: predictions that are kept.
        heads: linear heads on the encoder whose predictions are kept.
        calibrators: of all heads whose predictions are kept, where validation could fit one.
    """

    run: Pretrained
    rows: Tensor
    features: Mapping[str, Tensor]
    protocol: str
    neighbours: int | None
    votes: str
    positive_class: int
    deploy_prevalence: Sequence[float]
    seed: int
    num_workers: int
    calibration: str = "auto"
    decision_thresholds: Sequence[float] = DECISION_THRESHOLDS
    per_group: str | None = None
    group_label: str = "any"
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tables: list[pandas.DataFrame] = field(default_factory=list)
    heads: dict[str, FittedProbe] = field(default_factory=dict)
    calibrators: dict[str, Calibrator] = field(default_factory=dict)

    def take(self, layer: str, wanted: Tensor) -> Tensor:
        """Return the features [n, F] of some of the rows."""
        return self.features[layer][torch.searchsorted(self.rows, wanted)]

    def fit(self, head: str, layer: str, chosen: Tensor, val: Tensor, seed: int) -> Predict:
        """Fit a head on the chosen rows.

        Args:
            head: "linear" or "knn".
            layer: whose features.
            chosen: rows to learn from.
            val: rows to select with; may be empty.
            seed: of the paper's protocol.
        """
        known, labels = self.take(layer, chosen), self.run.dataset.labels
        if head == "knn":
            classes = len(self.run.description.class_names)
            return knn_classifier(known, labels[chosen], classes, neighbours=self.neighbours, votes=self.votes)
        validation = (self.take(layer, val), labels[val]) if len(val) else None
        if self.protocol == "paper":
            return train_paper_probe(self.run, chosen, validation, layer=layer, seed=seed, num_workers=self.num_workers)
        return fit_logistic(known, labels[chosen], validation)

    def prior(self, head: str, chosen: Tensor | None = None) -> list[float] | None:
        """Return the share of each class for which a head is fitted; None for equal shares.

        Args:
            head: "linear", "knn", "prototype" or "own".
            chosen: rows that a linear or knn head learned from.
        """
        if head == "own":
            return classifier_prior(self.run.description, self.run.objective_state, self.run.arguments)
        if head == "knn" or (head == "linear" and self.protocol == "paper"):
            assert chosen is not None
            return list(shares(self.run.dataset.labels[chosen].numpy(), len(self.run.description.class_names)))
        return None

    def measure(
        self,
        layer: str,
        predict: Predict,
        splits: Mapping[str, Tensor],
        *,
        name: str | None,
        bootstrap: int,
        prior: Sequence[float] | None = None,
    ) -> dict[str, object]:
        """Measure the predictions on split "test".

        Args:
            layer: whose features.
            predict: the fitted head.
            splits: rows of "val" (may be empty), which chooses thresholds and fits the calibrator, and of "test".
            name: keep the predictions of all splits under this name; None keeps none.
            bootstrap: draws of the intervals.
            prior: see `prior`.

        Returns:
            Result of `clinical_metrics`, and under "validation" what the same predictor reaches on "val", if it is not
            empty: what a choice between methods or settings may look at.
        """
        scores = {split: predict(self.take(layer, wanted)) for split, wanted in splits.items() if len(wanted)}
        if name is not None and layer == "encoder" and isinstance(predict, FittedProbe):
            self.heads[name] = predict
        calibrator = self.calibrate(splits["val"], scores.get("val"), prior)
        made = {
            split: None if calibrator is None else calibrator(each, held_at(calibrator, self.labels(splits[split])))
            for split, each in scores.items()
        }
        if name is not None:
            if calibrator is not None:
                self.calibrators[name] = calibrator
            for split, each in scores.items():
                self.keep(name, split, splits[split], each, made[split])
        report = self.report(
            splits["test"], scores["test"], splits["val"], scores.get("val"), bootstrap=bootstrap, made=made["test"]
        )
        report["calibrator"] = None if calibrator is None else {"kind": calibrator.kind, "slope": calibrator.slope}
        if "val" in scores:
            labels = self.run.dataset.labels[splits["val"]].numpy()
            found = classification_metrics(labels, scores["val"], positive_class=self.positive_class, bootstrap=0)
            kept = ("n", "balanced_accuracy", "auroc")
            report["validation"] = {key: found[key] for key in kept}  # type: ignore[literal-required]
        return report

    def labels(self, rows: Tensor) -> NDArray[np.int64]:
        """Return the labels [N] of some rows of the dataset."""
        return np.asarray(self.run.dataset.labels[rows].numpy())

    def calibrate(self, val: Tensor, scores: Probabilities | None, prior: Sequence[float] | None) -> Calibrator | None:
        """Fit a calibrator on the scores of validation; None where there is none."""
        return None if scores is None else fit_calibrator(self.labels(val), scores, self.calibration, prior)

    def report(
        self,
        rows: Tensor,
        scores: Probabilities,
        val: Tensor,
        val_scores: Probabilities | None,
        *,
        bootstrap: int,
        made: Probabilities | None = None,
    ) -> dict[str, object]:
        """Return all metrics of the predictions [N, K] of some rows; thresholds come from those of `val`, if any.

        `made` is what a calibrator makes of the scores, at the shares of the rows' own classes.
        """
        protocol = Protocol(
            self.positive_class,
            self.deploy_prevalence,
            self.decision_thresholds,
            bootstrap,
            self.seed,
            self.calibration,
            self.per_group,
            self.group_label,
        )
        samples = self.scored(rows, scores)
        validation = None if val_scores is None else self.scored(val, val_scores)
        report = protocol.metrics(samples, validation, made, None)
        if self.per_group is not None:
            report["per_group"] = per_group_metrics(samples, validation, protocol)
        if self.columns:
            details = report["details"]
            assert isinstance(details, dict)
            columns = {name: [cells[row] for row in rows.tolist()] for name, cells in self.columns.items()}
            threshold = details["thresholds"]["youden"] if "thresholds" in details else None
            details["subgroups"] = subgroups(samples, made, columns, threshold, self.positive_class)
        return report

    def scored(self, rows: Tensor, scores: Probabilities) -> Scored:
        """Return the scores [N, K] of some rows with their labels, groups and ids."""
        dataset = self.run.dataset
        return Scored(self.labels(rows), scores, groups_of(dataset, rows), [dataset.ids[row] for row in rows.tolist()])

    def keep(
        self, name: str, split: str, rows: Tensor, scores: Probabilities, made: Probabilities | None
    ) -> pandas.DataFrame:
        """Keep predictions for predictions.csv, and return their table."""
        table = prediction_table(self.run.dataset, name, split, rows, scores, self.positive_class, made)
        self.tables.append(table)
        return table
