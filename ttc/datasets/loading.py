"""Load batches: of training from any step on, of any rows in any order; and compute normalisation statistics.

Legend: B samples of a batch, C channels, H x W stored pixels.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ttc.batches.samplers import BatchSampler
from ttc.datasets.images import FileImages, Images
from ttc.datasets.table import Dataset
from ttc.distributed import World
from ttc.run.runtime import WORKER_FAILED, WORKER_REMEDY

STATISTICS_BATCH = 256
STATISTICS_BYTES = 2**22
"""Most bytes of such a batch: of large images few are enough, and several batches wait in shared memory."""

READER_ENDS_SECONDS = 30.0
"""Most that the system takes to clear away a process that was killed: one with much memory takes seconds."""


class _Decoder(TorchDataset[Tensor | str]):
    """Decode one index batch per item; an error travels as its message.

    An exception raised in a worker would reach the user wrapped in the worker's traceback.
    """

    def __init__(self, images: FileImages, num_workers: int) -> None:
        self.images, self.num_workers = images, num_workers

    def __getitem__(self, indices: list[int]) -> Tensor | str:
        try:
            batch = self.images[torch.tensor(indices)]
            # Here and not by the loader, whose thread would lose an error, and the other side would wait for ever.
            return batch.share_memory_() if self.num_workers else batch  # type: ignore[no-untyped-call]  # torch does not annotate it
        except ValueError as error:
            return str(error)
        except Exception as error:
            if not self.num_workers or os.environ.get("TTC_TRACEBACK"):
                raise
            reason = "no room in the shared memory /dev/shm" if "No space left" in str(error) else repr(error)[:200]
            return f"--num-workers {self.num_workers}: {WORKER_FAILED} ({reason}); {WORKER_REMEDY}"


def _end_with_reader(worker: int) -> None:
    """Let a worker end within seconds, and silently, when the process that reads its batches has gone.

    It may be waiting for that process, or in the middle of handing it a batch.
    """
    parent, reader, report = os.getppid(), multiprocessing.parent_process(), sys.excepthook
    assert reader is not None

    def watch() -> None:
        # The parent may be a fork server, which stays. A forked worker's brothers keep its reader's sentinel open.
        while os.getppid() == parent and reader.is_alive():
            time.sleep(1)
        os._exit(1)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()

    def report_if_read(*error: Any) -> None:
        # A process that is killed closes its connections some time before the system tells that it has gone.
        watching.join(READER_ENDS_SECONDS)
        report(*error)

    # multiprocessing's thread that hands batches over would show a traceback of the broken connection.
    sys.excepthook = report_if_read


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
        pin_memory: Put batches in page-locked memory for asynchronous copies to a GPU, unless they are there already.

    Yields:
        uint8 [B, C, H, W] per index batch.

    Raises:
        ValueError: If a file cannot be decoded; names its path and the remedy.
    """
    if not isinstance(images, FileImages):
        for indices in index_batches:
            batch = images[indices]
            yield batch.pin_memory() if pin_memory and batch.device.type == "cpu" else batch
        return
    loader = DataLoader(
        _Decoder(images, num_workers),
        sampler=(indices.tolist() for indices in index_batches),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        # Without a generator of its own the loader draws its workers' seed from the global random state.
        generator=torch.Generator(),
        worker_init_fn=_end_with_reader,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


class TrainingBatch(NamedTuple):
    """What a training step of one rank needs, on its device.

    Attributes:
        images: [B, C, H, W] uint8.
        labels: [B] int64.
        ids: [B] int64, global sample ids.
        draws: [B] int64, how often each sample was drawn before.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    draws: Tensor


class TrainingBatches:
    """The training batches of one rank, which can be entered at any step of the run."""

    def __init__(self, dataset: Dataset, sampler: BatchSampler, world: World, num_workers: int) -> None:
        """Remember the parts.

        Args:
            dataset: images and labels; batches come from its split "train".
            sampler: composes the global batches of an epoch.
            world: which piece of each batch is this rank's, and the device that batches go to.
            num_workers: processes that decode image files; the batches do not depend on it.
        """
        self._dataset, self._sampler, self._world, self._num_workers = dataset, sampler, world, num_workers
        self._rows = dataset.indices("train")
        self.steps_per_epoch = sampler.steps_per_epoch

    def rest_of_epoch(self, step: int) -> Iterator[TrainingBatch]:
        """Yield the batches from a global step (counted from 0) to the end of the epoch that it lies in.

        Raises:
            ValueError: an image file cannot be decoded; see `batches`.
        """
        epoch, first = divmod(step, self.steps_per_epoch)
        epoch_batches = self._sampler.epoch(epoch, self._world.rank, self._world.size)
        ids, draws = self._rows[epoch_batches.samples[first:]], epoch_batches.draws[first:]
        device = self._world.device
        images = batches(self._dataset.images, ids, self._num_workers, pin_memory=device.type == "cuda")
        for ids_B, draws_B, images_BCHW in zip(ids, draws, images, strict=True):
            batch = (images_BCHW, self._dataset.labels[ids_B], ids_B, draws_B)
            yield TrainingBatch(*(tensor.to(device, non_blocking=True) for tensor in batch))


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
    pixels = images.decoding.size**2 if isinstance(images, FileImages) else 1
    chunk = max(1, min(STATISTICS_BATCH, STATISTICS_BYTES // (channels * pixels)))
    chunks = (rows[at : at + chunk] for at in range(0, len(rows), chunk))
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
