"""Which epoch of a fine-tuning run is kept, and how good it is: validation chooses, the test split is used once.

Legend: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ttc.evaluation.elsewhere.measure import Protocol, Scored
from ttc.evaluation.elsewhere.weights import weights_digest
from ttc.evaluation.predictions import prediction_table
from ttc.evaluation.probabilities import classifier_prior, held_at
from ttc.evaluation.probe import evaluation_rows, module_digest, summarise
from ttc.evaluation.split_report import of_validation, scored_rows, split_report
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic.calibrators import Calibrator, fit_calibrator
from ttc.models.pretrained import Pretrained, predict_shared
from ttc.results.clinic.report_card import write_evaluation
from ttc.run.folder import RunFolder
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState

if TYPE_CHECKING:
    import pandas

SELECTORS = ("auroc", "auprc", "balanced_accuracy", "loss")
"""Validation metrics that can choose the epoch; all but the loss are better when higher."""


@dataclass(frozen=True)
class Wanted:
    """How the test split is measured.

    Attributes:
        class_balance: "natural" or "balanced" test split.
        protocol: how.
        columns: further columns, by name and dataset row, in whose parts the test split is measured.
    """

    class_balance: str
    protocol: Protocol
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Selection:
    """Keeps the weights of the epoch that validation likes best, and tells when waiting longer is no use.

    Its memory is `state.extra`, so that it is saved and resumed with the run.

    Attributes:
        state: of the run.
        run: the checkpoint, with the data.
        metric: one of SELECTORS.
        patience: epochs without improvement after which the run ends; 0 for never.
        first_epoch: epochs up to this one do not count against the patience.
        positive_class: the label that AUPRC is about.
        num_workers: processes that decode image files.
    """

    state: TrainingState
    run: Pretrained
    metric: str
    patience: int
    first_epoch: int
    positive_class: int
    num_workers: int

    def epoch_ended(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and return the numbers for the log.

        Every rank must call it, and each gets the same numbers.
        """
        with self.state.evaluated():
            return self._validate()

    def _validate(self) -> dict[str, float]:
        rows = self.run.dataset.indices("val")
        labels = self.run.dataset.labels[rows]
        scores = predict_shared(self.state.network, self.state.objective, self.run, rows, self.num_workers)
        metrics = classification_metrics(labels.numpy(), scores, positive_class=self.positive_class, bootstrap=0)
        names = ("auroc", "balanced_accuracy", *(["auprc"] if "auprc" in metrics else []))
        values = {f"val/{name}": float(metrics[name]["value"]) for name in names}  # type: ignore[literal-required]
        logs = torch.from_numpy(scores).clamp_min(torch.finfo(torch.float64).tiny).log()
        values["val/loss"] = float(torch.nn.functional.nll_loss(logs, labels))
        score, extra = values[f"val/{self.metric}"] * (-1 if self.metric == "loss" else 1), self.state.extra
        if not extra or score > extra["best_score"]:
            best = {"encoder": _copy(self.state.network.encoder), "objective": _copy(self.state.objective)}
            extra |= {"best_score": score, "best_epoch": self.state.epoch, "best": best}
        return {**values, "val/best_epoch": float(extra["best_epoch"])}

    @property
    def exhausted(self) -> bool:
        """Whether the patience has run out."""
        last = max(self.state.extra.get("best_epoch", 0), self.first_epoch)
        return bool(self.patience) and self.state.epoch - last >= self.patience

    def take_best(self) -> None:
        """Give network and objective the weights of the best epoch; the run is over."""
        best = self.state.extra.pop("best")
        self.state.network.encoder.load_state_dict(best["encoder"])
        self.state.objective.load_state_dict(best["objective"])
        self.state.average = None

    def predict(self, split: str, class_balance: str = "natural") -> tuple[Tensor, Scored]:
        """Return rows and scores of a split; every rank must call it."""
        rows = evaluation_rows(self.run.dataset, split, class_balance)
        scores = predict_shared(self.state.network, self.state.objective, self.run, rows, self.num_workers)
        return rows, scored_rows(self.run.dataset, rows, scores)

    def calibrate(self, val: Scored, method: str) -> Calibrator | None:
        """Fit the calibrator of the network as it is on validation."""
        state = self.state
        prior = classifier_prior(state.description, state.objective.state_dict(), state.arguments)
        return fit_calibrator(val.labels_N, val.scores_NK, method, prior)

    def test(
        self, splits: Mapping[str, tuple[Tensor, Scored]], calibrator: Calibrator | None, wanted: Wanted
    ) -> tuple[dict[str, object], pandas.DataFrame]:
        """Measure the scores of the test split.

        Args:
            splits: rows and scores of "val", which chooses thresholds, and of "test".
            calibrator: that validation fitted.
            wanted: what is measured.

        Returns:
            The metrics in the form of linear_eval.py's probes, and the predictions of validation and test by id.
        """
        import pandas

        dataset, tables, made = self.run.dataset, [], None
        for name, (rows, scored) in splits.items():
            made = None if calibrator is None else calibrator(scored.scores_NK, held_at(calibrator, scored.labels_N))
            tables.append(prediction_table(dataset, "own", name, rows, scored.scores_NK, self.positive_class, made))
        (_, val), (rows, test) = splits["val"], splits["test"]
        columns = {name: [cells[row] for row in rows.tolist()] for name, cells in wanted.columns.items()}
        metrics = split_report(test, val, made, wanted.protocol, calibrator, columns)
        metrics |= of_validation(val, calibrator, self.positive_class)
        return {"train_samples": len(dataset.indices("train")), **summarise([metrics])}, pandas.concat(tables)


def write_result(
    selection: Selection,
    reporter: Reporter,
    folder: RunFolder,
    wanted: Wanted,
    frozen: str | None,
) -> None:
    """Test the weights that validation chose; write best.pt, predictions, figures, report card and result.

    Every rank must call it.

    Args:
        selection: of the finished run.
        reporter: of the finished run; its logs are closed.
        folder: the run folder.
        wanted: how the test split is measured.
        frozen: digest of the encoder before the run if it was to stay as it was, else None.

    Raises:
        ValueError: the frozen encoder has changed.
    """
    state, run, best_epoch = selection.state, selection.run, selection.state.extra["best_epoch"]
    selection.take_best()
    splits = {"val": selection.predict("val")}
    calibrator = selection.calibrate(splits["val"][1], wanted.protocol.calibration)
    if calibrator is not None:
        state.extra["calibrator"] = calibrator.plain()
    state.save_copy(folder.path / "checkpoints" / "best.pt")
    encoder_sha256 = module_digest(state.network.encoder)
    if frozen not in (None, encoder_sha256):
        raise ValueError(f"{folder.path}: the frozen encoder has changed; the result is refused")
    splits["test"] = selection.predict("test", wanted.class_balance)
    reporter.progress.close()
    if not reporter.world.main:
        return
    metrics, predictions = selection.test(splits, calibrator, wanted)
    result = {
        "kind": state.kind,
        "method": run.description.method,
        "dataset": run.description.data["name"],
        "seed": run.description.seed,
        "step": run.step,
        "from_scratch": state.arguments["from_scratch"],
        "loss": state.description.method,
        "class_balance": wanted.class_balance,
        "class_names": run.description.class_names,
        "positive_class": selection.positive_class,
        "test_samples": metrics["n"],
        "encoder_sha256": encoder_sha256,
        "weights_sha256": weights_digest(state.network.encoder.state_dict(), state.objective.state_dict()),
        "steps": state.step,
        "epochs": state.epoch,
        "best_epoch": best_epoch,
        "seconds": round(state.elapsed(), 3),
        "probes": {"own": {"classifier": metrics}},
    }
    means = {name: entry["mean"] for name, entry in metrics.items() if isinstance(entry, dict) and "mean" in entry}
    reporter.write({f"test/{name}": mean for name, mean in means.items() if mean is not None})
    reporter.run_log.hparams(folder.settings(), state.latest)
    reporter.run_log.close()
    write_evaluation(folder, result, predictions, state.description, wanted.protocol, state.arguments)


def _copy(part: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in part.state_dict().items()}
