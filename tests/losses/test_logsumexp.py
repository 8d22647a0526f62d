"""The streamed log-sum-exp, with blocks so small that every path is taken."""

from __future__ import annotations

import pytest
import torch
from loss_cases import unit
from torch import Tensor

from ttc.losses import logsumexp
from ttc.losses.logsumexp import log_sum_exp


@pytest.fixture(params=["blocks of 4", "single pass"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "blocks of 4":
        monkeypatch.setattr(logsumexp, "_BLOCK_CPU", 4)
        monkeypatch.setattr(logsumexp, "_SINGLE_PASS_CPU", 0)


def dense(a: Tensor, b: Tensor, scale: float, offset: int | None, groups: tuple[Tensor, Tensor] | None) -> Tensor:
    logits = scale * a @ b.T
    hidden = torch.zeros_like(logits, dtype=torch.bool)
    if offset is not None:
        hidden |= torch.arange(len(b)) == torch.arange(len(a))[:, None] + offset
    if groups is not None:
        hidden |= groups[0][:, None] == groups[1]
    return logits.masked_fill(hidden, -torch.inf).logsumexp(1)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("scale", [1.0, 14.3, 200.0])
@pytest.mark.parametrize("rows", [1, 2, 4, 11])
def test_rows_against_themselves(rows: int, scale: float) -> None:
    z = unit(rows, 5, seed=rows).requires_grad_()
    weight = unit(1, rows, seed=3)[0]
    actual, expected = log_sum_exp(z, z, scale, self_offset=0), dense(z, z, scale, 0, None)
    if rows == 1:
        assert actual.tolist() == [-torch.inf]
        assert torch.autograd.grad(actual.sum(), z)[0].abs().max() == 0
        return
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)
    gradients = [torch.autograd.grad((weight * lse).sum(), z)[0] for lse in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("offset", [None, 0, 3, 8])
@pytest.mark.parametrize("grouped", [False, True])
def test_rows_against_other_columns(offset: int | None, grouped: bool) -> None:
    a, b = unit(6, 5, seed=1).requires_grad_(), unit(14, 5, seed=2).requires_grad_()
    groups = (torch.arange(6) % 3, torch.arange(14) % 4) if grouped else None
    arguments = (a, b, 9.0)
    assert torch.autograd.gradcheck(lambda a, b: log_sum_exp(a, b, 9.0, self_offset=offset, groups=groups), (a, b))
    torch.testing.assert_close(
        log_sum_exp(*arguments, self_offset=offset, groups=groups), dense(*arguments, offset, groups)
    )


@pytest.mark.usefixtures("paths")
def test_gradcheck_of_the_symmetric_path() -> None:
    z = unit(9, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: log_sum_exp(z, z, 3.0, self_offset=0), (z,))


@pytest.mark.usefixtures("paths")
def test_anchor_without_columns_has_no_gradient() -> None:
    a, b = unit(3, 4, seed=1).requires_grad_(), unit(5, 4, seed=2).requires_grad_()
    groups = (torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0, 0, 0]))
    result = log_sum_exp(a, b, 2.0, groups=groups)
    assert result[0] == -torch.inf
    assert bool(result[1:].isfinite().all())
    torch.where(result > -torch.inf, result, 0).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert bool(a.grad.isfinite().all())
    assert bool(b.grad.isfinite().all())
    assert a.grad[0].abs().max() == 0


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("scale", [1 / 0.07, 1 / 0.024, 1 / 0.009, 1 / 0.005])
def test_small_temperatures_in_float32(scale: float) -> None:
    z = unit(12, 3, seed=4, dtype=torch.float32)
    z[1], z[2] = -z[0], z[0]
    z.requires_grad_()
    double = z.detach().double().requires_grad_()
    actual, expected = log_sum_exp(z, z, scale, self_offset=0), dense(double, double, scale, 0, None)
    torch.testing.assert_close(actual.double(), expected, rtol=2e-6, atol=2e-6 * scale)
    actual.sum().backward()
    expected.sum().backward()
    assert z.grad is not None
    assert double.grad is not None
    assert float((z.grad - double.grad).norm() / double.grad.norm()) < 1e-4


def test_equal_rows_far_from_unit_length_stay_finite() -> None:
    z = (100 * unit(6, 4, seed=1, dtype=torch.float32)).requires_grad_()
    result = log_sum_exp(z, z, 10.0, self_offset=0)
    assert not bool(result.isnan().any())
