"""From the bytes of an image file to an upright uint8 square.

Shape legend: C channels, H height, W width, S side of the stored square.
"""

from __future__ import annotations

import io
import logging
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("ttc")

# Pillow's own warning threshold; beyond it a small file may unpack to gigabytes.
MAX_PIXELS = 89_478_485
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
GRAY_MODES = ("1", "L", *SIXTEEN_BIT_MODES)
# Above this multiple of S, Pillow's JPEG decoder leaves out detail that the square cannot show, and wins
# (benchmarks/decoding.py).
SCALED_DECODING = 4


def decode_file(path: str, size: int, channels: int) -> Tensor:
    """Decode an image file.

    EXIF rotation is applied, the centre square is kept and resized with antialiasing to `size`. Transparency is laid
    over white, CMYK and palettes are converted to RGB, 16-bit samples keep their high byte, gray targets use the
    ITU-R 601 luma. The first frame of an animation counts.

    Args:
        path: The file.
        size: Side S in pixels.
        channels: 1 (gray) or 3 (RGB).

    Returns:
        uint8 [C, S, S].

    Raises:
        ValueError: If the file is missing or broken; names its path, the reason and the remedy.
    """
    try:
        return decode_bytes(read_regular(path), size, channels)
    except Exception as error:  # decoders raise a dozen unrelated types for broken files
        raise ValueError(
            f"cannot read image {path}: {reason_of(error)}; repair or remove it, or pretrain with --on-bad-image skip"
        ) from error


def decode_bytes(content: bytes, size: int, channels: int) -> Tensor:
    """Decode the content of an image file; arguments and result as for `decode_file`, errors as the decoders raise."""
    with open_image(io.BytesIO(content)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
        if image.format == "JPEG" and image.mode in ("L", "RGB") and min(image.size) < SCALED_DECODING * size:
            return decode_jpeg(content, size, channels)
        # Lets the JPEG decoder skip detail that a square of this size cannot show.
        image.draft(None, (SCALED_DECODING // 2 * size, SCALED_DECODING // 2 * size))
        pixels = np.array(_square(_eight_bit(image, channels), size))
    return torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1).contiguous()


def decode_jpeg(content: bytes, size: int, channels: int) -> Tensor:
    """Decode a gray or RGB JPEG with torchvision; arguments and result as for `decode_file`."""
    from torchvision import io as torchvision_io

    # torchvision announces that its decoders move to another package; nothing a user of this script could act on.
    warnings.filterwarnings("ignore", message=".*deprecated", module="torchvision")
    mode = torchvision_io.ImageReadMode.GRAY if channels == 1 else torchvision_io.ImageReadMode.RGB
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    pixels: Tensor = torchvision_io.decode_jpeg(data, mode, apply_exif_orientation=True)
    side = min(pixels.shape[1:])
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    square = pixels[None, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)[0].contiguous()


def reason_of(error: BaseException) -> str:
    """Say in one line why a decoder failed."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "cannot identify image file" in str(error):  # Pillow goes on to name an object in memory
        return "not an image that can be read"
    # torchvision puts the place in its own source file before the reason.
    return " ".join(str(error).split()).rsplit(".cpp:", 1)[-1].split(", ", 1)[-1] or type(error).__name__


def read_regular(path: str) -> bytes:
    """Return the content of a regular file."""
    _check_regular(path)
    return Path(path).read_bytes()


def _check_regular(path: str) -> None:
    # A pipe without a writer would wait for ever.
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError("not a regular file")


def open_image(file: str | io.BytesIO) -> Image:
    """Read the header of an image; a decompression bomb is an error, not a warning on the terminal."""
    from PIL import Image as pil

    if isinstance(file, str):
        _check_regular(file)

    warnings.filterwarnings("error", category=pil.DecompressionBombWarning)
    return pil.open(file)


def count_channels(paths: Sequence[str]) -> int:
    """Return 1 when every readable file among `paths` is gray, else 3; broken files are left to the decoder."""
    modes = set()
    for path in paths:
        try:
            with open_image(path) as image:
                modes.add(image.mode)
        except Exception as error:  # the decoder reports this file with its path, or skips it, as the user chose
            log.debug("header of %s is unreadable: %s", path, error)
    return 1 if modes and modes <= set(GRAY_MODES) else 3


def _eight_bit(image: Image, channels: int) -> Image:
    """Return the upright image with 8-bit gray or RGB samples."""
    from PIL import Image as pil
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("floating-point samples have no known range")
    if upright.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integer samples lie outside the 16-bit range 0..65535")
        upright = pil.fromarray((values >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = pil.alpha_composite(pil.new("RGBA", upright.size, "white"), upright)
    return upright.convert("L" if channels == 1 else "RGB")


def _square(image: Image, size: int) -> Image:
    """Cut out the centre square and resize it with antialiasing."""
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Resampling.BILINEAR, box=(left, top, left + side, top + side))
