"""Sample files, written by the tests themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.make_sample_data import WRITERS, Artist

Write = Callable[[Path], Path]
MakeTree = Callable[[Mapping[str, int]], Path]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep caches out of the user's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "ttc"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write the sample tree of a layout once and return its folder."""
    root = tmp_path_factory.mktemp("samples")

    def write(layout: str) -> Path:
        if not (root / layout).exists():
            assert list(WRITERS[layout](root / layout, Artist(24, 0), 40))
        return root / layout

    return write


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
