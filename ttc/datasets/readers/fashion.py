"""Fashion-MNIST from its four idx files: 60,000 training and 10,000 test images, 28x28 pixels."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ttc.datasets.classes import group_labels
from ttc.datasets.table import DatasetSettings, Source

ARTICLES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
LABELS = {str(label): article for label, article in enumerate(ARTICLES)}
DEFAULT_CLASSES = ("01259", "34678")
VAL_FRACTION = 0.05
SUBFOLDERS = ("FashionMNIST/raw", "")
MAX_BYTES = 60_000 * 28 * 28 + 1024
UINT8_IDX = 0x08
PREFIXES = {"train": "train", "test": "t10k"}


def read(settings: DatasetSettings) -> Source:
    """Read the four files, plain or gzipped; 5 % of the official training set becomes the validation set."""
    if settings.data_root is None:
        raise ValueError(
            "--dataset fashion needs --data-root, the folder with train-images-idx3-ubyte.gz and its three siblings; "
            "get them with torchvision.datasets.FashionMNIST(ROOT, download=True) or Debian's dataset-fashion-mnist"
        )
    root = Path(settings.data_root)
    ids: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    pixels = []
    for split, prefix in PREFIXES.items():
        images_path = _find(root, f"{prefix}-images-idx3-ubyte")
        labels_path = _find(root, f"{prefix}-labels-idx1-ubyte")
        images, targets = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(targets):
            raise ValueError(
                f"{images_path} has {len(images)} images and {labels_path.name} {len(targets)} labels; "
                "fetch both again from one source"
            )
        if len(targets) and targets.max() >= len(ARTICLES):
            raise ValueError(f"{labels_path} holds label {targets.max()}, above 9; this is not Fashion-MNIST")
        ids += [f"fashion/{split}/{row:05d}" for row in range(len(targets))]
        labels += [str(target) for target in targets.tolist()]
        splits += [split] * len(targets)
        pixels.append(images)
    return Source(
        ids=ids,
        labels=labels,
        classes=group_labels(LABELS, settings.classes, settings.positive_classes, DEFAULT_CLASSES),
        splits=splits,
        held_out={"val": VAL_FRACTION},
        pixels=np.concatenate(pixels),
    )


def read_idx(path: Path, dimensions: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read an idx file of bytes, plain or gzipped (with its checksum).

    Args:
        path: The file; gzipped if the name ends in .gz.
        dimensions: Number of axes the file must have.

    Returns:
        uint8 array of the shape in the header.

    Raises:
        ValueError: If the file is damaged, of another kind, or its length contradicts its header.
    """
    remedy = "fetch the file again"
    try:
        # A little more than the largest of the four files, so that a small file cannot unpack to gigabytes.
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        if path.suffix == ".gz":
            content = _unpacked(content)
    except (OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
    header = 4 * (1 + dimensions)
    if content[:4] != bytes([0, 0, UINT8_IDX, dimensions]) or len(content) < header:
        raise ValueError(f"{path} is no idx file of bytes with {dimensions} axes; {remedy}")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise ValueError(f"{path} has {len(content)} bytes where its header promises {expected}; {remedy}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _unpacked(content: bytes) -> bytes:
    """Return what a gzip file holds, all its members; in half the time that the module gzip takes."""
    unpacked = b""
    while content and len(unpacked) < MAX_BYTES:
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        unpacked += unpacker.decompress(content, MAX_BYTES - len(unpacked))
        if not unpacker.eof and len(unpacked) < MAX_BYTES:
            raise zlib.error("it ends too early")
        content = unpacker.unused_data.lstrip(b"\0")  # a file may be filled up with zeros
    return unpacked


def _find(root: Path, name: str) -> Path:
    """Return the plain or gzipped file in torchvision's layout below `root`, or in `root` itself."""
    candidates = [root / folder / (name + suffix) for folder in SUBFOLDERS for suffix in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"--data-root {root} has no {name}.gz, neither there nor in {SUBFOLDERS[0]}; "
        "pass the folder that holds the four Fashion-MNIST files"
    )
