"""The encoders of the benchmarks: those of pretrain.py, and a ResNet-18 for small images with fewer channels."""

from __future__ import annotations

import re

from torch import nn

from ttc.models.encoders import EncoderSpec, build_encoder


def is_small_resnet18(name: str) -> bool:
    """Tell whether a name is resnet18-wN."""
    return re.fullmatch(r"resnet18-w\d+", name) is not None


def encoder_of(spec: EncoderSpec, drop_path: float = 0.0) -> nn.Module:
    """Build an encoder as `build_encoder` does, or resnet18-wN, a ResNet-18 with N channels in its first stage.

    Raises:
        ValueError: unknown name, a size that the network cannot take, or too few channels.
    """
    if not is_small_resnet18(spec.name):
        return build_encoder(spec, drop_path)
    width = int(spec.name.removeprefix("resnet18-w"))
    # With AVX2 only, oneDNN writes beyond its buffers in strided 1x1 convolutions of fewer channels.
    if width < 8:
        raise ValueError(f"--encoder {spec.name} crashes on some processors; give resnet18-w8 or wider")
    return small_resnet18(width, spec.channels)


def small_resnet18(width: int, channels: int) -> nn.Module:
    """Return a ResNet-18 with the stem for small images and `width` channels in its first stage."""
    from torchvision.models.resnet import BasicBlock

    def stage(inputs: int, outputs: int, stride: int) -> nn.Module:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        return nn.Sequential(
            BasicBlock(inputs, outputs, stride, shortcut if stride > 1 else None), BasicBlock(outputs, outputs)
        )

    network = nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        stage(width, width, 1),
        stage(width, 2 * width, 2),
        stage(2 * width, 4 * width, 2),
        stage(4 * width, 8 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    network.feature_dim = 8 * width  # type: ignore[assignment]  # what the encoders of build_encoder have
    return network
