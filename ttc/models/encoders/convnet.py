"""convnet-wN: a small network that a CPU trains, for images of 8 to 64 px."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ttc.models.encoders import EncoderSpec, Normalisation, Weights

_TINY_IMAGE = 16
"""Up to this many pixels the network starts with stride 1, so that an 8-px image keeps a 2 x 2 map."""


class ConvNet(nn.Module):
    """Five 3x3 convolutions with BatchNorm and ReLU and a global mean: a CPU trains it at thousands of images a second.

    Widths are w, 2w, 2w, 4w, 4w with strides s, 1, 2, 1, 2; s is 2, or 1 for images of at most 16 px. With w = 16 it
    has 70 thousand parameters and 64 features.
    """

    any_size = True
    cut: tuple[str, ...] = ()

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


def names() -> list[str]:
    """Return the pattern of the names."""
    return ["convnet-w16 (any width)"]


def has(name: str) -> bool:
    """Tell whether a name is one of these."""
    return re.fullmatch(r"convnet-w[1-9]\d{0,3}", name) is not None


def build(spec: EncoderSpec, drop_path: float) -> nn.Module:
    """Build the network."""
    if drop_path:
        raise ValueError(f"--drop-path {drop_path:g}: --encoder {spec.name} has no residual branches; leave it out")
    return ConvNet(int(spec.name.removeprefix("convnet-w")), spec.channels, spec.image_size)


def fit(state: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """Return the weights as they are."""
    return state


def normalisation(encoder: nn.Module) -> Normalisation | None:
    """Return nothing: no weights are published, so each run normalises by its data."""
    return None


def default_weights(encoder: nn.Module, spec: EncoderSpec) -> Weights:
    """Refuse: nobody has published any."""
    raise ValueError(f"there are none for --encoder {spec.name}; pass a file or another encoder")
