"""What a step may cost: no pair matrix, no waiting for the device, few operators. Time is not tested.

Methods that are registered as not streamed form pair matrices, in many operators: only their waiting is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from loss_cases import EPOCH, Inputs, inputs_for, ready
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.references import masked_supcontrast
from benchmarks.timing import growth_of_peak, in_fresh_process
from tests.waiting import META, without_waiting
from ttc.losses import METHODS, Objective, build_objective, logsumexp

# Operators whose result or shape depends on values: on a GPU each waits for the device.
SYNCS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount"}


STREAMED = [name for name, method in METHODS.items() if method.streamed]
CONTRASTIVE = [name for name in STREAMED if METHODS[name].objective.space == "projection"]


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
    "simclr": 44,
    "supcon": 66,
    "supmin": 74,
    "supproto": 93,
    "kcl": 192,
    "tsc": 252,
    "bcl": 286,
    "paco": 250,
    "sbc": 315,
    "proco": 395,
    "ce": 32,
    "weighted-ce": 42,
    "focal": 68,
    "logit-adjusted-ce": 34,
    "ldam-drw": 90,
}


@pytest.mark.parametrize("method", STREAMED)
def test_number_of_operators(method: str) -> None:
    objective = ready(method).float()
    # Two views of 128 samples are one block on a CPU, as two of 2,048 are on a GPU.
    recorder = record(objective, inputs_for(objective, 128, "mixed", 0, dtype=torch.float32))
    assert recorder.operators.total() <= MOST_OPERATORS[method], recorder.operators
    assert not (SYNCS | {"index by mask"}) & set(recorder.operators), recorder.operators


def test_an_instance_term_shares_the_pairs() -> None:
    plain, mixed = ready("supmin"), ready("supmin", instance_weight=0.5, prototype_weight=1.0)
    counts = [record(o, inputs_for(o, 8, "mixed", 0)).operators["exp_"] for o in (plain, mixed)]
    assert counts[0] == counts[1]


def on_meta(inputs: Inputs) -> Inputs:
    moved = (tensor.detach().to(META) for tensor in (inputs.z, inputs.labels, inputs.features, inputs.sample_ids))
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


# Peak memory at a batch of 4096 samples, where one pair matrix takes 256 MiB.
SAMPLES, DIM = 4096, 128
PAIR_MATRIX_MIB = (2 * SAMPLES) ** 2 * 4 / 2**20


def peak_mib(method: str, samples: int) -> float:
    torch.set_num_threads(1)
    objective = build_objective(method, minority_class=1, class_counts=[95, 5], feature_dim=8, projection_dim=DIM)
    objective.validate = False
    generator = torch.Generator().manual_seed(0)
    objective.on_step(EPOCH, 7)
    if objective.wants_embeddings(EPOCH):  # the state of the middle of a run, sub-classes included
        ids = torch.arange(2 * samples)
        rows = torch.nn.functional.normalize(torch.randn(len(ids), DIM, generator=generator), dim=-1)
        objective.on_epoch(EPOCH, lambda: (rows, (ids % 20 == 0).long(), ids))

    def call(samples: int) -> None:
        z = torch.nn.functional.normalize(torch.randn(samples, objective.views, DIM, generator=generator), dim=-1)
        features, ids = torch.randn(samples, objective.views, 8, generator=generator), torch.arange(samples)
        objective(z.requires_grad_(), (ids % 20 == 0).long(), features=features, sample_ids=ids).backward()

    call(600)  # libraries allocate their work space on the first call
    return growth_of_peak(lambda: call(samples), torch.device("cpu"))


@pytest.mark.parametrize("method", CONTRASTIVE)
def test_peak_at_4096_is_a_fraction_of_one_pair_matrix(method: str) -> None:
    # The allocator and other work on the machine only add, so that the least of some processes is the method's own.
    assert any(in_fresh_process(peak_mib, method, SAMPLES) < PAIR_MATRIX_MIB / 4 for _ in range(3))


def masked_peak_mib(samples: int) -> float:
    torch.set_num_threads(1)

    def call() -> None:
        z = torch.nn.functional.normalize(torch.randn(samples, 2, DIM), dim=-1).requires_grad_()
        masked_supcontrast(z, torch.arange(samples) % 2).backward()

    return growth_of_peak(call, torch.device("cpu"))


def test_the_measurement_sees_pair_matrices() -> None:
    samples = 1024
    assert in_fresh_process(masked_peak_mib, samples) > 4 * (2 * samples) ** 2 * 4 / 2**20


def test_memory_grows_with_the_rows_not_with_the_pairs() -> None:
    small, large = (in_fresh_process(peak_mib, "simclr", samples) for samples in (SAMPLES // 2, 2 * SAMPLES))
    # Four times the rows, sixteen times the pairs; the allocator moves single figures by a third.
    assert large < 8 * small
