"""JPEG, by libjpeg-turbo: one decoder at every scale, and a warning of it is an error.

libjpeg fills blocks that it cannot read with gray and goes on; Pillow and torchvision hide that it said so.
"""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_HARMLESS = re.compile(r"unknown JFIF|Adobe|Invalid SOS parameters|extraneous bytes before marker 0xd9", re.I)
"""Warnings after which no block of the image is lost."""
_CUT_OFF = re.compile(r"Premature end of JPEG file")
_UNUSUAL = re.compile(r"Could not determine (subsampling|colorspace)")
"""What simplejpeg refuses though libjpeg can decode it."""


def decode_jpeg(content: bytes, *, gray: bool, scale: int = 1, accept_repaired: bool = False) -> Pixels:
    """Decode a gray or RGB JPEG.

    Args:
        content: of the file.
        gray: wants its luma; else RGB.
        scale: 1, 2, 4 or 8: the image is decoded to this part of its size.
        accept_repaired: take the image although parts of it are lost, unless the end mark is.

    Returns:
        uint8 [H, W, C], not turned upright.

    Raises:
        ValueError: the file is damaged.
    """
    import simplejpeg

    colours = "GRAY" if gray else "RGB"
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        size = {"min_height": -(-height // scale), "min_width": -(-width // scale)}
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(content, colours, **size)
        except ValueError as error:
            repaired = accept_repaired and not _CUT_OFF.search(str(error))
            if not repaired and not _HARMLESS.search(str(error)):
                raise
            pixels = simplejpeg.decode_jpeg(content, colours, **size, strict=False)
    except ValueError as error:
        if not _UNUSUAL.search(str(error)):
            raise
        pixels = _decode_unusual(content, gray=gray, scale=scale)
    return pixels


def refuse_repaired(content: bytes, *, cmyk: bool) -> None:
    """Raise ValueError when the decoder would have to repair a JPEG that something else is going to decode."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, "CMYK" if cmyk else "RGB", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        if not _HARMLESS.search(str(error)) and not _UNUSUAL.search(str(error)):
            raise


def _decode_unusual(content: bytes, *, gray: bool, scale: int) -> Pixels:
    """Decode chroma of a sampling that simplejpeg does not know; the values are the same, repairs go unnoticed."""
    if scale == 1:
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as decode

        mode = ImageReadMode.GRAY if gray else ImageReadMode.RGB
        pixels: Pixels = decode(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode).permute(1, 2, 0).numpy()
        return pixels
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (image.width // scale, image.height // scale))
        return np.asarray(image.convert("L" if gray else "RGB")).reshape(image.height, image.width, -1)
