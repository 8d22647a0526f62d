"""Equalities between methods, and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import DIM, FEATURES, inputs_for, ready, unit
from torch import Tensor

from ttc.losses import METHODS, Batch, Objective, build_objective, contrastive, prototypes, settings_of, targeted
from ttc.losses.contrastive import Contrastive

LABELS = torch.tensor([0, 0, 1, 0, 1, 0, 0])
SEEDS = (0, 1, 2)
CONTEXT = {
    "minority_class": 1, "class_counts": [9, 1], "schedule_steps": 8, "feature_dim": FEATURES, "projection_dim": DIM
}  # fmt: skip


def value(name: str, labels: Tensor = LABELS, seed: int = 0, **settings: object) -> Tensor:
    objective = build_objective(name, minority_class=1, projection_dim=DIM, seed=4, **settings).double()
    objective.on_step(2, 3)
    result: Tensor = objective(unit(len(labels), 2, DIM, seed=seed), labels)
    return result


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(
    ("method", "settings"),
    [("simclr", {}), ("supcon", {}), ("supcon", {"base_temperature": 0.2}), ("supmin", {})]
    + [("supmin", {"ratio_supervised_majority": ratio}) for ratio in (0.3, 1.0)]
    + [("supproto", {}), ("supproto", {"margin": 0.1}), ("kcl", {}), ("kcl", {"k": 60})],
)
def test_value_and_gradient_at_once_are_those_of_the_general_form(
    method: str, settings: dict[str, object], num_classes: int, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = ready(method, num_classes, **settings)
    nodes = []
    results = []
    for at_once in (True, False):
        if not at_once:
            for module in (contrastive, prototypes, targeted):
                monkeypatch.setattr(module, "is_alone", lambda *_: False)
        inputs = inputs_for(objective, 29, "mixed", 3, views=views)
        loss = inputs.call(objective)
        nodes.append("_AtOnce" in f"{loss.grad_fn} {loss.grad_fn.next_functions if loss.grad_fn else None}")
        (3.0 * loss).backward()
        results.append((loss.detach(), inputs.z.grad, objective.terms["no_positive_fraction"]))
    assert nodes == [True, False]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_kcl_with_many_positives_is_supcon(seed: int) -> None:
    torch.testing.assert_close(value("kcl", seed=seed, k=2 * (len(LABELS) - 1)), value("supcon", seed=seed))
    # Just below the short cut, the draw itself has to take all candidates.
    torch.testing.assert_close(value("kcl", seed=seed, k=2 * (len(LABELS) - 1) - 1), value("supcon", seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_tsc_without_targets_is_kcl(seed: int) -> None:
    torch.testing.assert_close(value("tsc", seed=seed, target_weight=0.0), value("kcl", seed=seed))
    torch.testing.assert_close(value("tsc", seed=seed, kcl_epochs=3), value("kcl", seed=seed))
    assert not torch.isclose(value("tsc", seed=seed, kcl_epochs=2), value("kcl", seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_supmin_between_ntxent_and_supcon(seed: int) -> None:
    torch.testing.assert_close(value("supmin", LABELS * 0, seed), value("simclr", LABELS * 0, seed))
    torch.testing.assert_close(value("supmin", seed=seed, ratio_supervised_majority=1.0), value("supcon", seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_supproto_that_never_pulls_is_ntxent(seed: int) -> None:
    torch.testing.assert_close(value("supproto", seed=seed, margin=-2.1), value("simclr", seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_paco_without_rows_is_logit_adjusted_cross_entropy(seed: int) -> None:
    logits = torch.randn(7, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    paco = build_objective("paco", class_counts=[90, 10], projection_dim=DIM, alpha=0.0, gamma=0.0).double()
    adjusted = build_objective("logit-adjusted-ce", class_counts=[90, 10]).double()
    contrast = paco(unit(7, 2, DIM, seed=seed), LABELS, features=logits)
    torch.testing.assert_close(contrast, adjusted(logits, LABELS))


@pytest.mark.parametrize("method", METHODS)
def test_swapping_the_class_names_changes_nothing(method: str) -> None:
    """Swap labels, minority, prototypes, margins and priors; the draws depend on ranks inside the class only."""
    margin: dict[str, object] = {"margin": [0.2, 0.9]} if "margin" in settings_of(method) else {}
    swapped_margin: dict[str, object] = {"margin": [0.9, 0.2]} if margin else {}
    objective = ready(method, **margin)
    inputs = inputs_for(objective, 6, "mixed", 2)
    swapped = build_objective(
        method,
        minority_class=0,
        class_counts=[60, 900],
        schedule_steps=8,
        feature_dim=FEATURES,
        projection_dim=DIM,
        **swapped_margin,
    ).double()
    state = objective.state_dict()
    for key, tensor in state.items():
        per_class = key.endswith(("_K", "_KD", "_KF", "head.weight", "head.bias")) and key != "assignment_K"
        if per_class:
            state[key] = tensor.flip(0)
        if key == "queue_labels_Q":
            state[key] = 1 - tensor
    swapped.load_state_dict(state)
    swapped.on_step(10, 7)
    before = inputs.call(objective)
    inputs.labels = 1 - inputs.labels
    torch.testing.assert_close(inputs.call(swapped), before, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_collapse_value(method: str) -> None:
    objective = build_objective(method, **CONTEXT).double()
    expected = objective.collapse_value(7)
    if expected is None:
        return
    z = unit(1, 1, DIM, seed=0).expand(7, 2, DIM)
    loss = objective(z, LABELS, sample_ids=torch.arange(7))
    assert float(loss) == pytest.approx(expected, abs=1e-12)
    if isinstance(objective, Contrastive):
        assert expected == pytest.approx(math.log(13), abs=1e-12)


def test_methods_with_a_known_collapse_value() -> None:
    def has_value(objective: Objective) -> bool:
        return objective.collapse_value(4) is not None

    built = {m: build_objective(m, **CONTEXT) for m in METHODS}
    contrastive = {m for m, o in built.items() if has_value(o) and isinstance(o, Contrastive)}
    assert contrastive == {"simclr", "supcon", "supmin", "kcl", "sbc"}
    assert has_value(build_objective("supcon", instance_weight=0.5))
    assert not has_value(build_objective("supcon", prototype_weight=0.5))


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_prototypes_form_a_simplex(num_classes: int) -> None:
    prototypes = build_objective("supproto", num_classes=num_classes, projection_dim=DIM, seed=9).state_dict()
    cosines = prototypes["prototypes_KD"].double() @ prototypes["prototypes_KD"].double().T
    expected = torch.full((num_classes, num_classes), -1 / (num_classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected, atol=1e-6, rtol=0)


def test_draws_are_uniform_and_depend_on_seed_and_step() -> None:
    objective = build_objective("kcl", k=2, seed=1).double()
    labels = torch.tensor([0] * 6)
    z = unit(6, 2, DIM, seed=0)
    batch = Batch(z, labels, z, labels)
    counts = torch.zeros(12)
    for step in range(600):
        objective.on_step(0, step)
        index, valid = objective.draw(batch)
        assert bool(valid.all())
        counts += torch.bincount(index[4], minlength=12)
    # Anchor row 4 is view 0 of sample 2: 10 candidates, each drawn with probability 2 / 10 in 600 steps.
    assert counts[4:6].sum() == 0
    chosen = torch.cat((counts[:4], counts[6:]))
    assert float(((chosen - 120) ** 2 / 120).sum()) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    other = build_objective("kcl", k=2, seed=2)
    other.on_step(0, 599)
    assert not torch.equal(other.draw(batch)[0], index)
