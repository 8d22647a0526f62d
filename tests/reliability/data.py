"""Image files for runs that decode them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def image_folder(root: Path, per_split: int = 96) -> Path:
    """Write digits as PNG files in the layout SPLIT/CLASS/FILE: even numbers, and few odd ones."""
    pixels, digits = load_digits(return_X_y=True)
    images, odd = (pixels.reshape(-1, 8, 8) * 15).astype(np.uint8), digits % 2 == 1
    for part, split in enumerate(("train", "val", "test")):
        for name, rows, count in (("even", ~odd, per_split * 7 // 8), ("odd", odd, per_split // 8)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, image in enumerate(images[rows][part * per_split : part * per_split + count]):
                Image.fromarray(image).resize((16, 16)).save(folder / f"{number:03d}.png")
    return root
