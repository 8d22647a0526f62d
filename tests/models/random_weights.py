"""Random tensors with the names and shapes of an encoder's weights, and runs that only name an encoder."""

from __future__ import annotations

import functools
import importlib.util

import pytest
import torch
from torch import Tensor

from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing
from ttc.models.description import Description
from ttc.models.encoders import EncoderSpec, build_encoder

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
needs_safetensors = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="needs safetensors")

State = dict[str, Tensor]
CONVNET = EncoderSpec("convnet-w4", 1, 8)
RESNET = EncoderSpec("resnet18", 3, 32, "imagenet")
SMALL_RESNET = EncoderSpec("resnet18", 3, 32, "small")
VIT = EncoderSpec("timm/test_vit", 3, 32)


def random_like(spec: EncoderSpec) -> State:
    """Return random tensors with the names and shapes of an encoder: what a file of its weights would hold."""
    return dict(_random_like(spec))


@functools.cache
def _random_like(spec: EncoderSpec) -> State:
    torch.manual_seed(5)
    return {
        name: torch.randn(value.shape) if value.is_floating_point() else value
        for name, value in build_encoder(spec).state_dict().items()
    }


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def zeros(*names: str) -> State:
    return {name: torch.zeros(4, 4) for name in names}


def torchvision(state: State) -> object:
    return {**state, **zeros("fc.weight", "fc.bias")}


def description_of(spec: EncoderSpec) -> Description:
    """Describe a run with this encoder; what describes its data is made up."""
    size, channels = spec.image_size, spec.channels
    preprocessing = Preprocessing("memory", Decoding(size, channels), size, 1.0, (0.5,) * channels, (0.25,) * channels)
    return Description(
        method="supmin", objective={}, encoder=spec.as_dict(), projection_dim=8, data={}, class_names=["a", "b"],
        class_counts=[6, 2], minority_class=1, preprocessing=preprocessing, augmentation={}, split_digest="", seed=0,
    )  # fmt: skip
