"""Turn index batches into pixel batches, and compute normalisation statistics.

Shape legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ttc.datasets.images import FileImages, Images

STATISTICS_BATCH = 256


class _Decoder(Dataset[Tensor | str]):
    """Decode one index batch per item; an error travels as its message.

    An exception raised in a worker would reach the user wrapped in the worker's traceback.
    """

    def __init__(self, images: FileImages) -> None:
        self.images = images

    def __getitem__(self, indices: list[int]) -> Tensor | str:
        try:
            return self.images[torch.tensor(indices)]
        except ValueError as error:
            return str(error)


def batches(
    images: Images,
    index_batches: Iterable[Tensor],
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Tensor]:
    """Iterate over pixel batches in the order of the index batches.

    Args:
        images: Source of the pixels.
        index_batches: Row indices, int64 [B] each, or one int64 tensor [S, B]; may be lazy.
        num_workers: Decoding processes for files; the batches do not depend on it.
        pin_memory: Put batches in page-locked memory for asynchronous copies to a GPU.

    Yields:
        uint8 [B, C, H, W] per index batch.

    Raises:
        ValueError: If a file cannot be decoded; names its path and the remedy.
    """
    if not isinstance(images, FileImages):
        for indices in index_batches:
            batch = images[indices]
            yield batch.pin_memory() if pin_memory else batch
        return
    loader = DataLoader(
        _Decoder(images),
        sampler=(indices.tolist() for indices in index_batches),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        # Without a generator of its own the loader draws its workers' seed from the global random state.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


def channel_statistics(
    images: Images, rows: Tensor, channels: int, num_workers: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, exactly, from a histogram of the byte values.

    Args:
        images: Source of the pixels.
        rows: Rows to use, int64 [N], N >= 1.
        channels: Number of channels C.
        num_workers: Decoding processes for files.

    Returns:
        Means and (population) standard deviations, C floats each, in units of the range [0, 1].

    Raises:
        ValueError: If a channel is constant over all images, which cannot be normalised.
    """
    histogram = torch.zeros(channels, 256, dtype=torch.float64)
    chunks = (rows[at : at + STATISTICS_BATCH] for at in range(0, len(rows), STATISTICS_BATCH))
    for batch in batches(images, chunks, num_workers):
        by_channel = batch.transpose(0, 1).reshape(channels, -1)
        for total, values in zip(histogram, by_channel, strict=True):
            total += torch.bincount(values, minlength=256)
    weights = histogram / histogram.sum(dim=1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ levels
    std = (weights * (levels - mean[:, None]).square()).sum(dim=1).sqrt()
    if (std == 0).any():
        raise ValueError(
            f"--data-root: channel {int((std == 0).nonzero()[0])} has the same value in every training image; "
            "the images are blank or unreadable as 8-bit values"
        )
    return tuple(mean.tolist()), tuple(std.tolist())
