"""LDAM-DRW by hand: margins, weights, and the step at which they begin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ttc.losses import build_objective
from ttc.losses.cross_entropy import LDAM


def built(**settings: object) -> LDAM:
    arguments = {"class_counts": [10_000, 16], "schedule_steps": 100, "feature_dim": 2, **settings}
    objective = build_objective("ldam-drw", **arguments).double()
    assert isinstance(objective, LDAM)
    with torch.no_grad():
        objective.class_weights_KF.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.2]]))  # only their directions count
    return objective


def value(objective: LDAM, features: Tensor, labels: list[int]) -> float:
    return float(objective(features, torch.tensor(labels)).detach())


def test_the_loss_of_a_common_and_of_a_rare_row_by_hand() -> None:
    # n^(1/4) is 10 and 2, so that C = 1 gives the margins 0.1 and 0.5. The features (4, 3) have cosines 0.8 and 0.6.
    objective, features = built(), torch.tensor([[[4.0, 3.0]]], dtype=torch.float64)
    common = math.log1p(math.exp(30 * 0.6 - 30 * (0.8 - 0.1)))
    rare = math.log1p(math.exp(30 * 0.8 - 30 * (0.6 - 0.5)))
    assert value(objective, features, [0]) == pytest.approx(common, rel=1e-12)
    assert value(objective, features, [1]) == pytest.approx(rare, rel=1e-12)
    torch.testing.assert_close(objective.classifier(features[0]), torch.tensor([[24.0, 18.0]], dtype=torch.float64))
    both = features.expand(2, 1, 2)
    assert value(objective, both, [0, 1]) == pytest.approx((common + rare) / 2, rel=1e-12)
    objective.on_step(9, 99)
    inverse = [(1 - 0.9999) / (1 - 0.9999**n) for n in (10_000, 16)]
    assert objective.class_weights_K.tolist() == pytest.approx([2 * w / sum(inverse) for w in inverse], rel=1e-12)
    weighted = (inverse[0] * common + inverse[1] * rare) / sum(inverse)
    assert value(objective, both, [0, 1]) == pytest.approx(weighted, rel=1e-12)
    # A batch of one class is weighted by nothing.
    assert value(objective, both, [0, 0]) == pytest.approx(common, rel=1e-12)


@pytest.mark.parametrize(
    ("start", "steps", "first"),
    [(0.8, 200 * 19, 160 * 19), (0.55, 100, 55), (0.8, 3, 2), (0.0, None, 0), (1.0, None, None), (0.8, 0, 0)],
)
def test_the_weights_begin_at_one_step(start: float, steps: int | None, first: int | None) -> None:
    objective = built(drw_start=start, schedule_steps=steps)
    features, labels = torch.tensor([[[4.0, 3.0]], [[3.0, 4.0]], [[1.0, 2.0]]]).double(), [0, 0, 1]
    losses = []
    for step in range((first or 0) + 3):
        objective.on_step(0, step)
        losses.append(value(objective, features, labels))
    assert objective.first_weighted_step == first
    last = len(losses) if first is None else first
    assert len(set(losses[:last])) <= 1
    assert len(set(losses[last:])) <= 1
    if 0 < last < len(losses):
        assert losses[last] != losses[0]


def test_margins_follow_distinct_images_and_weights_what_batches_present() -> None:
    balanced = built(class_counts=[5008, 5008], train_counts=[10_000, 16])
    assert balanced.margins_K.tolist() == pytest.approx([0.1, 0.5], rel=1e-12)
    assert balanced.class_weights_K.tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
