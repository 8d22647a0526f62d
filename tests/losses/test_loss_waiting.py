"""No method's loss waits for the device: neither reads a value from it nor sends numbers to it."""

from __future__ import annotations

import pytest
import torch
from loss_cases import Inputs, inputs_for, ready

from tests.waiting import META, without_waiting
from ttc.losses import METHODS, Objective


def on_meta(inputs: Inputs) -> Inputs:
    moved = (each.detach().to(META) for each in (inputs.z, inputs.labels, inputs.features, inputs.sample_ids))
    z, labels, features, ids = moved
    return Inputs(z.requires_grad_(), labels, features.requires_grad_(), ids)


CASES: dict[str, tuple[str, dict[str, object]]] = {name: (name, {}) for name in METHODS} | {
    "supmin with half of the majority": ("supmin", {"ratio_supervised_majority": 0.5}),
    "supmin with three more terms": ("supmin", {"ce_weight": 0.5, "instance_weight": 0.3, "prototype_weight": 0.2}),
    "tsc with moving targets": ("tsc", {"matching": "ema"}),
    "sbc with the class term": ("sbc", {"second_term": "ccl"}),
    "bcl with published centres": ("bcl", {"centres": "batchnorm"}),
    "paco rescaled": ("paco", {"rescale_alpha": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_loss_waits(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, settings = CASES[case]
    objective: Objective = ready(method, **settings).float()
    objective.validate = False
    inputs = on_meta(inputs_for(objective, 32, "mixed", 0, dtype=torch.float32))
    objective.to(META)
    with without_waiting(monkeypatch):
        inputs.call(objective).backward()
        objective.after_step(torch.nn.Identity())
