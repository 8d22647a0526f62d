"""Probabilities of every kind of head where the true ones are known: probes, own and fine-tuned classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from tests.upgrade.test_upgrade import HERE as UPGRADES
from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing
from ttc.evaluation.elsewhere.measure import Protocol, Scored, per_group_metrics, validation_groups
from ttc.evaluation.evaluate import Evaluation
from ttc.evaluation.heads import Heads, load_heads, save_heads
from ttc.evaluation.probabilities import classifier_prior, deploy_shares, held_at
from ttc.evaluation.probe import FittedProbe, fit_logistic
from ttc.losses import build_objective
from ttc.metrics.calibration import calibration_statistics
from ttc.metrics.clinic.calibrators import Calibrator, fit_calibrator
from ttc.models.description import Description


def draw(seed: int, n: int, prevalence: float) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return features of two normal classes, labels and the true probabilities."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < prevalence).astype(np.int64)
    features = generator.normal(labels[:, None] * np.array([1.6, 0.8, 0.0]), 1.0)
    truth = expit(features @ [1.6, 0.8, 0.0] - (1.6**2 + 0.8**2) / 2 + logit(prevalence))
    return torch.from_numpy(features), labels, truth


def described(counts: list[int], minority: int = 1) -> Description:
    """Return a description of which only the counts matter."""
    nothing = Preprocessing("memory", Decoding(1, 1), 1, 1.0, (0.0,), (1.0,))
    return Description("ce", {}, {}, None, {}, ["0", "1"], counts, minority, nothing, {}, "", 0)


def classifier(method: str, balanced: bool, prevalence: float):
    """Train the classifier of an objective on drawn features; return predict and the share that it was fitted for."""
    features, labels, _ = draw(0, 6000, prevalence)
    counts = np.bincount(labels).tolist()
    drawn = [3000, 3000] if balanced else counts
    objective = build_objective(method, num_classes=2, class_counts=drawn, feature_dim=3, seed=0)
    chosen = np.arange(6000)
    if balanced:
        chosen = np.concatenate([np.resize(np.flatnonzero(labels == label), 3000) for label in (0, 1)])
    rows, targets = features[chosen].float(), torch.from_numpy(labels[chosen])
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=60)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(rows[:, None], targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    arguments = {"batch_sampler": "balanced" if balanced else "shuffle", "min_minority_per_batch": 0, "batch_size": 64}
    prior = classifier_prior(described(counts), objective.state_dict(), arguments)

    def predict(queries: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return objective.classifier(queries.float()).double().softmax(1).numpy()

    return predict, prior


HEADS = ["probe", *(f"{method} {batches}" for method in ("ce", "weighted-ce", "logit-adjusted-ce")
                    for batches in ("natural", "balanced"))]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prevalence", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("method", ["auto", "prior"])
def test_every_head_gives_the_true_probabilities(head: str, prevalence: float, method: str) -> None:
    if head == "probe":
        features, labels, _ = draw(0, 6000, prevalence)
        predict, prior = fit_logistic(features, torch.from_numpy(labels), None), None
    else:
        name, batches = head.split()
        predict, prior = classifier(name, batches == "balanced", prevalence)
    known, known_labels, _ = draw(1, 4000, prevalence)
    queries, labels, truth = draw(2, 20000, prevalence)
    calibrator = fit_calibrator(known_labels, predict(known), method, prior)
    scores = predict(queries)
    found = calibrator(scores, held_at(calibrator, labels))
    assert calibrator.kind == ("platt" if method == "auto" else "prior")
    assert calibration_statistics(labels, found)(np.ones((1, len(labels))))["ece"][0] <= 0.02
    assert abs(found[:, 1].mean() - labels.mean()) <= 0.01
    assert np.abs(found[:, 1] - truth).mean() <= 0.015
    assert roc_auc_score(labels, found[:, 1]) == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)


def test_a_head_knows_for_which_shares_it_was_fitted() -> None:
    plain, state = described([90, 10]), {}
    weighted = {"class_weights_K": torch.tensor([0.1, 0.9], dtype=torch.float64)}
    shifted = {"log_prior_K": torch.tensor([0.9, 0.1], dtype=torch.float64).log()}
    for objective, arguments, expected in (
        (state, {}, 0.1),
        (state, {"batch_sampler": "balanced"}, 0.5),
        (state, {"batch_sampler": "shuffle", "min_minority_per_batch": 16, "batch_size": 64}, 0.25),
        (state, {"batch_sampler": "shuffle", "min_minority_per_batch": 2, "batch_size": 64}, 0.1),
        (weighted, {"batch_sampler": "shuffle"}, 0.5),
        (weighted, {"batch_sampler": "balanced"}, 0.9),
        (shifted, {"batch_sampler": "stratified"}, 0.5),
    ):
        assert classifier_prior(plain, objective, arguments) == pytest.approx([1 - expected, expected])
    labels = torch.tensor([0] * 30 + [1] * 10)
    run = SimpleNamespace(dataset=SimpleNamespace(labels=labels), description=plain, objective_state={}, arguments={})
    fields = {"neighbours": None, "votes": "equal", "measured": Protocol(1, (), (), 0, 0)}
    for protocol, head, prior in (
        ("logistic", "linear", None), ("paper", "linear", [0.75, 0.25]), ("logistic", "knn", [0.75, 0.25]),
        ("logistic", "prototype", None), ("logistic", "own", [0.9, 0.1]),
    ):  # fmt: skip
        evaluation = Evaluation(run, labels, {}, protocol=protocol, num_workers=0, **fields)  # type: ignore[arg-type]
        assert evaluation.prior(head, torch.arange(40)) == prior


def test_new_images_come_from_the_source_data_unless_it_is_said() -> None:
    calibrator = Calibrator("prior", 1.0, (0.0, 0.0), (0.8, 0.2))
    natural = [950, 50]
    assert deploy_shares(natural, calibrator, None, 1) == ((0.95, 0.05), "the source data")
    assert deploy_shares(None, calibrator, None, 1) == ((0.8, 0.2), "validation")
    assert deploy_shares(natural, calibrator, 0.01, 1) == ((0.99, 0.01), "--deploy-prevalence")
    assert deploy_shares(natural, calibrator, 0.01, 0) == ((0.01, 0.99), "--deploy-prevalence")
    assert held_at(calibrator, np.array([0, 0, 0, 1])) == (0.75, 0.25)
    assert held_at(calibrator, np.array([0, 0])) == (0.8, 0.2)


def test_heads_files_keep_calibrators_and_old_ones_have_none(tmp_path: Path) -> None:
    probe = FittedProbe(np.zeros(3), np.ones(3), np.ones((1, 3)), np.zeros(1), strength=1.0)
    calibrators = {
        "all": Calibrator("platt", 0.7, (0.0, -2.5), (0.9, 0.1)),
        "own": Calibrator("isotonic", 1.0, (0.0, 0.0), (0.9, 0.1), ((-1.0, 0.01), (2.0, 0.6))),
    }
    path = tmp_path / "heads.pt"
    save_heads(path, {"all": probe}, ["healthy", "ill"], 1, encoder_sha256="0", calibrators=calibrators)
    assert load_heads(path).calibrators == calibrators
    wrong = {"all": Calibrator("prior", 1.0, (0.0, 0.0, 0.0), (0.8, 0.1, 0.1))}
    save_heads(path, {"all": probe}, ["healthy", "ill"], 1, encoder_sha256="0", calibrators=wrong)
    with pytest.raises(ValueError, match="calibrator of other than 2 classes"):
        load_heads(path)
    old: Heads = load_heads(UPGRADES / "93a57da" / "finished" / "linear_eval" / "heads.pt")
    assert (sorted(old.heads), old.calibrators) == (["all", "fraction", "minority"], {})


@pytest.mark.parametrize("method", ["platt", "prior"])
def test_groups_of_one_sample_have_the_probabilities_of_samples(method: str) -> None:
    """Their calibrator starts from the shares that the head was fitted for; frozen ones ignore the new labels."""
    labels = np.arange(200) % 10 == 0
    scores = expit(np.random.default_rng(0).normal(labels * 1.5 - 2.0))
    both, labels = np.stack([1 - scores, scores], axis=1), labels.astype(np.int64)
    calibrator = fit_calibrator(labels, both, method, [0.9, 0.1])
    names = [f"patient {number}" for number in range(200)]
    samples, protocol = Scored(labels, both, names, names), Protocol(1, (), (0.1,), 0, 0, method, "mean")
    validation, fitted = validation_groups(samples, protocol, calibrator)
    assert fitted == calibrator
    assert validation is not None
    assert (validation.scores_NK == both).all()
    kept = np.concatenate([np.flatnonzero(labels), np.flatnonzero(1 - labels)[:20]])
    fewer = Scored(labels[kept], both[kept], [names[row] for row in kept], [names[row] for row in kept])
    frozen = per_group_metrics(fewer, samples, protocol, calibrator, frozen=True)
    assert frozen["details"]["calibrated_at"] == [0.9, 0.1]
    moved = per_group_metrics(fewer, samples, replace(protocol, deploy_prevalence=(0.3,)), calibrator, frozen=True)
    assert moved["details"]["calibrated_at"] == [0.7, 0.3]
    assert per_group_metrics(fewer, samples, protocol, calibrator)["details"]["calibrated_at"] == [0.5, 0.5]
