"""Encoders of other families handed on: every form gives the features of the network that it was made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.models.random_weights import description_of, needs_timm
from ttc.evaluation.export import ExportedEncoder, save_onnx, save_safetensors, save_torchscript
from ttc.models.encoders import EncoderSpec

ENCODERS = [
    pytest.param("timm/test_vit", 1, marks=needs_timm),
    pytest.param("timm/test_convnext", 3, marks=[needs_timm, pytest.mark.long]),
    pytest.param("convnext_tiny", 1, marks=pytest.mark.slow),
    pytest.param("vit_b_32", 3, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "channels"), ENCODERS)
@pytest.mark.parametrize("form", ["torchscript", "safetensors", "onnx"])
def test_every_form_agrees_with_its_source(form: str, name: str, channels: int, tmp_path: Path) -> None:
    """The functions read back what they wrote, and raise where it differs by more than rounding."""
    if form == "onnx" and not all(importlib.util.find_spec(each) for each in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs onnx, onnxscript and onnxruntime")
    torch.manual_seed(0)
    description = description_of(EncoderSpec(name, channels, 32))
    encoder = ExportedEncoder(description.network(), description)
    images, path = torch.rand(3, channels, 32, 32), tmp_path / form
    if form == "safetensors":
        assert save_safetensors(path, encoder, description, images) == 0
    else:
        save = save_torchscript if form == "torchscript" else save_onnx
        # Another number of images than it was traced with.
        assert save(path, encoder, images) < 1e-5
    assert path.stat().st_size > 4 * sum(p.numel() for p in encoder.parameters()) * 0.9
