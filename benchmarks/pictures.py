"""Photograph-like images, drawn, and folders of them as JPEG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90
RARE_EVERY = 20
HELD_OUT = 4


def draw(pixels: int, seed: int) -> Image.Image:
    """Return an RGB image of 4 : 3, smooth shapes under noise, so that a JPEG has a usual size."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((pixels, pixels * 3 // 4), Image.Resampling.BICUBIC), dtype=np.float32)
    return Image.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def write_dataset(root: Path, training: int, pixels: int) -> None:
    """Draw JPEG files for `--dataset imagefolder`: so many for training, every 20th of them rare, and a few others."""
    for number, split in enumerate(["train"] * training + ["val"] * HELD_OUT + ["test"] * HELD_OUT):
        rare = number % (RARE_EVERY if split == "train" else 2) == 0
        folder = root / split / ("rare" if rare else "common")
        folder.mkdir(parents=True, exist_ok=True)
        draw(pixels, number).save(folder / f"{number:06d}.jpg", quality=QUALITY)
