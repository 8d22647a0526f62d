"""Resize the centre of images, which need not be whole pixels, the same for one image and for many.

Legend: S length of the result, T taps of the filter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def resize_centre(pixels: Tensor, dim: int, shown_px: float, size: int) -> Tensor:
    """Resize the centre of images along one dimension, bilinearly and antialiased, as Pillow does with a box.

    Sums a few shifted images, so that a result does not depend on how many images are resized at once.

    Args:
        pixels: float, of any shape.
        dim: the dimension.
        shown_px: length of the centre, which need not be whole.
        size: length of the result.
    """
    length, device = pixels.shape[dim], pixels.device
    scale = shown_px / size
    reach = max(scale, 1.0)
    centre_S = (length - shown_px) / 2 + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first_S = (centre_S - reach + 0.5).floor().long()
    place_ST = first_S[:, None] + torch.arange(math.ceil(2 * reach) + 1)
    weight_ST = (1 - (place_ST + 0.5 - centre_S[:, None]).abs() / reach).clamp(min=0)
    weight_ST = torch.where((place_ST >= 0) & (place_ST < length), weight_ST, 0.0)
    weight_ST = (weight_ST / weight_ST.sum(1, keepdim=True)).to(pixels.dtype).to(device, non_blocking=True)
    place_ST = place_ST.clamp(0, length - 1).to(device, non_blocking=True)
    shape = [1] * pixels.ndim
    shape[dim] = size
    out = torch.zeros_like(pixels.index_select(dim, place_ST[:, 0]))
    for tap in range(place_ST.shape[1]):
        out = out + weight_ST[:, tap].view(shape) * pixels.index_select(dim, place_ST[:, tap])
    return out
