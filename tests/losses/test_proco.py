"""ProCo against numerical integration and sampling, and its estimates of the classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from loss_cases import FEATURES, unit
from scipy.integrate import quad
from scipy.special import ive
from scipy.stats import vonmises_fisher
from torch import Tensor, nn

from ttc.losses import Batch, build_objective
from ttc.losses.probabilistic import ProCo


def built(dimensions: int, **settings: object) -> ProCo:
    objective = build_objective("proco", class_counts=[60, 40], projection_dim=dimensions, **settings).double()
    assert isinstance(objective, ProCo)
    return objective


def batch_of(z: Tensor, labels: Tensor) -> Batch:
    return Batch(z, labels, z, labels)


def expectation_by_integration(z: np.ndarray, natural: np.ndarray, tau: float) -> float:
    """Return log E exp(z . z' / tau) for z' on the circle, or on the sphere around the mean direction."""
    kappa, mean = float(np.linalg.norm(natural)), natural / np.linalg.norm(natural)
    along, across = float(z @ mean), math.sqrt(max(0.0, 1 - float(z @ mean) ** 2))
    if len(z) == 2:
        exponent: Callable[[float], float] = lambda a: (along * math.cos(a) + across * math.sin(a)) / tau  # noqa: E731
        weight = [quad(lambda a, s=s: math.exp(kappa * (math.cos(a) - 1) + s * exponent(a)), -math.pi, math.pi)[0]
                  for s in (1, 0)]  # fmt: skip
    else:  # the angle around the mean direction integrates to a Bessel function of order 0

        def ring(t: float, share: int) -> float:
            width = share * across * math.sqrt(1 - t * t) / tau
            return math.exp(kappa * (t - 1) + share * along * t / tau + width) * float(ive(0, width))

        weight = [quad(ring, -1, 1, args=(share,), epsabs=0, epsrel=1e-11)[0] for share in (1, 0)]
    return math.log(weight[0] / weight[1])


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("kappa", [0.3, 4.0, 60.0])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_expectation_is_that_of_numerical_integration(dimensions: int, kappa: float, tau: float) -> None:
    rows, means = unit(5, dimensions, seed=1), unit(2, dimensions, seed=2)
    found = built(dimensions, temperature=tau).log_expectations(rows, kappa * means)
    expected = [[expectation_by_integration(z, kappa * m, tau) for m in means.numpy()] for z in rows.numpy()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-8)


def test_the_loss_is_the_contrast_with_many_draws() -> None:
    """In 16 dimensions: -log of the share of the own class's draws, each class weighted by its prior."""
    rows, means, kappas, tau = unit(4, 16, seed=3), unit(2, 16, seed=4), torch.tensor([40.0, 15.0]), 0.5
    objective = built(16, temperature=tau)
    logits = objective.log_expectations(rows, kappas[:, None] * means) + objective.log_prior_K
    drawn = [vonmises_fisher(m, k).rvs(200_000, random_state=0) for m, k in zip(means.numpy(), (40, 15), strict=True)]
    shares = np.stack([p * np.exp(rows.numpy() @ d.T / tau).mean(1) for p, d in zip((0.6, 0.4), drawn, strict=True)], 1)
    np.testing.assert_allclose(logits.log_softmax(1).exp().numpy(), shares / shares.sum(1, keepdims=True), atol=2e-3)


def test_means_run_over_the_epoch_before_and_this_one_with_the_batch() -> None:
    objective, labels = built(4), torch.tensor([0, 0, 0, 1])
    batches = [unit(4, 3, 4, seed=seed) for seed in range(6)]
    seen: list[Tensor] = []
    for step, z in enumerate(batches):
        epoch = step // 2
        objective.on_step(epoch, step)
        used = torch.cat(batches[max(0, 2 * epoch - 2) : step + 1])  # two steps are an epoch
        expected = []
        for label in (0, 1):
            mean = used[labels.repeat(len(used) // 4) == label, 1:].flatten(0, 1).mean(0)
            length = mean.norm()
            expected.append(mean * (4 - length**2) / (1 - length**2))
        torch.testing.assert_close(objective.natural_parameters(batch_of(z, labels)), torch.stack(expected))
        objective(z, labels, features=torch.zeros(4, 3, 2).double())
        objective.after_step(nn.Identity())
        seen.append(objective.rows_K.clone())
    assert [rows.tolist() for rows in seen] == [[6.0, 2.0], [12.0, 4.0]] * 3


def test_evaluation_mode_leaves_the_estimates_alone() -> None:
    objective = built(4).eval()
    objective(unit(4, 3, 4, seed=0), torch.tensor([0, 0, 0, 1]), features=torch.zeros(4, 3, 2).double())
    objective.after_step(nn.Identity())
    assert float(objective.rows_K.sum()) == 0


def test_a_class_not_seen_is_uniform_and_one_row_is_a_point() -> None:
    objective = built(64, feature_dim=FEATURES).float()
    exact = unit(1, 2, 64, seed=0)
    z = exact.float().requires_grad_()
    natural = objective.natural_parameters(batch_of(z, torch.tensor([0])))
    assert float(natural[0].norm()) == pytest.approx(1e5, rel=1e-9)
    assert float(natural[1].norm()) == 0
    found = objective.log_expectations(exact[:, 1], natural)[0]
    # exp(z . z / tau) for the point; the mean over the sphere is I_v(1 / tau) / (1 / tau)^v without its value at 0.
    uniform = math.log(ive(31, 10)) + 10 - 31 * math.log(10) + 31 * math.log(2) + math.lgamma(32)
    assert float(found[0]) == pytest.approx(10, rel=1e-3)
    assert float(found[1]) == pytest.approx(uniform, rel=1e-9)
    loss = objective(z, torch.tensor([0]), features=torch.ones(1, 2, FEATURES))
    loss.backward()
    assert bool(loss.isfinite())
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_without_contrast_it_is_logit_adjusted_cross_entropy() -> None:
    logits = torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 0, 1, 0, 0])
    adjusted = build_objective("logit-adjusted-ce", class_counts=[60, 40]).double()
    found = built(8, alpha=0.0)(unit(7, 3, 8, seed=1), labels, features=logits)
    torch.testing.assert_close(found, adjusted(logits[:, :1], labels))
