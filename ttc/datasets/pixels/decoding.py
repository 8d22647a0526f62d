"""From the bytes of an image file to an upright uint8 square.

Legend: C channels, H height, W width, S side of the stored square.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc.datasets.pixels import dicom
from ttc.datasets.pixels.deep import SIXTEEN_BIT_MODES, depth_of, read_samples
from ttc.datasets.pixels.files import check_pixels, open_image, orientation_of, read_regular, split_frame, turn
from ttc.datasets.pixels.framing import frame, frame_tensor, reference_side
from ttc.datasets.pixels.intensity import EIGHT_BIT, Samples, check_depth, to_bytes
from ttc.datasets.pixels.jpeg import decode_jpeg, refuse_repaired
from ttc.datasets.pixels.preprocessing import Decoding

if TYPE_CHECKING:
    from PIL.Image import Image

# Above this multiple of S, the JPEG decoder leaves out detail that the square cannot show, and wins
# (benchmarks/decoding.py).
SCALED_DECODING = 4


TRAINED_WITHOUT = "pretrain with --on-bad-image skip"
"""How files that cannot be read are left out, where a script reads the images of a run."""

PASS_SKIP = "pass --on-bad-image skip"
"""The same where the script has the flag itself."""


def decode_file(path: str, decoding: Decoding, remedy: str = TRAINED_WITHOUT) -> Tensor:
    """Decode an image file.

    EXIF rotation is applied, then the framing, with antialiasing. Transparency is laid over white, CMYK and palettes
    are converted to RGB, more than 8 bits are mapped by the range of the set, gray targets use the ITU-R 601 luma.
    The first frame counts, unless the path names another: `path#2`.

    Args:
        path: The file.
        decoding: What decides the square.
        remedy: How the caller would leave the file out, for the message.

    Returns:
        uint8 [C, S, S].

    Raises:
        ValueError: If the file is missing or broken; names its path, the reason and the remedy.
    """
    try:
        return decode_bytes(read_regular(path), decoding, split_frame(path)[1])
    except Exception as error:  # decoders raise a dozen unrelated types for broken files
        raise ValueError(f"cannot read image {path}: {reason_of(error)}; repair or remove it, or {remedy}") from error


def decode_bytes(content: bytes, decoding: Decoding, number: int | None = None) -> Tensor:
    """Decode the content of an image file, frame `number` from 1; otherwise as `decode_file`, errors as they come."""
    if dicom.is_dicom(content):
        return _framed(_image_of(_dicom_pixels(content, decoding, number), decoding.channels), decoding)
    with open_image(io.BytesIO(content)) as image:
        check_pixels(image.width, image.height)
        if number is not None:
            image.seek(number - 1)
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            return _jpeg_square(image, content, decoding)
        if image.format in ("JPEG", "MPO") and decoding.edition > 1:
            refuse_repaired(content, cmyk=image.mode == "CMYK")
        # Lets the decoder of a JPEG in other colours skip detail that a square of this size cannot show.
        smallest = SCALED_DECODING // 2 * decoding.size
        image.draft(None, (smallest, smallest))
        return _framed(_eight_bit(image, content, decoding), decoding)


def reason_of(error: BaseException) -> str:
    """Say in one line why a decoder failed."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "cannot identify image file" in str(error):  # Pillow goes on to name an object in memory
        return "not an image that can be read"
    # torchvision puts the place in its own source file before the reason.
    text = " ".join(str(error).split())
    return text.rsplit(".cpp:", 1)[-1].split(", ", 1)[-1] if ".cpp:" in text else text or type(error).__name__


def _jpeg_square(image: Image, content: bytes, decoding: Decoding) -> Tensor:
    """Decode a gray or RGB JPEG; a large one at a smaller scale, of which the square shows the same."""
    check_depth(EIGHT_BIT, decoding)
    size, repaired = decoding.size, decoding.edition == 1
    side = reference_side(*image.size, decoding.framing)
    if side < SCALED_DECODING * size:
        turned = orientation_of(image, xmp=decoding.edition > 1)
        pixels = turn(decode_jpeg(content, gray=decoding.channels == 1, accept_repaired=repaired), turned)
        return frame_tensor(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), size, decoding.framing)
    scale = next(factor for factor in (8, 4, 2) if side // factor >= SCALED_DECODING // 2 * size)
    pixels = decode_jpeg(content, gray=image.mode == "L", scale=scale, accept_repaired=repaired)
    return _framed(_image_of(turn(pixels, orientation_of(image)), decoding.channels), decoding)


def _dicom_pixels(content: bytes, decoding: Decoding, number: int | None) -> NDArray[np.uint8]:
    width, height, *_ = dicom.read_header(io.BytesIO(content))
    check_pixels(width, height)
    samples = dicom.read_samples(content, number, decoding.dicom_window)
    if isinstance(samples, Samples):
        return to_bytes(samples, decoding)
    check_depth(EIGHT_BIT, decoding)
    return samples


def _eight_bit(image: Image, content: bytes, decoding: Decoding) -> Image:
    """Return the upright image with 8-bit gray or RGB samples."""
    from PIL import Image as pil
    from PIL import ImageOps

    if decoding.edition == 1:
        upright = _high_byte(ImageOps.exif_transpose(image))
    elif depth_of(image) == EIGHT_BIT:
        check_depth(EIGHT_BIT, decoding)
        upright = ImageOps.exif_transpose(image)
    else:
        samples, turned = read_samples(image, content), orientation_of(image)
        pixels = to_bytes(samples, decoding)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        if samples.alpha is not None:
            pixels = np.concatenate([pixels, samples.alpha[..., None]], axis=2)
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        upright = pil.fromarray(np.ascontiguousarray(turn(pixels, turned)))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = pil.alpha_composite(pil.new("RGBA", upright.size, "white"), upright)
    return upright.convert("L" if decoding.channels == 1 else "RGB")


def _high_byte(upright: Image) -> Image:
    """Return 8-bit samples by the rules of edition 1."""
    from PIL import Image as pil

    if upright.mode == "F":
        raise ValueError("floating-point samples have no known range")
    if upright.mode not in SIXTEEN_BIT_MODES:
        return upright
    values = np.asarray(upright)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("integer samples lie outside the 16-bit range 0..65535")
    return pil.fromarray((values >> 8).astype(np.uint8))


def _image_of(pixels: NDArray[np.uint8], channels: int) -> Image:
    """Make a Pillow image of bytes [H, W] or [H, W, C]."""
    from PIL import Image as pil

    image = pil.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels))
    return image.convert("L" if channels == 1 else "RGB")


def _framed(upright: Image, decoding: Decoding) -> Tensor:
    pixels = torch.from_numpy(np.array(frame(upright, decoding.size, decoding.framing)))
    return pixels.reshape(decoding.size, decoding.size, decoding.channels).permute(2, 0, 1).contiguous()
