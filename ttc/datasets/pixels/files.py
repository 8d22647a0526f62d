"""Image files before they are decoded: which files are images, their bytes, their headers, their orientation."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ttc.datasets.pixels import dicom
from ttc.datasets.pixels.deep import SIXTEEN_BIT_MODES, depth_of

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("ttc")

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".dcm"}
# Pillow's own warning threshold; beyond it a small file may unpack to gigabytes.
MAX_PIXELS = 89_478_485
GRAY_MODES = ("1", "L", "F", *SIXTEEN_BIT_MODES)
ORIENTATION = 274
_FRAME = re.compile(r"(.+)#(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Header:
    """What is known of an image without decoding it.

    Attributes:
        width, height: in pixels.
        depth: of the samples, as `intensity.Samples` names it, or "8-bit".
        mode: format and colour mode, such as "PNG RGB".
        gray: whether it has one channel and no transparency.
    """

    width: int
    height: int
    depth: str
    mode: str
    gray: bool


def is_image(path: Path) -> bool:
    """Tell whether a file is listed as an image: by its extension, or without one by the beginning of a DICOM file."""
    if path.suffix:
        return path.suffix.lower() in EXTENSIONS
    try:
        _check_regular(str(path))
        with path.open("rb") as file:
            return dicom.is_dicom(file.read(dicom.PREAMBLE_BYTES + len(dicom.MAGIC)))
    except (OSError, ValueError):
        return False


def split_frame(path: str) -> tuple[str, int | None]:
    """Return the file of a path, and the number of the frame where it is written behind it as `path#2`."""
    match = _FRAME.fullmatch(path) if "#" in path else None
    if match is None or Path(path).exists():
        return path, None
    return match[1], int(match[2])


def content_digest(content: bytes, path: str) -> str:
    """Return the digest (hex) of an image: of the bytes of its file, and of the frame where one is named."""
    number = split_frame(path)[1]
    return hashlib.blake2b(content, digest_size=16, salt=b"" if number is None else str(number).encode()).hexdigest()


def read_regular(path: str) -> bytes:
    """Return the content of a regular file, given with or without the number of a frame."""
    file = split_frame(path)[0]
    _check_regular(file)
    return Path(file).read_bytes()


def _check_regular(path: str) -> None:
    # A pipe without a writer would wait for ever.
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError("not a regular file")


def check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS}")


def open_image(file: str | io.BytesIO) -> Image:
    """Read the header of an image; a decompression bomb is an error, not a warning on the terminal."""
    from PIL import Image as pil

    if isinstance(file, str):
        _check_regular(file)

    warnings.filterwarnings("error", category=pil.DecompressionBombWarning)
    return pil.open(file)


def read_header(path: str, dicom_window: tuple[float, float] | None = None) -> Header:
    """Look at an image without decoding it; errors as the decoders raise."""
    file = split_frame(path)[0]
    _check_regular(file)
    with Path(file).open("rb") as opened:
        if dicom.is_dicom(opened.read(dicom.PREAMBLE_BYTES + len(dicom.MAGIC))):
            opened.seek(0)
            width, height, depth, mode = dicom.read_header(opened, dicom_window)
            return Header(width, height, depth, mode, "MONOCHROME" in mode)
    with open_image(file) as image:
        mode = f"{image.format} {image.mode}"
        return Header(image.width, image.height, depth_of(image), mode, image.mode in GRAY_MODES)


def count_channels(paths: Sequence[str]) -> int:
    """Return 1 when every readable file among `paths` is gray, else 3; broken files are left to the decoder."""
    gray = set()
    for path in paths:
        try:
            gray.add(read_header(path).gray)
        except Exception as error:  # the decoder reports this file with its path, or skips it, as the user chose
            log.debug("header of %s is unreadable: %s", path, error)
    return 1 if gray == {True} else 3


def orientation_of(image: Image, *, xmp: bool = True) -> int:
    """Return the EXIF orientation, 1 to 8, or if wanted that of XMP; 1 where there is none that can be read."""
    from PIL import Image as pil

    try:
        if xmp:
            orientation = image.getexif().get(ORIENTATION, 1)
        else:
            exif = pil.Exif()
            exif.load(image.info.get("exif", b""))
            orientation = exif.get(ORIENTATION, 1)
    except Exception as error:  # a damaged header of a sound image
        log.debug("EXIF is unreadable: %s", error)
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array [H, W, ...] upright by its EXIF orientation."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return pixels[rows, columns]
