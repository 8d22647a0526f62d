"""Value and gradient of every method against its plain form in reference.py."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from by_reference import CALLS, reference_loss
from loss_cases import KINDS, Inputs, inputs_for, ready
from torch import Tensor

from ttc.losses import METHODS, Batch, Objective, build_objective, logsumexp

CROSS_ENTROPIES = ("ce", "weighted-ce", "focal", "logit-adjusted-ce", "ldam-drw")
# BCL, PaCo and ProCo keep view 0 apart.
CASES = [
    (method, views)
    for method in CALLS
    for views in ((1,) if method in CROSS_ENTROPIES else (2, 3) if method in ("bcl", "paco", "proco") else (1, 2, 3))
]


def gradients(loss: Tensor, objective: Objective, inputs: Inputs) -> list[Tensor]:
    wanted = [inputs.z, inputs.features, *(p for p in objective.parameters() if p.requires_grad)]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


def check(objective: Objective, inputs: Inputs) -> None:
    actual = inputs.call(objective)
    expected = reference_loss(
        objective, inputs.z, inputs.labels, features=inputs.features, sample_ids=inputs.sample_ids
    )
    assert actual.isfinite()
    assert abs(float((actual - expected).detach())) < 1e-10
    for a, b in zip(gradients(actual, objective, inputs), gradients(expected, objective, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


def test_every_streamed_method_has_a_reference() -> None:
    assert set(CALLS) == {name for name, method in METHODS.items() if method.streamed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("method", "views"), CASES)
def test_agrees_with_the_reference(method: str, views: int, seed: int, kind: str) -> None:
    objective = ready(method, seed=seed)
    check(objective, inputs_for(objective, 5, kind, seed, views))


def double_loop(logits: list[list[float]], positives: list[set[int]], columns: list[set[int]]) -> float:
    """Return the mean of the anchors' losses, with Python's numbers only."""
    total = 0.0
    for x, positive, column in zip(logits, positives, columns, strict=True):
        lse = math.log(sum(math.exp(x[k]) for k in column))
        total += sum(lse - x[j] for j in positive) / len(positive)
    return total / len(logits)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("method", ["supmin", "supproto", "sbc"])
def test_three_classes_against_a_double_loop(method: str, views: int) -> None:
    """The published code, whose numbers prove the reference elsewhere, has two classes."""
    objective = ready(method, num_classes=3, **({"margin": 0.1} if method == "supproto" else {}))
    inputs = inputs_for(objective, 9, "mixed", 8, views)
    z, y = inputs.z.detach().flatten(0, 1), inputs.labels.repeat_interleave(views).tolist()
    rows = range(len(y))
    cosines = (z @ z.T).tolist()
    columns = [{j for j in rows if j != i} for i in rows]
    other_views = [{j for j in columns[i] if j // views == i // views} for i in rows]
    same_class = [{j for j in columns[i] if y[j] == y[i]} for i in rows]
    logits = [[c / objective.temperature for c in row] for row in cosines]
    if method == "supmin":
        expected = double_loop(logits, [same_class[i] if y[i] == 1 else other_views[i] for i in rows], columns)
    elif method == "supproto":
        to_prototypes = (z @ objective.prototypes_KD.T).tolist()
        pulled = [
            to_prototypes[i][y[i]] <= max(p for c, p in enumerate(to_prototypes[i]) if c != y[i]) + 0.1 for i in rows
        ]
        assert 0 < sum(pulled) < len(y)
        logits = [row + [p / objective.temperature for p in to_prototypes[i]] for i, row in enumerate(logits)]
        positives = [other_views[i] | ({len(y) + y[i]} if pulled[i] else set()) for i in rows]
        expected = double_loop(logits, positives, columns)
    else:
        sub_class_of = dict(zip(objective.known_ids_N.tolist(), objective.sub_classes_N.tolist(), strict=True))
        u = [sub_class_of[i] for i in inputs.sample_ids.repeat_interleave(views).tolist()]
        inside = [{j for j in columns[i] if u[j] == u[i]} for i in rows]
        tau2 = objective.class_temperatures_K.tolist()
        between = double_loop(
            [[c / tau2[y[i]] for c in cosines[i]] for i in rows],
            [other_views[i] | (same_class[i] - inside[i]) for i in rows],
            [other_views[i] | (columns[i] - inside[i]) for i in rows],
        )
        expected = objective.inside_factor * double_loop(logits, inside, columns) + objective.weight * between
    assert float(inputs.call(objective).detach()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize(("method", "views"), CASES)
def test_three_classes_and_single_samples(method: str, views: int, samples: int) -> None:
    objective = ready(method, num_classes=3)
    check(objective, inputs_for(objective, samples, "mixed", 3, views))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("supmin", {"temperature": 0.2, "base_temperature": 0.1}),
        ("supproto", {"margin": [0.1, 0.9]}),
        ("supproto", {"margin": -3.0}),
        ("kcl", {"k": 1}),
        ("kcl", {"k": 100}),
        ("tsc", {"target_weight": 0.2, "matching": "ema"}),
        ("bcl", {"centres": "layernorm", "tau_la": 0.5}),
        ("bcl", {"centres": "batchnorm", "beta": 1.0}),
        ("paco", {"gamma": 0.5, "classifier_temperature": 2.0, "queue_size": 3}),
        ("paco", {"rescale_alpha": True, "alpha": 0.5}),
        ("sbc", {"tau2": "code", "weight": 1.0}),
        ("sbc", {"second_term": "ccl"}),
        ("proco", {"temperature": 0.5, "alpha": 0.3}),
        ("supmin", {"ratio_supervised_majority": 0.5}),
        ("focal", {"gamma": 0.5}),
        ("logit-adjusted-ce", {"tau_la": 0.3}),
        ("ldam-drw", {"max_margin": 0.2, "scale": 10.0, "effective_beta": 0.99}),
        ("ldam-drw", {"drw_start": 1.0}),
    ],
    ids=str,
)
def test_settings(method: str, settings: dict[str, object]) -> None:
    objective = ready(method, **settings)
    check(objective, inputs_for(objective, 6, "mixed", 4))


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("ratio", [0.0, 0.29, 0.5, 1.0])
def test_supmin_with_supervised_majority(ratio: float, views: int) -> None:
    objective = build_objective("supmin", minority_class=1, ratio_supervised_majority=ratio, seed=3)
    labels = torch.tensor([0] * 100 + [1] * 7)
    z = inputs_for(objective, 107, "mixed", 0, views).z
    objective.on_step(0, 5)
    objective(z, labels)
    supervised = objective.supervised(Batch(z, labels, z, labels))
    assert int(supervised[:100].sum()) == round(ratio * 100)
    assert bool(supervised[100:].all())
    objective.on_step(0, 6)
    changed = objective.supervised(Batch(z, labels, z, labels))
    assert torch.equal(changed, supervised) == (ratio in (0.0, 1.0))


@pytest.mark.parametrize("block", [1024, 24], ids=["one block", "streamed"])
@pytest.mark.parametrize("method", METHODS)
def test_float32_gradient_is_close_to_float64(method: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logsumexp, "_BLOCK_CPU", block)
    monkeypatch.setattr(logsumexp, "_SINGLE_PASS_CPU", block * block)
    objective = ready(method)
    inputs = inputs_for(objective, 64, "mixed", 8)
    rounded = [tensor.detach().float() for tensor in (inputs.z, inputs.features)]
    # The same rounded numbers in both precisions: the comparison is about the arithmetic.
    objective = objective.float()
    results = []
    for dtype in (torch.float64, torch.float32):
        converted = copy.deepcopy(objective).to(dtype)
        z, features = (tensor.to(dtype).requires_grad_() for tensor in rounded)
        same = Inputs(z, inputs.labels, features, inputs.sample_ids)
        results.append(gradients(same.call(converted), converted, same))
    assert max(float(expected.norm()) for expected in results[0]) > 0.01
    for expected, actual in zip(*results, strict=True):
        assert float((actual - expected).norm()) <= 2e-6 * float(expected.norm())
