"""What a step may cost: no pair matrix, no waiting for the device, few operators. Time is not tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from loss_cases import Inputs, inputs_for, ready
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttc.losses import METHODS, Objective, logsumexp

# Operators whose result or shape depends on values: on a GPU each waits for the device.
SYNCS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount"}


STREAMED = [name for name, method in METHODS.items() if method.streamed]


class Recorder(TorchDispatchMode):
    """Counts operators and notes the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        masks = [t for t in tree_leaves(args[1:]) if isinstance(t, torch.Tensor) and t.dtype == torch.bool]
        self.operators["index by mask" if name.startswith("index") and masks else name] += 1
        for leaf in tree_leaves(result):
            # An expanded view takes no memory of its own.
            if isinstance(leaf, torch.Tensor) and 0 not in leaf.stride():
                self.largest = max(self.largest, leaf.numel())
        return result


def record(objective: Objective, inputs: Inputs) -> Recorder:
    objective.validate = False
    with Recorder() as recorder:
        inputs.call(objective).backward()
        objective.after_step(torch.nn.Identity())
    return recorder


@pytest.mark.parametrize("method", STREAMED)
def test_no_pair_matrix(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logsumexp, "_BLOCK_CPU", 64)
    monkeypatch.setattr(logsumexp, "_SINGLE_PASS_CPU", 64 * 64)
    objective = ready(method, **({"queue_size": 64} if method == "paco" else {})).float()
    samples = 300
    recorder = record(objective, inputs_for(objective, samples, "mixed", 0, dtype=torch.float32))
    per_row = 16
    assert recorder.largest <= max(64 * 64, 3 * samples * per_row, 1000 * 8)
    assert recorder.largest < (2 * samples) ** 2 / 20


# Forward pass, backward pass and update of the state, with a tenth in reserve for other versions of torch.
MOST_OPERATORS = {
    "simclr": 46,
    "supcon": 66,
    "supmin": 76,
    "supproto": 124,
    "kcl": 242,
    "tsc": 285,
    "bcl": 286,
    "paco": 250,
    "sbc": 315,
    "ce": 32,
    "weighted-ce": 42,
    "focal": 68,
    "logit-adjusted-ce": 34,
}


@pytest.mark.parametrize("method", STREAMED)
def test_number_of_operators(method: str) -> None:
    objective = ready(method).float()
    recorder = record(objective, inputs_for(objective, 256, "mixed", 0, dtype=torch.float32))
    assert recorder.operators.total() <= MOST_OPERATORS[method], recorder.operators
    assert not (SYNCS | {"index by mask"}) & set(recorder.operators), recorder.operators


def test_an_instance_term_shares_the_pairs() -> None:
    plain, mixed = ready("supmin"), ready("supmin", instance_weight=0.5, prototype_weight=1.0)
    counts = [record(o, inputs_for(o, 8, "mixed", 0)).operators["exp_"] for o in (plain, mixed)]
    assert counts[0] == counts[1]
