"""Encoders by name, one file per family: `python pretrain.py --encoder NAME`.

To add a family, add a file to this folder with the six functions of `Family`; nothing else has to be touched.

Legend: N images, C channels, F encoder features.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

SMALL_IMAGE = 64
"""Up to this many pixels a network gets the small-image stem: a ResNet's other one would shrink 32 px to 8 x 8."""

_SIZES = (
    8,
    16,
    24,
    28,
    32,
    48,
    56,
    64,
    70,
    75,
    80,
    96,
    112,
    128,
    140,
    160,
    192,
    224,
    256,
    280,
    288,
    320,
    384,
    448,
    518,
)
"""Sides in px that are tried when a message has to name those that a network takes."""


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to build an encoder again; it travels in the checkpoint.

    Attributes:
        name: "convnet-wN" (N = width, for example convnet-w16), a classification model of torchvision ("resnet18",
            "convnext_tiny", "vit_b_16", ...) or "timm/NAME".
        channels: channels of the images.
        image_size: side of the images in px.
        stem: "imagenet" (the model's own), "small" (half the stride; a ResNet takes 3x3 stride 1 without pooling) or
            "auto" (by the image size, where the model has a smaller one).
    """

    name: str
    channels: int
    image_size: int
    stem: str = "auto"

    def as_dict(self) -> dict[str, str | int]:
        """Return plain values for the checkpoint."""
        return asdict(self)


Normalisation: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel, of pixel values in [0, 1]."""


@dataclass(frozen=True)
class Weights:
    """Tensors to start from.

    Attributes:
        state: by name, heads and prefixes of their source included.
        normalisation: that the weights were trained with; None where nothing names it.
    """

    state: dict[str, Tensor]
    normalisation: Normalisation | None = None


class Family(Protocol):
    """What a file of this folder holds; imports of other packages belong into the functions."""

    def names(self) -> list[str]:
        """Return the names to offer, or patterns of names; no package is imported that is optional."""

    def has(self, name: str) -> bool:
        """Tell whether a name belongs to this family."""

    def build(self, spec: EncoderSpec, drop_path: float) -> nn.Module:
        """Build a randomly initialised encoder, from images [N, C, S, S] to features [N, F].

        Its attribute `cut` names the layers that were cut off. With the attributes `any_size`, true, and `feature_dim`
        it is not tried on an image after it was built.

        Raises:
            ValueError: --stem or --drop-path asks for what the network does not have.
            WrongSize: the network cannot be built for images of this size.
        """

    def fit(self, state: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
        """Fit weights from elsewhere to an encoder, such as position embeddings of another image size."""

    def normalisation(self, encoder: nn.Module) -> Normalisation | None:
        """Return what the family's package says that weights of a model were trained with, whatever file holds them."""

    def default_weights(self, encoder: nn.Module, spec: EncoderSpec) -> Weights:
        """Return the weights that the family publishes for a model, from the usual cache if they are there.

        Raises:
            ValueError: there are none, or they cannot be fetched; with what to do.
        """


def families() -> list[Family]:
    """Return the families: every module of this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [cast(Family, importlib.import_module(f"{__name__}.{name}")) for name in names]


def family_of(name: str) -> Family:
    """Return the family that a name belongs to.

    Raises:
        ValueError: none has it.
    """
    for family in families():
        if family.has(name):
            return family
    offered = "; ".join(", ".join(family.names()) for family in families())
    raise ValueError(f"--encoder {name} is unknown; use {offered}")


def build_encoder(spec: EncoderSpec, drop_path: float = 0.0) -> nn.Module:
    """Build a randomly initialised encoder with the attributes `feature_dim` and `cut`, the layers that were cut off.

    Args:
        spec: what to build.
        drop_path: largest probability that a residual branch is left out in training, in [0, 1).

    Raises:
        ValueError: unknown name, or a size, --stem or --drop-path that the network cannot take.
    """
    family = family_of(spec.name)
    try:
        return _build(family, spec, drop_path)
    except WrongSize as error:
        raise ValueError(_sizes_message(family, spec)) from error


class WrongSize(Exception):
    """A network cannot be built for, or does not run on, images of this size."""


def _build(family: Family, spec: EncoderSpec, drop_path: float = 0.0) -> nn.Module:
    encoder = family.build(spec, drop_path)
    # Only a trial knows what the many networks take; those that take everything say so and are spared it.
    if not getattr(encoder, "any_size", False):
        encoder.feature_dim = _try(encoder, spec)  # type: ignore[assignment]  # a plain attribute
    return encoder


def _try(encoder: nn.Module, spec: EncoderSpec) -> int:
    """Send an image through on the device that computes shapes alone; return the number of features."""
    tensors = {name: value.detach().to("meta") for name, value in encoder.state_dict(keep_vars=True).items()}
    tensors |= {name: value.to("meta") for name, value in encoder.named_buffers()}
    image = torch.zeros(1, spec.channels, spec.image_size, spec.image_size, device="meta")
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            out = functional_call(encoder, tensors, (image,))
    except (RuntimeError, AssertionError, ValueError, ArithmeticError) as error:
        raise WrongSize(str(error)) from error
    finally:
        encoder.train(training)
    if out.ndim != 2:
        raise WrongSize(f"features have the shape {list(out.shape)}")
    return int(out.shape[1])


def _sizes_message(family: Family, spec: EncoderSpec) -> str:
    fitting = []
    for size in _SIZES:
        other = EncoderSpec(spec.name, spec.channels, size, spec.stem)
        try:
            try:
                with torch.device("meta"):
                    _build(family, other)
            except NotImplementedError:  # it computes something while it is built
                _build(family, other)
        except WrongSize:
            continue
        fitting.append(size)
    usual = f"{', '.join(map(str, fitting)) or 'none of the usual sizes'} px"
    if len(fitting) > 1 and fitting == list(_SIZES[-len(fitting) :]):
        usual = f"{fitting[0]} px and more"
    return f"--image-size {spec.image_size} does not fit --encoder {spec.name}; it takes {usual}"
