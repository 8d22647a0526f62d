"""The Bessel functions of ProCo against SciPy, closed forms and their own recurrence, with gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln, ive

from ttc.losses.probabilistic import log_bessel

ORDERS = (0.0, 0.5, 1.0, 2.5, 3.0, 14.0, 29.0, 30.5, 31.0, 63.0, 127.5, 255.0, 511.0, 1023.0)
KAPPAS = np.logspace(-6, 6, 241)


def value_and_ratio(order: float, kappas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log( I_v(k) / k^v ) and I_{v+1}(k) / (k I_v(k)), from the value's gradient."""
    squared = torch.tensor(kappas**2, dtype=torch.float64, requires_grad=True)
    values = log_bessel(squared, order)
    (slope,) = torch.autograd.grad(values.sum(), squared)
    return values.detach().numpy(), 2 * slope.numpy()


@pytest.mark.parametrize("order", ORDERS)
def test_values_and_gradients_are_those_of_scipy(order: float) -> None:
    scaled, following = ive(order, KAPPAS), ive(order + 1, KAPPAS)
    fits = (np.minimum(scaled, following) > 1e-280) & np.isfinite(scaled)  # SciPy's underflow for small arguments
    assert fits.sum() >= 50
    kappas, scaled, following = KAPPAS[fits], scaled[fits], following[fits]
    values, ratios = value_and_ratio(order, kappas)
    expected = np.log(scaled) + kappas - order * np.log(kappas)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=2e-12)
    np.testing.assert_allclose(ratios, following / (kappas * scaled), rtol=2e-12)


def test_three_dimensions_have_a_closed_form() -> None:
    # I_{1/2}(k) = sqrt(2 / (pi k)) sinh k, and I_{3/2} / I_{1/2} = coth k - 1 / k.
    values, ratios = value_and_ratio(0.5, kappas := np.logspace(-1, 4, 60))
    log_sinh = kappas + np.log(-np.expm1(-2 * kappas)) - math.log(2)
    np.testing.assert_allclose(values, 0.5 * math.log(2 / math.pi) - np.log(kappas) + log_sinh, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(ratios, (1 / np.tanh(kappas) - 1 / kappas) / kappas, rtol=2e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_at_zero_and_where_scipy_ends(order: float) -> None:
    """At k = 0 the value is -v log 2 - log Gamma(v + 1); orders are tied by I_{v-1} - I_{v+1} = (2 v / k) I_v."""
    values, ratios = value_and_ratio(order, np.zeros(1))
    assert values[0] == pytest.approx(-order * math.log(2) - gammaln(order + 1), rel=1e-13, abs=1e-12)
    assert ratios[0] == pytest.approx(1 / (2 * (order + 1)), rel=1e-13)
    values, ratios = value_and_ratio(order, KAPPAS)
    above, ratios_above = value_and_ratio(order + 1, KAPPAS)
    np.testing.assert_allclose(above - values, np.log(ratios), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(1 / ratios, 2 * (order + 1) + KAPPAS**2 * ratios_above, rtol=1e-12)


def test_the_gradient_is_that_of_the_value_in_float32_too() -> None:
    squared = torch.tensor([0.0, 1e-3, 2.0, 900.0, 1e6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_bessel(x, 2.5), squared, eps=1e-7, rtol=1e-6)
    single = squared.detach().float().requires_grad_()
    log_bessel(single, 2.5).sum().backward()
    log_bessel(squared, 2.5).sum().backward()
    torch.testing.assert_close(single.grad, squared.grad.float())
