"""Images of more than 8 bits in PNG, TIFF and PGM files."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttc.datasets.pixels.intensity import EIGHT_BIT, Samples

if TYPE_CHECKING:
    from PIL.Image import Image

SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT = 258, 262, 339


def depth_of(image: Image) -> str:
    """Name the depth of an opened image; see `intensity.Samples`."""
    if image.mode == "F":
        return "float"
    if image.mode in SIXTEEN_BIT_MODES:
        bits, signed = _tiff_type(image)
        return f"{'signed ' if signed else ''}{32 if bits > 16 else 16}-bit"
    # Pillow decodes colours of 16 bits to their high byte; the parameters of the decoder tell how the file has them.
    parameters = [tile[3] for tile in getattr(image, "tile", [])]
    names = [modes[0] if isinstance(modes, tuple) and modes else modes for modes in parameters]
    return "16-bit" if any(isinstance(name, str) and ";16" in name for name in names) else EIGHT_BIT


def read_samples(image: Image, content: bytes) -> Samples:
    """Decode an opened image of more than 8 bits, without turning it upright."""
    depth = depth_of(image)
    inverted = image.format == "TIFF" and _tiff_tag(image, TIFF_PHOTOMETRIC, 1) == 0
    if depth == "float":
        return Samples(np.asarray(image), depth, 0.0, 1.0, inverted)
    if image.mode in SIXTEEN_BIT_MODES:
        bits, signed = _tiff_type(image)
        values = np.asarray(image)
        if bits == 32 and not signed:
            values = values.view(np.uint32)
        ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
        return Samples(values, depth, *ends, inverted)
    values = _colours(image, content)
    if values.shape[2] in (1, 3):
        return Samples(values, depth, 0.0, 65535.0)
    return Samples(values[..., :-1], depth, 0.0, 65535.0, alpha=(values[..., -1] >> 8).astype(np.uint8))


def _colours(image: Image, content: bytes) -> NDArray[Any]:
    """Decode a colour image of 16 bits, which Pillow cannot, to uint16 [H, W, C]."""
    if image.format == "PNG":
        from torchvision.io import ImageReadMode, decode_png

        # torchvision announces that its decoders move to another package; nothing a user could act on.
        warnings.filterwarnings("ignore", message=".*deprecated", module="torchvision")
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        out: NDArray[Any] = decode_png(data, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
        return out
    try:
        import tifffile
    except ImportError:
        raise ValueError("colours of 16 bits in TIFF need the package tifffile; pip install tifffile") from None
    values = tifffile.imread(io.BytesIO(content))
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype != np.uint16:
        raise ValueError(f"colours of the kind {values.dtype} {list(values.shape)} are not supported; save it as PNG")
    colours: NDArray[Any] = values
    return colours


def _tiff_tag(image: Image, tag: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _tiff_type(image: Image) -> tuple[int, bool]:
    """Return bits and sign of the samples of a gray image; only TIFF has more than unsigned 16 bits."""
    if image.format != "TIFF":
        return 16, False
    return _tiff_tag(image, TIFF_BITS, 16), _tiff_tag(image, TIFF_SAMPLE_FORMAT, 1) == 2
