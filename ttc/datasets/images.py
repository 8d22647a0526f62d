"""Where pixels come from: one uint8 tensor in memory, or image files decoded on demand.

Shape legend: B batch, N samples, C channels, H height, W width, S side of the stored square.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("ttc")

# Room for the random and centre crops of the augmentation, which runs after decoding.
STORED_MARGIN = 1.15
# Pillow's own warning threshold; beyond it a small file may unpack to gigabytes.
MAX_PIXELS = 89_478_485
RESIZE_CHUNK = 1024
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
GRAY_MODES = ("1", "L", *SIXTEEN_BIT_MODES)


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images held in memory.

    Args:
        data: uint8 [N, C, H, W], values 0..255.
    """

    data: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` (int64 [B]) as uint8 [B, C, H, W]."""
        return self.data[indices]


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files, decoded when asked for.

    Every image becomes an upright uint8 square: EXIF rotation is applied, the shorter side is resized with
    antialiasing to `size`, and the centre square is cut out. Transparency is laid over white, CMYK and palettes
    are converted to RGB, 16-bit samples keep their high byte, gray targets use the ITU-R 601 luma.

    Args:
        paths: One file per sample.
        size: Side of the square in pixels.
        channels: 1 (gray) or 3 (RGB).
    """

    paths: Sequence[str]
    size: int
    channels: int

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images at `indices` (int64 [B]).

        Returns:
            uint8 [B, C, S, S].

        Raises:
            ValueError: If a file is missing or broken; names its path and the reason.
        """
        return torch.stack([self.decode(self.paths[i]) for i in indices.tolist()])

    def decode(self, path: str) -> Tensor:
        """Decode one file to uint8 [C, S, S]; raise ValueError for a missing or broken one."""
        try:
            with _open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
                # Lets the JPEG decoder skip detail that a square of this size cannot show.
                image.draft(None, (2 * self.size, 2 * self.size))
                pixels = np.asarray(_square(_eight_bit(image, self.channels), self.size))
        except Exception as error:  # decoders raise a dozen unrelated types for broken files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"cannot read image {path}: {reason}; repair or remove it, or pass --on-bad-image skip"
            ) from error
        return torch.from_numpy(pixels.copy()).reshape(self.size, self.size, self.channels).permute(2, 0, 1)


def stored_size(image_size: int) -> int:
    """Return the side of the square that is decoded from files for a network input of `image_size`."""
    return round(STORED_MARGIN * image_size)


def _open(path: str) -> Image:
    """Open a regular file as an image; a broken one raises what its decoder raises."""
    from PIL import Image as pil

    # Pillow itself only warns, on stderr, about images that unpack to a quarter of a gigabyte and more.
    warnings.simplefilter("error", pil.DecompressionBombWarning)
    # A pipe without a writer would wait for ever.
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError("not a regular file")
    return pil.open(path)


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
    """Resize the shorter side to `size` with antialiasing and keep the centre square."""
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Resampling.BILINEAR, box=(left, top, left + side, top + side))


def count_channels(paths: Sequence[str]) -> int:
    """Return 1 when every readable file among `paths` is gray, else 3; broken files are left to the decoder."""
    modes = set()
    for path in paths:
        try:
            with _open(path) as image:
                modes.add(image.mode)
        except Exception as error:  # the decoder reports this file with its path, or skips it, as the user chose
            log.debug("header of %s is unreadable: %s", path, error)
    return 1 if modes and modes <= set(GRAY_MODES) else 3


def find_bad_images(images: FileImages, num_workers: int) -> dict[int, str]:
    """Decode every file once and collect the ones that fail.

    Args:
        images: Files to verify.
        num_workers: Decoding threads; 0 uses one per processor.

    Returns:
        Reason per bad position, ascending.
    """

    def problem(path: str) -> str | None:
        try:
            images.decode(path)
        except ValueError as error:
            return str(error.__cause__) or type(error.__cause__).__name__
        return None

    bad: dict[int, str] = {}
    report_every = max(1000, len(images) // 10)
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        for position, reason in enumerate(pool.map(problem, images.paths)):
            if reason is not None:
                bad[position] = " ".join(reason.split())
            if (position + 1) % report_every == 0:
                log.info("verified %d of %d images, %d bad", position + 1, len(images), len(bad))
    return bad


def tensor_images(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], image_size: int | None) -> TensorImages:
    """Build in-memory images, resized once where the size differs.

    Args:
        pixels: uint8 [N, H, W] or [N, H, W, C].
        image_size: Side in pixels; None keeps the native size.

    Returns:
        Images of uint8 [N, C, S, S]; resizing is bilinear with antialiasing, rounded to whole values.
    """
    data = torch.from_numpy(np.ascontiguousarray(pixels))
    data = data.unsqueeze(1) if data.ndim == 3 else data.permute(0, 3, 1, 2).contiguous()
    if image_size is None or data.shape[-2:] == (image_size, image_size):
        return TensorImages(data)
    resized = torch.empty(*data.shape[:2], image_size, image_size, dtype=torch.uint8)
    # Chunks, because the float copy of a whole data set would take four times its memory.
    for at in range(0, len(data), RESIZE_CHUNK):
        chunk = data[at : at + RESIZE_CHUNK].float()
        smooth = torch.nn.functional.interpolate(
            chunk, (image_size, image_size), mode="bilinear", antialias=True, align_corners=False
        )
        resized[at : at + RESIZE_CHUNK] = smooth.round().clamp(0, 255)
    return TensorImages(resized)


def relative_id(path: Path, root: Path) -> str:
    """Return the path below `root` with forward slashes, stable across machines."""
    return path.relative_to(root).as_posix()
