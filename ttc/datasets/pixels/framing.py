"""Which part of an image becomes the stored square.

Legend: W width and H height of the image, S side of the square.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

AREA_WORTH_TELLING = 0.1


def area_cut_off(width: int, height: int, framing: str) -> float:
    """Return the share of an image's area that the stored square does not hold."""
    return 1 - min(width, height) / max(width, height) if framing == "crop" else 0.0


def reference_side(width: int, height: int, framing: str) -> int:
    """Return the side of the image that becomes the square's."""
    return max(width, height) if framing == "pad" else min(width, height)


def frame(image: Image, size: int, framing: str) -> Image:
    """Make the square of a Pillow image, resized with antialiasing; see `Decoding` for the arguments."""
    from PIL import Image as pil

    if framing == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return image.resize((size, size), pil.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if framing == "squash":
        return image.resize((size, size), pil.Resampling.BILINEAR)
    width, height, left, top = padded_place(*image.size, size)
    square = pil.new(image.mode, (size, size))
    square.paste(image.resize((width, height), pil.Resampling.BILINEAR), (left, top))
    return square


def frame_tensor(pixels: Tensor, size: int, framing: str) -> Tensor:
    """Make the square of a uint8 image [C, H, W] with torch, whose resizing is faster for a few times the size."""
    height, width = pixels.shape[1:]
    if framing == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resized(pixels[:, top : top + side, left : left + side], size, size)
    if framing == "squash":
        return _resized(pixels, size, size)
    inner_width, inner_height, left, top = padded_place(width, height, size)
    square = torch.zeros(len(pixels), size, size, dtype=torch.uint8)
    square[:, top : top + inner_height, left : left + inner_width] = _resized(pixels, inner_height, inner_width)
    return square


def padded_place(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Return width, height, left and top of a whole image in the middle of a square of side `size`."""
    longest = max(width, height)
    inner_width, inner_height = max(1, round(size * width / longest)), max(1, round(size * height / longest))
    return inner_width, inner_height, (size - inner_width) // 2, (size - inner_height) // 2


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    resized = torch.nn.functional.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].contiguous()
