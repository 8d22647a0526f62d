"""Which epoch of a fine-tuning run is kept, and how good it is: validation chooses, the test split is used once.

Legend: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ttc.evaluation.probe import evaluation_rows, groups_of, module_digest, prediction_table, summarise
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinical import clinical_metrics
from ttc.models.pretrained import Pretrained, predict_shared
from ttc.results.metric_tables import format_clinical, format_probes
from ttc.run import ledger
from ttc.run.checkpoint import write_text
from ttc.run.folder import RunFolder
from ttc.run.log import log, save_pr_curves
from ttc.training.reporter import Reporter
from ttc.training.training_state import TrainingState

if TYPE_CHECKING:
    import pandas

SELECTORS = ("auroc", "auprc", "balanced_accuracy", "loss")
"""Validation metrics that can choose the epoch; all but the loss are better when higher."""


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

    def test(
        self, class_balance: str, deploy_prevalence: Sequence[float], bootstrap: int
    ) -> tuple[dict[str, object], pandas.DataFrame]:
        """Measure the network as it is on the test split; every rank must call it.

        Args:
            class_balance: "natural" or "balanced" test split.
            deploy_prevalence: see `clinical_metrics`.
            bootstrap: resamples for the intervals; 0 leaves them out.

        Returns:
            The metrics in the form of linear_eval.py's probes, and the predictions of validation and test by id.
        """
        import pandas

        dataset = self.run.dataset
        splits = {"val": dataset.indices("val"), "test": evaluation_rows(dataset, "test", class_balance)}
        scores = {
            split: predict_shared(self.state.network, self.state.objective, self.run, rows, self.num_workers)
            for split, rows in splits.items()
        }
        metrics = clinical_metrics(
            dataset.labels[splits["test"]].numpy(),
            scores["test"],
            validation=(dataset.labels[splits["val"]].numpy(), scores["val"]),
            groups=groups_of(dataset, splits["test"]),
            positive_class=self.positive_class,
            deploy_prevalence=deploy_prevalence,
            bootstrap=bootstrap,
            seed=self.state.description.seed,
        )
        prediction_tables = [
            prediction_table(dataset, "own", split, rows, scores[split], self.positive_class)
            for split, rows in splits.items()
        ]
        summary = {"train_samples": len(dataset.indices("train")), **summarise([metrics])}
        return summary, pandas.concat(prediction_tables)


def write_result(
    selection: Selection,
    reporter: Reporter,
    folder: RunFolder,
    class_balance: str,
    deploy_prevalence: Sequence[float],
    bootstrap: int,
    frozen: str | None,
) -> None:
    """Test the weights that validation chose, and write best.pt, predictions.csv and result.json.

    Every rank must call it.

    Args:
        selection: of the finished run.
        reporter: of the finished run; its logs are closed.
        folder: the run folder.
        class_balance: "natural" or "balanced" test split.
        deploy_prevalence: see `clinical_metrics`.
        bootstrap: resamples for the intervals.
        frozen: digest of the encoder before the run if it was to stay as it was, else None.

    Raises:
        ValueError: the frozen encoder has changed.
    """
    state, run, best_epoch = selection.state, selection.run, selection.state.extra["best_epoch"]
    selection.take_best()
    state.save_copy(folder.path / "checkpoints" / "best.pt")
    encoder_sha256 = module_digest(state.network.encoder)
    if frozen not in (None, encoder_sha256):
        raise ValueError(f"{folder.path}: the frozen encoder has changed; the result is refused")
    metrics, predictions = selection.test(class_balance, deploy_prevalence, bootstrap)
    reporter.progress.close()
    if not reporter.world.main:
        return
    write_text(folder.path / "predictions.csv", predictions.to_csv(index=False))
    names, positive = run.description.class_names, selection.positive_class
    probes = {"own": {"classifier": metrics}}
    result = {
        "kind": state.kind,
        "method": run.description.method,
        "dataset": run.description.data["name"],
        "seed": run.description.seed,
        "step": run.step,
        "from_scratch": state.arguments["from_scratch"],
        "loss": state.description.method,
        "class_balance": class_balance,
        "class_names": names,
        "positive_class": positive,
        "test_samples": metrics["n"],
        "encoder_sha256": encoder_sha256,
        "steps": state.step,
        "epochs": state.epoch,
        "best_epoch": best_epoch,
        "seconds": round(state.elapsed(), 3),
        "probes": probes,
    }
    for line in format_probes(probes, names[positive]) + format_clinical(probes, deploy_prevalence):
        log.info("%s", line)
    means = {name: entry["mean"] for name, entry in metrics.items() if isinstance(entry, dict) and "mean" in entry}
    reporter.write({f"test/{name}": mean for name, mean in means.items() if mean is not None})
    reporter.run_log.hparams(folder.settings(), state.latest)
    reporter.run_log.close()
    save_pr_curves(folder.path / "tb", predictions, positive)
    folder.save_json("result.json", ledger.complete(result, state.arguments))


def _copy(part: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in part.state_dict().items()}
