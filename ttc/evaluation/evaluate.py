"""Fit heads on the features of a frozen encoder, measure them and keep their predictions.

Legend: N samples, F features, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc.evaluation.decoupled import NATURAL_HEADS, choose_tau, logit_adjusted
from ttc.evaluation.elsewhere.measure import Protocol
from ttc.evaluation.folds import stratified_folds
from ttc.evaluation.heads import Predict, knn_classifier, train_paper_probe
from ttc.evaluation.predictions import prediction_table
from ttc.evaluation.probabilities import classifier_prior, held_at
from ttc.evaluation.probe import FittedProbe, fit_logistic, groups_of, summarise
from ttc.evaluation.split_report import of_validation, scored_rows, split_report
from ttc.metrics.clinic.calibrators import Calibrator, fit_calibrator, shares
from ttc.models.pretrained import Pretrained

if TYPE_CHECKING:
    import pandas

Probabilities = NDArray[np.float64]
"""[N, K]."""

Results = dict[str, dict[str, dict[str, object]]]
"""Metrics by section ("encoder", "knn projection", "own", "floor", ...) and probe."""

Learned = Mapping[str, Sequence[tuple[int, Tensor]]]
"""By probe, the seed of every draw and the rows that are learned from."""


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
        measured: how predictions are measured.
        num_workers: processes that decode image files.
        columns: further columns, by name and dataset row, in whose parts predictions are measured.
        fit_floor: what fits the head "floor" on rows, given those to select with.
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
    measured: Protocol
    num_workers: int
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fit_floor: Callable[[Tensor, Tensor], Predict] | None = None
    tables: list[pandas.DataFrame] = field(default_factory=list)
    heads: dict[str, FittedProbe] = field(default_factory=dict)
    calibrators: dict[str, Calibrator] = field(default_factory=dict)

    def take(self, layer: str, rows: Tensor) -> Tensor:
        """Return the features [n, F] of some of the rows."""
        return self.features[layer][torch.searchsorted(self.rows, rows)]

    def fit(self, head: str, layer: str, train_rows: Tensor, val: Tensor, seed: int) -> Predict:
        """Fit a head on some rows.

        Args:
            head: "linear", "knn", "floor" or one of NATURAL_HEADS.
            layer: whose features.
            train_rows: rows to learn from.
            val: rows to select with; may be empty.
            seed: of the paper's protocol.
        """
        if head == "floor":
            assert self.fit_floor is not None
            return self.fit_floor(train_rows, val)
        features, labels = self.take(layer, train_rows), self.run.dataset.labels
        if head == "knn":
            classes = len(self.run.description.class_names)
            return knn_classifier(features, labels[train_rows], classes, neighbours=self.neighbours, votes=self.votes)
        validation = (self.take(layer, val), labels[val]) if len(val) else None
        if self.protocol == "paper":
            fitted = train_paper_probe(
                self.run, train_rows, validation, layer=layer, seed=seed, num_workers=self.num_workers
            )
        else:
            fitted = fit_logistic(features, labels[train_rows], validation, balanced=head not in NATURAL_HEADS)
        if head == "tau-norm":
            return choose_tau(fitted, validation)
        return logit_adjusted(fitted, self.class_shares(train_rows)) if head == "logit-adjusted" else fitted

    def class_shares(self, rows: Tensor) -> list[float]:
        """Return the share of each class among some rows of the dataset."""
        return list(shares(self.labels(rows), len(self.run.description.class_names)))

    def prior(self, head: str, train_rows: Tensor | None = None) -> list[float] | None:
        """Return the share of each class for which a head is fitted; None for equal shares.

        Args:
            head: "linear", "knn", "floor", "prototype", "own" or one of NATURAL_HEADS.
            train_rows: rows that the head learned from; None for those of the checkpoint.
        """
        if head == "own":
            return classifier_prior(self.run.description, self.run.objective_state, self.run.arguments)
        if head in ("knn", "tau-norm") or (head == "linear" and self.protocol == "paper"):
            assert train_rows is not None
            return self.class_shares(train_rows)
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
            Result of `clinical_metrics`, under "validation" what the same predictor reaches on "val", if it is not
            empty: what a choice between methods or settings may look at; and the "tau" of a decoupled head.
        """
        scores = {split: predict(self.take(layer, rows)) for split, rows in splits.items() if len(rows)}
        if name is not None and layer == "encoder" and isinstance(predict, FittedProbe):
            self.heads[name] = predict
        calibrator = self.calibrate(splits["val"], scores.get("val"), prior)
        made = {
            split: None
            if calibrator is None
            else calibrator(scores_NK, held_at(calibrator, self.labels(splits[split])))
            for split, scores_NK in scores.items()
        }
        if name is not None:
            if calibrator is not None:
                self.calibrators[name] = calibrator
            for split, scores_NK in scores.items():
                self.keep(name, split, splits[split], scores_NK, made[split])
        val, test = splits["val"], splits["test"]
        report = self.report(
            test, scores["test"], val, scores.get("val"), bootstrap=bootstrap, made=made["test"], calibrator=calibrator
        )
        validation = scored_rows(self.run.dataset, val, scores["val"]) if "val" in scores else None
        tau = predict.tau if isinstance(predict, FittedProbe) else None
        chosen = {} if tau is None else {"tau": tau}
        return chosen | report | of_validation(validation, calibrator, self.measured.positive_class)

    def labels(self, rows: Tensor) -> NDArray[np.int64]:
        """Return the labels [N] of some rows of the dataset."""
        return np.asarray(self.run.dataset.labels[rows].numpy())

    def calibrate(self, val: Tensor, scores: Probabilities | None, prior: Sequence[float] | None) -> Calibrator | None:
        """Fit a calibrator on the scores of validation; None where there is none."""
        return None if scores is None else fit_calibrator(self.labels(val), scores, self.measured.calibration, prior)

    def report(
        self,
        rows: Tensor,
        scores: Probabilities,
        val: Tensor,
        val_scores: Probabilities | None,
        *,
        bootstrap: int,
        made: Probabilities | None = None,
        calibrator: Calibrator | None = None,
    ) -> dict[str, object]:
        """Return all metrics of the predictions [N, K] of some rows; thresholds come from those of `val`, if any.

        `made` is what the calibrator makes of the scores, at the shares of the rows' own classes.
        """
        dataset = self.run.dataset
        validation = None if val_scores is None else scored_rows(dataset, val, val_scores)
        columns = {name: [cells[row] for row in rows.tolist()] for name, cells in self.columns.items()}
        protocol = replace(self.measured, bootstrap=bootstrap)
        return split_report(scored_rows(dataset, rows, scores), validation, made, protocol, calibrator, columns)

    def keep(
        self, name: str, split: str, rows: Tensor, scores: Probabilities, made: Probabilities | None
    ) -> pandas.DataFrame:
        """Keep predictions for predictions.csv, and return their table."""
        table = prediction_table(self.run.dataset, name, split, rows, scores, self.measured.positive_class, made)
        self.tables.append(table)
        return table


def section(head: str, layer: str) -> tuple[str, str]:
    """Return the name of a head's part of the result, and what goes before the names of its probes."""
    return (layer, "") if head in ("linear", layer) else (f"{head} {layer}", f"{head} ")


def fit_and_test(
    evaluation: Evaluation,
    heads: Sequence[str],
    layers: Sequence[str],
    splits: Mapping[str, Tensor],
    learned: Learned,
    *,
    seed: int,
    bootstrap: int,
) -> Results:
    """Measure heads that learn from samples on the test rows.

    Predictions are kept of the first draw of each probe on the first layer.

    Args:
        evaluation: features of all rows.
        heads: see `Evaluation.fit`.
        layers: whose features.
        splits: rows of "val" (may be empty) and "test".
        learned: rows to learn from; heads that need the natural shares take those of "all" alone.
        seed: of the first draw.
        bootstrap: draws of the intervals.
    """
    results = Results()
    for head, layer in itertools.product(heads, layers):
        name, prefix = section(head, layer)
        results[name] = {}
        for probe, drawn in learned.items():
            if head in NATURAL_HEADS and probe != "all":
                continue
            draws = []
            for draw, chosen in drawn:
                predict = evaluation.fit(head, layer, chosen, splits["val"], draw)
                kept_as = prefix + probe if layer == layers[0] and draw == seed else None
                prior = evaluation.prior(head, chosen)
                draws.append(evaluation.measure(layer, predict, splits, name=kept_as, bootstrap=bootstrap, prior=prior))
            results[name][probe] = {"train_samples": len(chosen), **summarise(draws)}
    return results


def cross_validate(
    evaluation: Evaluation, heads: Sequence[str], layers: Sequence[str], *, folds: int, seed: int, bootstrap: int
) -> Results:
    """Test every sample once, with a head that learned from other folds; a further fold chooses.

    Predictions are kept of every sample on the first layer. "folds" averages over folds, "pooled" takes the
    predictions of all folds together, which alone has intervals. See `fit_and_test` for the arguments.
    """
    run, rows = evaluation.run, evaluation.rows
    labels, groups = run.dataset.labels[rows].numpy(), groups_of(run.dataset, rows)
    fold_N = torch.from_numpy(stratified_folds(labels, groups, folds, seed))
    results = Results()
    for head, layer in itertools.product(heads, layers):
        name, prefix = section(head, layer)
        scores, measured, learned = np.zeros((len(rows), len(run.description.class_names))), [], []
        made = np.full_like(scores, np.nan)
        for fold in range(folds):
            choosing, tested = fold_N == (fold + 1) % folds, fold_N == fold
            chosen, splits = rows[~choosing & ~tested], {"val": rows[choosing], "test": rows[tested]}
            predict = evaluation.fit(head, layer, chosen, splits["val"], seed)
            prior = evaluation.prior(head, chosen)
            measured.append(evaluation.measure(layer, predict, splits, name=None, bootstrap=0, prior=prior))
            scores[tested.numpy()] = predict(evaluation.take(layer, splits["test"]))
            calibrator = evaluation.calibrate(splits["val"], predict(evaluation.take(layer, splits["val"])), prior)
            if calibrator is not None:
                made[tested.numpy()] = calibrator(scores[tested.numpy()])
            learned.append(len(chosen))
        details = [fold_metrics["details"] for fold_metrics in measured]
        complete = None if np.isnan(made).any() else made
        pooled = evaluation.report(rows, scores, rows[:0], None, bootstrap=bootstrap, made=complete)
        results[name] = {
            "folds": {"train_samples": min(learned), **summarise(measured), "details": details},
            "pooled": {"train_samples": min(learned), **summarise([pooled])},
        }
        if layer == layers[0]:
            evaluation.keep(f"{prefix}folds", "test", rows, scores, complete)["fold"] = fold_N.numpy()
    return results
