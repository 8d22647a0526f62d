"""Input that is accepted, and input that is refused with a message that names it."""

from __future__ import annotations

import copy

import pytest
import torch
from loss_cases import DIM, FEATURES, inputs_for, ready, unit
from torch import Tensor

from ttc.losses import METHODS, build_objective, settings_of

LABELS = torch.tensor([0, 1, 0, 0])
Z = unit(4, 2, DIM, seed=0)
FIRST_ENTRY = torch.arange(Z.numel()).view_as(Z) == 0


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS.bool(), LABELS.bool()[:, None], LABELS.to(torch.int32)])
def test_forms_of_labels(labels: Tensor) -> None:
    objective = build_objective("supmin", minority_class=1)
    torch.testing.assert_close(objective(Z, labels), objective(Z, LABELS))


@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        (Z, LABELS.float(), r"torch.float32 \(\[0.0, 1.0, 0.0, 0.0\]"),
        (Z, LABELS * 3, r"\[3\], outside 0..1"),
        (Z, LABELS - 1, r"\[-1\], outside 0..1"),
        (Z, LABELS[:, None].repeat(1, 2), r"shape \[4, 2\]"),
        (Z[:3], LABELS, r"shape \[3, 2, 8\] for 4 labels"),
        (Z.flatten(0, 1), LABELS, r"shape \[8, 8\]"),
        (Z[:0], LABELS[:0], "not empty"),
        (Z * 1.01, LABELS, "length 1.01, not 1"),
        (Z * 0, LABELS, "length 0, not 1"),
        (Z.masked_fill(FIRST_ENTRY, torch.nan), LABELS, "NaN"),
        (Z.masked_fill(FIRST_ENTRY, torch.inf), LABELS, "infinite"),
    ],
)
def test_refused_batches(z: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_objective("supcon")(z, labels)


@pytest.mark.parametrize("name", ["bcl", "paco", "proco", "sbc"])
def test_missing_inputs_and_views(name: str) -> None:
    objective = ready(name)
    with pytest.raises(ValueError, match="pass "):
        objective(Z, LABELS)
    if name == "sbc":
        with pytest.raises(ValueError, match=r"sample ids \[5000\]"):
            objective(Z, LABELS, sample_ids=torch.tensor([0, 1, 2, 5000]))
    else:
        with pytest.raises(ValueError, match="1 view"):
            objective(Z[:, :1], LABELS, features=torch.ones(4, 1, FEATURES).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    objective = ready(name).float()
    inputs = inputs_for(objective, 6, "mixed", 1, dtype=dtype)
    if objective.space == "projection":
        with torch.no_grad():
            inputs.z[1] = -inputs.z[0]  # antipodal rows overflow a half-precision softmax
    half = inputs.z
    inputs.features = inputs.features.detach().float()
    loss = inputs.call(objective)
    inputs.z = half.detach().float().requires_grad_()
    exact = inputs.call(objective)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(inputs.call(objective), exact)
    (gradient,), (expected,) = torch.autograd.grad(loss, half), torch.autograd.grad(exact, inputs.z)
    torch.testing.assert_close(gradient, expected.to(dtype))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in METHODS),
        ("supmin", {"ce_weight": 0.5}),
        ("bcl", {"centres": "learnable", "alpha": 2.0}),
    ],
    ids=str,
)
def test_float64_input_is_computed_in_float64(name: str, settings: dict[str, object]) -> None:
    """The weights of an objective as it is built are float32: with the same weights in float64 nothing changes."""
    objective = ready(name, **settings).float()
    results = []
    for converted in (objective, copy.deepcopy(objective).double()):
        inputs = inputs_for(converted, 6, "mixed", 1)
        loss = inputs.call(converted)
        wanted = [inputs.z, inputs.features]
        results.append([loss, *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)])
    for actual, expected in zip(*results, strict=True):
        assert actual.dtype == torch.float64
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.005, 0.009])
@pytest.mark.parametrize("name", [m for m in METHODS if "temperature" in settings_of(m)])
def test_small_temperature_in_float32(name: str, temperature: float) -> None:
    objective = ready(name, temperature=temperature).float()
    inputs = inputs_for(objective, 6, "mixed", 1, dtype=torch.float32)
    loss = inputs.call(objective)
    (gradient,) = torch.autograd.grad(loss, inputs.z)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", ["simclr", "supcon", "supmin", "kcl"])
def test_anchors_without_positives_count_as_zero(name: str) -> None:
    objective = build_objective(name, num_classes=4, minority_class=1).double()
    z = unit(4, 1, DIM, seed=0).requires_grad_()
    loss = objective(z, torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(objective.terms["no_positive_fraction"]) == 1
    assert z.grad is not None
    assert float(z.grad.abs().max()) == 0
