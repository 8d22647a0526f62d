"""Every classification model of torchvision, by its name there: resnet50, convnext_tiny, vit_b_16, ..."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ttc.models.adapt import halve_stem, set_channels
from ttc.models.encoders import SMALL_IMAGE, EncoderSpec, Normalisation, Weights, WrongSize

_FIXED_STEM = ("vit", "swin", "maxvit")
"""Their patches are tied to the rest of the network."""


def names() -> list[str]:
    """Return torchvision's names."""
    from torchvision import models

    return list(models.list_models(models))


def has(name: str) -> bool:
    """Tell whether torchvision has a model of this name."""
    return name in names()


def build(spec: EncoderSpec, drop_path: float) -> nn.Module:
    """Build the model without its last layer."""
    if "resne" in spec.name:
        encoder = _resnet(spec)
    else:
        encoder = _model(spec)
        encoder.cut = (_cut(encoder),)  # type: ignore[assignment]  # a plain attribute
        set_channels(encoder, spec.channels)
        fixed = spec.name.startswith(_FIXED_STEM)
        small = spec.stem == "small" or (spec.stem == "auto" and spec.image_size <= SMALL_IMAGE)
        if small and (fixed or not halve_stem(encoder)) and spec.stem == "small":
            raise ValueError(f"--stem small: --encoder {spec.name} has no smaller first stride; leave it out")
    _set_drop_path(encoder, drop_path, spec.name)
    return encoder


def _resnet(spec: EncoderSpec) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(spec.name, weights=None)
    small = spec.stem == "small" or (spec.stem == "auto" and spec.image_size <= SMALL_IMAGE)
    assert isinstance(network.conv1, nn.Conv2d)
    assert isinstance(network.fc, nn.Linear)
    width = network.conv1.out_channels
    if small:
        network.conv1 = nn.Conv2d(spec.channels, width, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    elif spec.channels != 3:
        network.conv1 = nn.Conv2d(spec.channels, width, 7, 2, 3, bias=False)
    if small or spec.channels != 3:
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.feature_dim = network.fc.in_features  # type: ignore[assignment]  # a plain attribute
    network.fc = nn.Identity()
    network.cut, network.any_size = ("fc",), True  # type: ignore[assignment]  # plain attributes
    return network


def _model(spec: EncoderSpec) -> nn.Module:
    from torchvision import models

    options: dict[str, object] = {}
    if spec.name.startswith("vit"):
        options["image_size"] = spec.image_size
    elif spec.name.startswith("maxvit"):
        options["input_size"] = (spec.image_size, spec.image_size)
    elif spec.name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    try:
        network: nn.Module = models.get_model(spec.name, weights=None, **options)
    except NotImplementedError:
        raise
    except (ValueError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise WrongSize(str(error)) from error
    return network


def _cut(network: nn.Module) -> str:
    """Cut off the classes' layer, with the dropout in front of it, and return its name."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    holder, _, key = str(name).rpartition(".")
    parent = network.get_submodule(holder)
    if isinstance(last, nn.Conv2d):  # SqueezeNet: a convolution to the classes, then the mean of the map
        setattr(network, holder, nn.AdaptiveAvgPool2d(1))
        return str(name)
    setattr(parent, key, nn.Identity())
    if isinstance(parent, nn.Sequential) and key.isdigit() and isinstance(parent[int(key) - 1], nn.Dropout):
        parent[int(key) - 1] = nn.Identity()
    return str(name)


def _set_drop_path(encoder: nn.Module, rate: float, name: str) -> None:
    """Spread the rate linearly over the depth, as the models' papers do; 0 also where torchvision's default differs."""
    from torchvision.ops import StochasticDepth

    branches = [module for module in encoder.modules() if isinstance(module, StochasticDepth)]
    if rate and not branches:
        raise ValueError(f"--drop-path {rate:g}: --encoder {name} has no branches to leave out; leave the flag out")
    for number, branch in enumerate(branches):
        branch.p = rate * number / max(1, len(branches) - 1)


def default_weights(encoder: nn.Module, spec: EncoderSpec) -> Weights:
    """Return torchvision's default weights, from its cache if they are there."""
    from torchvision import models

    weights = models.get_model_weights(spec.name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"{weights.url} could not be fetched ({error}); download it elsewhere, then put it into "
            f"{folder}{os.sep} or pass the file with --weights FILE"
        ) from None
    transform = weights.transforms()
    mean, std = transform.mean, transform.std
    if spec.name in ("googlenet", "inception_v3"):
        # torchvision turns ImageNet's normalisation into this one inside of the network.
        mean, std = [0.5] * 3, [0.5] * 3
    return Weights(state, (mean, std))


def normalisation(encoder: nn.Module) -> Normalisation | None:
    """Return nothing: only torchvision's own weights have one."""
    return None


def fit(state: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """Resample a ViT's position embeddings of another image size; its sides are square numbers of patches."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    name = "encoder.pos_embedding"
    if not isinstance(encoder, VisionTransformer) or name not in state:
        return state
    positions = encoder.encoder.pos_embedding.shape[1]
    if state[name].ndim != 3 or state[name].shape[1] == positions:
        return state
    return dict(interpolate_embeddings(encoder.image_size, encoder.patch_size, OrderedDict(state)))
