"""BatchNorm on real gloo processes is BatchNorm of the whole batch: every kind of it, frozen ones left alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.norms import KINDS
from tests.ranks.launch import on_ranks
from ttc import distributed
from ttc.models.batchnorm import GlobalStatistics, running_statistics_moving_by, synchronise

ALONE = distributed.World(0, 1, 0, torch.device("cpu"))
ROWS = 12


def inputs_and_weights(kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(3)
    shape = (ROWS, *KINDS[kind][1][1:])
    # A large mean: variances by differences of squares would lose their digits.
    inputs = torch.randn(shape, generator=made, dtype=torch.float64) * 0.5 + 30
    return inputs.to(dtype), torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)


def normalise(
    world: distributed.World, kind: str, dtype: torch.dtype = torch.float64, passes: int = 1
) -> dict[str, Tensor]:
    """Run two BatchNorms over this rank's piece, in training and then in evaluation mode."""
    torch.manual_seed(1)
    build, _ = KINDS[kind]
    network = synchronise(nn.Sequential(build(), nn.Softplus(), build()).to(dtype), world.device)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    inputs, weights = inputs_and_weights(kind, dtype)
    mine = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
    piece = inputs[mine].clone().requires_grad_()
    if passes == 1:
        out = network(piece)
    else:  # micro-batches: every rank's share of each consists of the same rows for any number of ranks
        with running_statistics_moving_by(network, 1 / passes):
            out = torch.stack([network(piece[first::passes]) for first in range(passes)], 1).flatten(0, 1)
    (out * weights[mine]).sum().backward()
    assert piece.grad is not None
    seen = {"out": out.detach(), "input gradient": piece.grad}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        # The loss of the whole batch is the sum over ranks.
        seen[name] = distributed.mean(parameter.grad) * world.size
    seen |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.eval()
    seen["evaluated"] = network(inputs).detach()
    return seen


def everything(world: distributed.World) -> dict[str, dict[str, Tensor]]:
    seen = {kind: normalise(world, kind) for kind in KINDS if kind != "with activation"}
    seen |= {
        f"{kind} in micro-batches": normalise(world, kind, passes=2)
        for kind in ("1d", "2d", "cumulative", "without statistics")
    }
    seen["2d in float32"] = normalise(world, "2d", torch.float32)
    if importlib.util.find_spec("timm"):
        seen["with activation"] = normalise(world, "with activation")
    return seen


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    return everything(ALONE)


@pytest.mark.parametrize("size", [2, 3])
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(
    size: int, alone: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    ranks = on_ranks(size, everything, tmp_path)
    for kind, expected in alone.items():
        for name, value in expected.items():
            shared = name not in ("out", "input gradient")
            parts = [seen[kind][name] for seen in ranks]
            for found in parts if shared else [torch.cat(parts)]:
                if kind != "2d in float32":
                    torch.testing.assert_close(
                        found, value, rtol=0, atol=1e-9, msg=lambda m, k=kind, n=name: f"{k}, {n}: {m}"
                    )
                elif not shared:  # as exact as torch's own
                    exact = alone["2d"][name]
                    allowed = 3 * (value.double() - exact).abs().max() + 1e-6
                    assert (found.double() - exact).abs().max() < allowed, name


def frozen(world: distributed.World) -> tuple[Tensor, Tensor]:
    """Return what layers in eval mode give for rows of this rank alone, and their statistics."""
    norm = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    synchronise(norm, world.device).eval()
    assert all(isinstance(each, GlobalStatistics) for each in norm)
    rows = torch.arange(6.0).view(2, 3) + 10 * world.rank
    out = norm(rows) if world.rank == 0 else rows  # no other rank takes part
    assert norm[0].running_mean is not None
    return out, norm[0].running_mean


def test_frozen_layers_are_left_alone(tmp_path: Path) -> None:
    first, _ = on_ranks(2, frozen, tmp_path)
    torch.testing.assert_close(first[0], torch.arange(6.0).view(2, 3), rtol=2e-5, atol=0)
    assert torch.equal(first[1], torch.zeros(3))


def converted(world: distributed.World) -> dict[str, list[str]]:
    """Return the classes that each kind becomes on CUDA, and which the layer still is one of."""
    kinds = [kind for kind in KINDS if kind != "with activation" or importlib.util.find_spec("timm")]
    layers = {kind: synchronise(KINDS[kind][0](), torch.device("cuda")) for kind in kinds}
    return {kind: [each.__name__ for each in type(layer).__mro__] for kind, layer in layers.items()}


def test_on_cuda_torchs_classes_take_its_own_and_derived_ones_keep_what_they_add(tmp_path: Path) -> None:
    for kind, classes in on_ranks(2, converted, tmp_path)[0].items():
        assert ("SyncBatchNorm" in classes) == (kind != "with activation"), kind
        assert ("BatchNormAct2d" in classes) == (kind == "with activation"), kind
