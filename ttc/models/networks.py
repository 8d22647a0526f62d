"""Encoders, stems for small images, the projection head, and the network that pretraining trains.

Legend: N images, C channels, H x W pixels, F encoder features, D projection dimensions.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from ttc.run import checkpoint, files

_SMALL_IMAGE = 64
"""Up to this many pixels a ResNet gets the small-image stem: the other one would shrink 32 px to an 8 x 8 map."""

_TINY_IMAGE = 16
"""Up to this many pixels the small encoder starts with stride 1, so that an 8-px image keeps a 2 x 2 map."""


class ConvNet(nn.Module):
    """Five 3x3 convolutions with BatchNorm and ReLU and a global mean: a CPU trains it at thousands of images a second.

    Widths are w, 2w, 2w, 4w, 4w with strides s, 1, 2, 1, 2; s is 2, or 1 for images of at most 16 px. With w = 16 it
    has 70 thousand parameters and 64 features.
    """

    def __init__(self, width: int, channels: int, image_size: int) -> None:
        """Build the layers.

        Args:
            width: channels of the first convolution.
            channels: channels of the images.
            image_size: side of the images in px; it sets the first stride.
        """
        super().__init__()
        first = 1 if image_size <= _TINY_IMAGE else 2
        shape = [(width, first), (2 * width, 1), (2 * width, 2), (4 * width, 1), (4 * width, 2)]
        layers: list[nn.Module] = []
        for out, stride in shape:
            layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.feature_dim = channels

    def forward(self, images: Tensor) -> Tensor:
        """Encode float images [N, C, H, W] into features [N, F]."""
        out: Tensor = self.layers(images).mean((2, 3))
        return out


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to build an encoder again; it travels in the checkpoint.

    Attributes:
        name: "convnet-wN" (N = width, for example convnet-w16) or a ResNet of torchvision ("resnet18",
            "wide_resnet50_2", ...).
        channels: channels of the images.
        image_size: side of the images in px.
        stem: "imagenet" (7x7 stride 2 and max-pooling), "small" (3x3 stride 1, no pooling) or "auto" (by the image
            size).
    """

    name: str
    channels: int
    image_size: int
    stem: str = "auto"

    def as_dict(self) -> dict[str, str | int]:
        """Return plain values for the checkpoint."""
        return asdict(self)


def build_encoder(spec: EncoderSpec) -> nn.Module:
    """Build a randomly initialised encoder with an attribute `feature_dim`.

    Raises:
        ValueError: unknown name.
    """
    if match := re.fullmatch(r"convnet-w([1-9]\d{0,3})", spec.name):
        return ConvNet(int(match[1]), spec.channels, spec.image_size)
    from torchvision import models

    names = [name for name in models.list_models(models) if "resne" in name]
    if spec.name not in names:
        raise ValueError(f"--encoder {spec.name} is unknown; use convnet-w16 (any width) or {', '.join(names)}")
    network = models.get_model(spec.name, weights=None)
    small = spec.stem == "small" or (spec.stem == "auto" and spec.image_size <= _SMALL_IMAGE)
    width = network.conv1.out_channels
    if small:
        network.conv1 = nn.Conv2d(spec.channels, width, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    elif spec.channels != 3:
        network.conv1 = nn.Conv2d(spec.channels, width, 7, 2, 3, bias=False)
    if small or spec.channels != 3:
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.feature_dim = network.fc.in_features
    network.fc = nn.Identity()
    assert isinstance(network, nn.Module)
    return network


def load_weights(encoder: nn.Module, spec: EncoderSpec, source: str) -> None:
    """Start an encoder from given weights.

    Args:
        encoder: what `build_encoder(spec)` returned; changed in place.
        spec: its description.
        source: "imagenet" (torchvision's default weights of this ResNet) or a file: a checkpoint of pretrain.py, or a
            state dict as torchvision saves it (its classifier is left out). The first convolution of an RGB network is
            summed over its channels for one-channel images, which equals repeating the grey channel three times.

    Raises:
        ValueError: the weights cannot be had or do not fit; the message names the first parameters that differ.
    """
    state = _imagenet_weights(spec) if source == "imagenet" else _weights_of_file(Path(source))
    own = encoder.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    first = state.get("conv1.weight")
    if first is not None and spec.channels == 1 and first.ndim == 4 and first.shape[1] == 3:
        state["conv1.weight"] = first.sum(1, keepdim=True)
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise ValueError(
            f"--weights {source} does not fit --encoder {spec.name} ({len(wrong)} entries differ, first: {wrong[0]}); "
            f"choose the encoder that the weights belong to, or another --stem"
        )
    encoder.load_state_dict(state)


def _imagenet_weights(spec: EncoderSpec) -> dict[str, Tensor]:
    from urllib.error import URLError

    from torchvision import models

    if spec.name.startswith("convnet"):
        raise ValueError(f"--weights imagenet: there are none for --encoder {spec.name}; use a ResNet")
    weights = models.get_model_weights(spec.name).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise ValueError(
            f"--weights imagenet: {weights.url} could not be fetched ({error}); download it elsewhere and pass the file"
        ) from None
    return state


def _weights_of_file(path: Path) -> dict[str, Tensor]:
    try:
        content = files.read_bytes(path, files.run_of(path))
    except OSError as error:
        raise ValueError(f"--weights {path} cannot be read ({error.strerror}); pass a .pt file") from None
    try:
        state = checkpoint.unpack(content)
    except ValueError:
        raise ValueError(f"--weights {path} is no file of plain tensors; pass a state dict saved by torch") from None
    if isinstance(state, dict) and "encoder" in state:
        state = state["encoder"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"--weights {path} holds no state dict; pass a dict of tensors")
    return dict(state)


class PretrainNetwork(nn.Module):
    """Encoder and projection head: what the contrastive methods train, and what DDP wraps.

    The head is F -> F -> D with one ReLU, unit length at the end. Methods on features have no head.

    Source: Mildenberger et al., CVPR 2025: projector 2048-2048-128 without BatchNorm.
    """

    def __init__(self, encoder: nn.Module, projection_dim: int | None, *, batchnorm: bool = False) -> None:
        """Join the encoder and a new head.

        Args:
            encoder: module with `feature_dim`.
            projection_dim: D, or None for a network without a head.
            batchnorm: normalise the head's hidden units over the batch, as SimCLR does and the paper does not.
        """
        super().__init__()
        self.encoder = encoder
        self.feature_dim = int(encoder.feature_dim)  # type: ignore[arg-type]  # every encoder of build_encoder has it
        self.projection: nn.Module | None = None
        if projection_dim is not None:
            hidden = [nn.BatchNorm1d(self.feature_dim)] if batchnorm else []
            self.projection = nn.Sequential(
                nn.Linear(self.feature_dim, self.feature_dim),
                *hidden,
                nn.ReLU(True),
                nn.Linear(self.feature_dim, projection_dim),
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embed images.

        Args:
            images: [N, C, H, W] float, normalised.

        Returns:
            features [N, F] and z: [N, D] float32 of unit length, or the features again without a head.
        """
        features = self.encoder(images)
        if self.projection is None:
            return features, features
        # Unit length in float32: in half precision the rounding alone moves the cosines by a thousandth.
        return features, functional.normalize(self.projection(features).float(), dim=1)
