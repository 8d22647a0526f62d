"""Where pixels come from: one uint8 tensor in memory, or image files decoded on demand.

Shape legend: B batch, N samples, C channels, H height, W width, S side of the stored square.
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ttc.datasets.pixels.decoding import TRAINED_WITHOUT, decode_file, reason_of
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.run.runtime import usable_cores

log = logging.getLogger("ttc")
T = TypeVar("T")

RESIZE_CHUNK = 1024


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
        """Return the images at `indices` (int64 [B], on any device) as uint8 [B, C, H, W]."""
        # Indices that torch has to move itself would make the host wait for a GPU.
        return self.data[indices.to(self.data.device, non_blocking=True)]


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files, decoded when asked for; see `decoding.decode_file` for what becomes of them.

    Args:
        paths: One file per sample.
        decoding: What decides the stored squares.
        remedy: How a file that cannot be read is left out, for messages.
    """

    paths: Sequence[str]
    decoding: Decoding
    remedy: str = TRAINED_WITHOUT

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
        return decode_file(path, self.decoding, self.remedy)


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Image files that were decoded before; the result lies in a file that is mapped into memory.

    Args:
        data: uint8 [M, C, S, S], the mapped file.
        sums: int64 [M], crc32 of each image.
        rows: int64 [N], place of each sample in `data`.
        contents: Digest of each sample's image file, hex.
        place: Folder of the cache, for messages.
        verified: bool [M], whose sums were compared in this process; changes with use.
    """

    data: Tensor
    sums: Tensor
    rows: Tensor
    contents: Sequence[str]
    place: Path
    verified: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` (int64 [B]) as uint8 [B, C, S, S].

        Raises:
            ValueError: If an image, on its first use, is not what was written.
        """
        rows = self.rows[indices]
        for row in sorted(set(rows[~self.verified[rows]].tolist())):
            if zlib.crc32(self.data[row].numpy().data) != int(self.sums[row]):
                raise ValueError(f"{self.place} is damaged at image {row}; delete this folder, it is built again")
        self.verified[rows] = True
        return self.data[rows]


Images = TensorImages | FileImages | CachedImages


def find_bad_images(images: FileImages) -> list[tuple[int, str]]:
    """Decode every file once and collect position and reason of the ones that fail, by position."""

    def problem(path: str) -> str | None:
        try:
            images.decode(path)
        except ValueError as error:
            return reason_of(error.__cause__ or error)
        return None

    return [(row, reason) for row, reason in enumerate(in_threads(problem, images.paths, "verified")) if reason]


def in_threads(work: Callable[[str], T], paths: Sequence[str], what: str) -> Iterator[T]:
    """Yield `work(path)` for every path, in order, computed by a thread per processor; tell the progress.

    Args:
        work: Releases the interpreter's lock most of the time, as decoders do.
        paths: Arguments.
        what: Names what happened to an image, for the log.
    """
    processors = usable_cores()
    report_every, ahead = max(1000, len(paths) // 10), 8 * processors
    with ThreadPoolExecutor(processors) as threads:
        waiting: deque[Future[T]] = deque()
        for position in range(len(paths) + ahead):
            if position < len(paths):
                waiting.append(threads.submit(work, paths[position]))
            # Only so many results wait at a time: all of them would fill the memory.
            if position >= ahead and waiting:
                yield waiting.popleft().result()
                if (position - ahead + 1) % report_every == 0:
                    log.info("%s %d of %d images", what, position - ahead + 1, len(paths))


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
