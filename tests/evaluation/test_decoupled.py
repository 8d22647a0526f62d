"""Decoupled heads against their definitions: one number at a time, and the known optimum of Gaussian classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ttc.evaluation.decoupled import TAUS, choose_tau, logit_adjusted, tau_normalised
from ttc.evaluation.heads import load_heads, save_heads
from ttc.evaluation.probe import FittedProbe, fit_logistic

Sample = tuple[torch.Tensor, torch.Tensor]


def sample(counts: list[int], seed: int = 0, width: int = 4) -> Sample:
    """Return features around one corner of a simplex per class, and labels."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise + 1.5 * torch.eye(width, dtype=torch.float64)[labels], labels


def natural(counts: list[int]) -> FittedProbe:
    return fit_logistic(*sample(counts), None, balanced=False)


def by_hand(probe: FittedProbe, x: list[float], tau: float) -> list[float]:
    """Return softmax over classes of (w_k x + b_k) / |w_k|^tau, in loops; two classes share their one row."""
    rows = list(zip(probe.weight.tolist(), probe.bias.tolist(), strict=True))
    if len(rows) == 1:
        (weight, bias), rows = rows[0], []
        rows = [([-w / 2 for w in weight], -bias / 2), ([w / 2 for w in weight], bias / 2)]
    logits = []
    for weight, bias in rows:
        value = bias
        for w, v, mean, scale in zip(weight, x, probe.mean.tolist(), probe.scale.tolist(), strict=True):
            value += w * (v - mean) / scale
        logits.append(value / math.sqrt(sum(w * w for w in weight)) ** tau)
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


@pytest.mark.parametrize("counts", [[200, 20], [200, 50, 10]])
@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_a_weight_vector_is_divided_by_its_norm(counts: list[int], tau: float) -> None:
    probe, queries = natural(counts), sample([5] * len(counts), seed=1)[0]
    found = tau_normalised(probe, tau)(queries)
    assert found == pytest.approx(np.array([by_hand(probe, x, tau) for x in queries.tolist()]), abs=1e-12)
    if tau == 0:
        assert found == pytest.approx(probe(queries), abs=1e-12)


def test_it_does_not_matter_where_the_features_have_their_origin() -> None:
    probe, queries = natural([200, 50, 10]), sample([5, 5, 5], seed=1)[0]
    moved = np.arange(4.0)
    bias = probe.bias + (probe.weight / probe.scale) @ moved
    same = FittedProbe(probe.mean + moved, probe.scale, probe.weight, bias, 1.0)
    assert same(queries) == pytest.approx(probe(queries), abs=1e-12)
    assert tau_normalised(same, 0.7)(queries) == pytest.approx(tau_normalised(probe, 0.7)(queries), abs=1e-12)


def test_two_classes_keep_ranks_and_decisions_for_every_exponent() -> None:
    probe, queries = natural([300, 15]), sample([50, 50], seed=1)[0]
    plain = probe(queries)
    for tau in TAUS:
        found = tau_normalised(probe, tau)(queries)
        assert (found[:, 1].argsort() == plain[:, 1].argsort()).all()
        assert (found.argmax(1) == plain.argmax(1)).all()
    assert choose_tau(probe, sample([50, 50], seed=2)).tau == 0.0


def recall_of(decisions: NDArray[np.int64], labels: torch.Tensor) -> float:
    found = []
    for label in sorted(set(labels.tolist())):
        right = [decision == label for decision, true in zip(decisions, labels.tolist(), strict=True) if true == label]
        found.append(sum(right) / len(right))
    return sum(found) / len(found)


def test_validation_chooses_the_exponent() -> None:
    weight, bias = np.diag([3.0, 1.0, 0.2, 0.1])[:3], np.array([2.0, 0.0, -0.5])
    probe, validation = FittedProbe(np.zeros(4), np.ones(4), weight, bias, 1.0), sample([90, 30, 15], seed=3)
    recalls = {tau: recall_of(tau_normalised(probe, tau)(validation[0]).argmax(1), validation[1]) for tau in TAUS}
    chosen = choose_tau(probe, validation)
    assert len(set(recalls.values())) > 3, "the exponent matters here"
    assert chosen.tau == max(recalls, key=lambda tau: (round(recalls[tau], 12), -tau)) > 0
    with pytest.raises(ValueError, match="--head tau-norm chooses its exponent on validation, which has no sample"):
        choose_tau(probe, None)


def test_a_class_without_weights_stays_as_it_is() -> None:
    probe = FittedProbe(np.zeros(2), np.ones(2), np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([5.0, 1.0]), 1.0)
    found = tau_normalised(probe, 1.0)
    assert found.weight.tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert found.bias.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shares", [[0.98, 0.02], [0.9, 0.08, 0.02]])
def test_adjusted_logits_are_those_of_equally_frequent_classes(shares: list[float]) -> None:
    """Classes N(c e_k, I): log p(k | x) is c x_k + log share + a constant, of equal ones it is c x_k."""
    distance, classes = 2.0, len(shares)
    weight, bias = distance * np.eye(classes), np.log(shares)
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    probe = FittedProbe(np.zeros(classes), np.ones(classes), weight, bias, 1.0)
    x = torch.randn(200, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likelihood = np.exp(-0.5 * ((x[:, None] - distance * torch.eye(classes, dtype=torch.float64)) ** 2).sum(2).numpy())
    posterior = likelihood * np.array(shares)
    assert probe(x) == pytest.approx(posterior / posterior.sum(1, keepdims=True), abs=1e-12)
    adjusted = logit_adjusted(probe, shares)
    assert adjusted.tau == 1.0
    assert adjusted(x) == pytest.approx(likelihood / likelihood.sum(1, keepdims=True), abs=1e-12)
    assert logit_adjusted(probe, shares, tau=0.0)(x) == pytest.approx(probe(x), abs=1e-12)


def test_the_fitted_head_decides_where_the_balanced_error_is_smallest() -> None:
    """Classes N(0, 1) and N(2, 1), 2 % of the second: equally frequent ones meet at 1, these at 1 + ln(49) / 2."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(100_000) % 50 == 0).long()
    x = torch.randn(100_000, 1, generator=generator, dtype=torch.float64) + 2.0 * labels[:, None]
    probe = fit_logistic(x, labels, None, balanced=False)
    grid = torch.arange(-1.0, 6.0, 0.001, dtype=torch.float64)[:, None]
    borders = [
        float(grid[(head(grid)[:, 1] >= 0.5).argmax(), 0]) for head in (probe, logit_adjusted(probe, [0.98, 0.02]))
    ]
    assert borders == pytest.approx([1.0 + math.log(49) / 2, 1.0], abs=0.06)


def test_without_class_weights_the_penalised_likelihood_is_stationary() -> None:
    """d/dw: sum (p - y) x + w / C = 0; d/db: sum (p - y) = 0, which balanced weights do not fulfil."""
    features, labels = sample([300, 30])
    for balanced in (False, True):
        probe = fit_logistic(features, labels, None, balanced=balanced)
        residual = probe(features)[:, 1] - labels.numpy()
        x = (features.numpy() - probe.mean) / probe.scale
        assert (abs(residual.sum()) < 1e-2) == (not balanced)
        if not balanced:
            assert residual @ x + probe.weight[0] == pytest.approx(np.zeros(4), abs=0.05)


def test_heads_are_kept_on_disk(tmp_path: Path) -> None:
    probe, queries = natural([200, 20]), sample([5, 5], seed=1)[0]
    heads = {"tau-norm all": tau_normalised(probe, 0.4), "logit-adjusted all": logit_adjusted(probe, [0.9, 0.1])}
    save_heads(tmp_path / "heads.pt", heads, ["a", "b"], 1, encoder_sha256="0")
    for name, head in load_heads(tmp_path / "heads.pt").heads.items():
        assert (head(queries) == heads[name](queries)).all()
