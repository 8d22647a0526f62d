"""Sample files, written by the tests themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[[Path], Path]
MakeTree = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def write_png() -> Write:
    """Write a small gray PNG whose pixels are a function of its path, so that no two files are equal."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(hashlib.sha256(str(path).encode()).digest()[:4], "big")
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def make_tree(tmp_path: Path, write_png: Write) -> MakeTree:
    """Write `count` images into every folder named by the mapping's keys."""

    def make(folders: Mapping[str, int]) -> Path:
        root = tmp_path / "images"
        for folder, count in folders.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                write_png(root / folder / f"{number:03d}.png")
        return root

    return make
