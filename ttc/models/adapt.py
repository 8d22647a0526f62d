"""Fit networks and weights that were made for large colour photographs to other images.

Legend: O output channels, C image channels, k kernel size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def first_convolution(encoder: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the convolution that sees the image, with its name."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise AssertionError("an encoder without a convolution")


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weight of a first convolution for another number of channels.

    One channel gets the sum over all: a grey image then gives what its equal colour channels gave. More channels repeat
    the given ones, divided so that equal channels give what they gave.

    Args:
        weight: [O, C, k, k].
        channels: that are wanted.

    Returns:
        [O, channels, k, k].
    """
    before = weight.shape[1]
    if channels == before:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % before] * (before / channels)


def set_channels(encoder: nn.Module, channels: int) -> None:
    """Let an encoder of colour images take images of another number of channels; see `fit_channels`."""
    _, first = first_convolution(encoder)
    if first.in_channels != channels:
        first.weight = nn.Parameter(fit_channels(first.weight.detach(), channels))
        first.in_channels = channels


def halve_stem(encoder: nn.Module) -> bool:
    """Halve the stride of the first convolution and drop a max pooling of the stem; weights keep their shapes.

    Returns:
        Whether there was a stride to halve.
    """
    _, first = first_convolution(encoder)
    if first.stride[0] < 2:
        return False
    first.stride = (first.stride[0] // 2, first.stride[1] // 2)
    if first.padding == (0, 0):
        # A patch that overlaps the next one needs a margin to keep every part of the image.
        first.padding = ((first.kernel_size[0] - first.stride[0]) // 2,) * 2
    if isinstance(getattr(encoder, "maxpool", None), nn.MaxPool2d):
        encoder.maxpool = nn.Identity()
    return True
