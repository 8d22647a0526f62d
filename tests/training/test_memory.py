"""The memory of a training step: in closed form for a small network, against the measured peak for large ones."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models.random_weights import needs_timm
from tests.processes import CONTEXT
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.layers import recompute_blocks
from ttc.models.networks import PretrainNetwork
from ttc.training.memory import activation_bytes, step_bytes


def small() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adamw", 2)])
def test_a_step_in_closed_form(optimizer: str, moments: int) -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = 12 * 8 + 8 + 8 + 8 + 8 * 4 + 4
    # Images, inputs of BatchNorm and of the last layer, which is what ReLU keeps too.
    kept = 12 + 8 + 8
    found = step_bytes(network, (3, 2, 2), 10, optimizer=optimizer, half_precision=False)
    assert found == pytest.approx(4 * weights * (2 + moments) + 4 * kept * 10, abs=4 * 16)  # BatchNorm keeps 2 x 8 more
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_frozen_encoder_keeps_nothing() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("convnet-w4", 1, 8)), 4)
    learning = activation_bytes(network, (1, 8, 8), 4)
    network.freeze(None)
    assert activation_bytes(network, (1, 8, 8), 4) < learning / 5
    heads = sum(p.numel() for p in network.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in network.parameters())
    found = step_bytes(network, (1, 8, 8), 1, optimizer="sgd", half_precision=False)
    assert 4 * (everything + 2 * heads) < found < 4 * (everything + 2 * heads) + 4096


def test_recomputed_blocks_are_seen_in_the_plan() -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec("resnet18", 1, 32)), 4)
    whole = activation_bytes(network, (1, 32, 32), 2)
    recompute_blocks(network.encoder, "resnet18")
    assert activation_bytes(network, (1, 32, 32), 2) < 0.6 * whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50", "convnext_tiny", pytest.param("timm/vit_small_patch16_224", marks=needs_timm)]
)
def test_the_estimate_is_within_30_percent_of_the_measured_peak(name: str, tmp_path: Path) -> None:
    process = CONTEXT.Process(target=_measure, args=(name, str(tmp_path / "peak.pt")))
    process.start()
    process.join(600)
    assert process.exitcode == 0
    estimate, peak = torch.load(tmp_path / "peak.pt", weights_only=True)
    assert estimate == pytest.approx(peak, rel=0.3)


def _measure(name: str, path: str) -> None:
    network = PretrainNetwork(build_encoder(EncoderSpec(name, 3, 224)), 128).to(memory_format=torch.channels_last)
    estimate = step_bytes(network, (3, 224, 224), 8, optimizer="adamw", half_precision=False)
    before, peak, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _resident())
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(2):  # the second step has the optimizer's moments from its start
        images = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        loss = network(images)[1].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    done.set()
    thread.join()
    weights = 4 * sum(p.numel() for p in network.parameters())
    torch.save([estimate, peak[0] - before + weights], path)


def _resident() -> int:
    """Return the bytes of main memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
