"""torch.compile of the losses that say they can be compiled: one graph for all steps, and the same gradients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from loss_cases import Inputs, inputs_for, ready
from torch import Tensor
from torch._dynamo.utils import counters

from tests.processes import ROOT
from ttc.losses import METHODS, Objective

COMPILED = [name for name in METHODS if ready(name).compiles]


@dataclass(frozen=True)
class PoolOfTwo:
    """The batches of two ranks, of which this is the second."""

    z: Tensor
    labels: Tensor
    sample_ids: Tensor
    first: int
    world_size: int = 2


def step(objective: Objective, inputs: Inputs, number: int, *, pooled: bool = False) -> tuple[Tensor, Tensor]:
    objective.on_step(0, number)
    inputs.z.grad = None
    half, pool = inputs, None
    if pooled:
        start = len(inputs.labels) // 2
        pool = PoolOfTwo(inputs.z, inputs.labels, inputs.sample_ids, start)
        half = Inputs(*(part[start:] for part in (inputs.z, inputs.labels, inputs.features, inputs.sample_ids)))
    loss = objective(half.z, half.labels, pool, features=half.features, sample_ids=half.sample_ids)
    loss.backward()
    assert inputs.z.grad is not None
    return loss.detach(), inputs.z.grad


def compare(method: str, backend: str, *, pooled: bool = False) -> None:
    torch._dynamo.reset()
    counters.clear()
    plain, compiled = ready(method).float(), ready(method).float()
    plain.validate = compiled.validate = False
    compiled.compile(backend=backend, fullgraph=True)
    for number in range(3):
        results = [
            step(objective, inputs_for(objective, 32, "mixed", number, dtype=torch.float32), number, pooled=pooled)
            for objective in (plain, compiled)
        ]
        for one, other in zip(*results, strict=True):
            assert float((one - other).norm()) <= 2e-6 * float(one.norm())
        assert plain.terms.keys() == compiled.terms.keys()
        for name, value in plain.terms.items():
            torch.testing.assert_close(compiled.terms[name], value)
    assert counters["stats"]["unique_graphs"] == 1, counters


def test_which_losses_compile() -> None:
    assert {"simclr", "supcon", "supmin", "supproto"} <= set(COMPILED)
    assert not ready("supmin", ratio_supervised_majority=0.5).compiles


@pytest.mark.parametrize("pooled", [False, True], ids=["one rank", "two ranks"])
@pytest.mark.parametrize("method", COMPILED)
def test_one_graph_for_all_steps(method: str, pooled: bool) -> None:
    compare(method, "aot_eager", pooled=pooled)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_generated_code_has_the_gradient() -> None:
    """In a process of its own, as a script compiles: the compiler wants a distutils that other tests have replaced."""
    words = [sys.executable, "-c", "import test_loss_compiled as tests; tests.compare('supproto', 'inductor')"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
