"""The floor: what plain classifiers of raw pixels reach on the same splits, which a trained encoder should clear.

Small images (32 px at most) as the encoder sees them, classified by the models of `models.py`. What they predict is
kept in the user's cache folder, named after all that decides it, so that runs on the same data and split read it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttc.batches.resize import resize_centre
from ttc.datasets import CachedImages, Dataset, FileImages, TensorImages, batches, cache
from ttc.evaluation.floor.models import Chosen, choose
from ttc.evaluation.heads import Predict
from ttc.evaluation.probe import balanced_rows, groups_of
from ttc.run import files
from ttc.run.escape import counted
from ttc.run.npz import read_arrays

log = logging.getLogger("ttc")

SIDE = 32
"""Pixels; smaller images stay as they are."""
MOST_TRAINING = 3000
"""Images that the models learn from; rare classes are kept whole as far as that leaves room."""
MOST_IMAGES = 25_000
"""Images that are read at all: training, validation and test together."""
FEWEST_PER_CLASS = 3

_VERSION = 1
_BATCH = 256


def left_out(dataset: Dataset, learned: Tensor, tested: Tensor) -> str | None:
    """Return in words why there can be no floor, or None.

    Args:
        dataset: the data.
        learned: rows that all models together learn from, before they are drawn.
        tested: rows of validation and test.
    """
    counts = torch.bincount(dataset.labels[learned], minlength=len(dataset.class_names)).tolist()
    if min(counts) < FEWEST_PER_CLASS:
        label = counts.index(min(counts))
        return (
            f"class {label} ({dataset.class_names[label]}) has {counted(counts[label], 'training image')}, it needs 3"
        )
    needed = len(torch.unique(torch.cat([tested, drawn_rows(dataset, learned)])))
    if needed > MOST_IMAGES:
        return f"it would read {needed:,} images, more than {MOST_IMAGES:,}"
    return None


def drawn_rows(dataset: Dataset, rows: Tensor) -> Tensor:
    """Return at most MOST_TRAINING of some rows, ascending: equally many of each class, small classes whole."""
    counts = torch.bincount(dataset.labels[rows], minlength=len(dataset.class_names)).tolist()
    return balanced_rows(dataset, rows, equal_share(counts, MOST_TRAINING), "floor", dataset.settings.seed)


def equal_share(counts: Sequence[int], most: int) -> int:
    """Return the largest share such that min(count, share) over all classes sums up to `most` at most."""
    room, left = most, len(counts)
    for count in sorted(counts):
        if count * left > room:
            return room // left
        room, left = room - count, left - 1
    return max(counts)


@dataclass(frozen=True)
class Fit:
    """A classifier and how it came about; plain values, except for the scores.

    Attributes:
        chosen: the classifier, with the scores of all tested rows.
        learned_from: training images.
        of: training images that it could have learned from.
    """

    chosen: Chosen
    learned_from: int
    of: int

    def plain(self) -> dict[str, object]:
        """Return what a result tells."""
        chosen = self.chosen
        about = {name: getattr(chosen, name) for name in ("features", "model", "strength", "validation")}
        return {**about, "learned_from": self.learned_from, "of": self.of}


class Floor:
    """The floor of one evaluation: fits on raw pixels, read from the cache where they have been made before.

    Attributes:
        side: of the small images, in pixels.
        fits: what was fitted, in this order.
    """

    def __init__(
        self, dataset: Dataset, learned: Sequence[Tensor], tested: Tensor, *, num_workers: int, folder: Path | None
    ) -> None:
        """Look into the cache; no image is decoded before something is missing there.

        Args:
            dataset: the data.
            learned: all sets of rows that `fit` will be called with.
            tested: [W] int64, ascending, all rows that will be predicted.
            num_workers: processes that decode image files.
            folder: of all caches; None keeps nothing.
        """
        self._dataset, self._tested, self._num_workers = dataset, tested, num_workers
        self._rows = torch.unique(torch.cat([tested, *(drawn_rows(dataset, rows) for rows in learned)]))
        made = dataset.preprocessing
        self._shown = made.shown
        self.side = min(SIDE, round(made.shown * made.decoding.size))
        self.fits: list[Fit] = []
        self._pixels_ND: NDArray[np.float64] | None = None
        self._path = None if folder is None else folder / f"floor-{self._digest()}.npz"
        self._stored = {} if self._path is None else _read(self._path)
        self._fresh = False

    def fit(self, chosen: Tensor, val: Tensor) -> Predict:
        """Fit, choose on validation, and return what gives the class probabilities of tested rows.

        Args:
            chosen: [N] int64, rows to learn from.
            val: rows to choose with; where they lack a class, nothing is chosen.

        Returns:
            From rows [n, 1] to raw class probabilities [n, K].
        """
        rows = drawn_rows(self._dataset, chosen)
        name = hashlib.sha256(repr((rows.tolist(), val.tolist())).encode()).hexdigest()[:32]
        if name not in self._stored:
            self._stored[name] = Fit(self._choose(rows, val), len(rows), len(chosen))
            self._fresh = True
        fit = self._stored[name]
        self.fits.append(fit)
        return lambda places: fit.chosen.scores_WK[torch.searchsorted(self._tested, places[:, 0]).numpy()]

    def save(self) -> None:
        """Keep what was fitted for other runs; a folder that cannot be written is no error."""
        if self._path is None or not self._fresh:
            return
        about = {name: fit.plain() for name, fit in self._stored.items()}
        scores = {name: fit.chosen.scores_WK for name, fit in self._stored.items()}
        buffer = io.BytesIO()
        np.savez(buffer, about=np.array(json.dumps(about)), **scores)  # type: ignore[arg-type]  # NumPy's stub
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._path, buffer.getvalue())
        except (OSError, ValueError) as error:
            log.info("the floor is not kept for other runs: %s", error)

    def _choose(self, rows: Tensor, val: Tensor) -> Chosen:
        labels = self._dataset.labels
        classes = len(self._dataset.class_names)
        complete = len(torch.unique(labels[val])) == classes
        judged = (self._take(val), labels[val].numpy(), groups_of(self._dataset, val)) if complete else None
        return choose((self._take(rows), labels[rows].numpy()), judged, self._take(self._tested))

    def _take(self, rows: Tensor) -> NDArray[np.float64]:
        """Return the pixels [n, D] of some rows, in [0, 1]."""
        if self._pixels_ND is None:
            pieces = torch.split(self._rows, _BATCH)
            parts = [
                self._small(images).flatten(1) for images in batches(self._dataset.images, pieces, self._num_workers)
            ]
            self._pixels_ND = torch.cat(parts).double().numpy()
        return np.asarray(self._pixels_ND[torch.searchsorted(self._rows, rows).numpy()])

    def _small(self, images: Tensor) -> Tensor:
        """Return the centre that evaluation shows, [B, C, side, side] float32."""
        pixels = images.float() / 255
        for dim in (2, 3):
            pixels = resize_centre(pixels, dim, self._shown * images.shape[dim], self.side)
        return pixels

    def _digest(self) -> str:
        """Return the digest of all that decides what is predicted, apart from which rows a fit learns from."""
        import sklearn

        dataset = self._dataset
        made = replace(dataset.preprocessing, mean=(), std=())
        groups = groups_of(dataset, self._tested)
        parts = (
            _VERSION,
            sklearn.__version__,
            dataset.split_digest(),
            made,
            self._tested.tolist(),
            self._rows.tolist(),
        )
        digest = hashlib.sha256(repr((parts, groups)).encode(errors="surrogateescape"))
        digest.update(_content(dataset, self._rows))
        return digest.hexdigest()[:32]


def _content(dataset: Dataset, rows: Tensor) -> bytes:
    """Return a digest of the images: of their pixels in memory, else of the files as `--cache disk` knows them."""
    images = dataset.images
    if isinstance(images, TensorImages):
        digest = hashlib.blake2b()
        for piece in torch.split(rows, _BATCH):
            digest.update(images[piece].cpu().numpy().tobytes())
        return digest.digest()
    if isinstance(images, CachedImages):
        return hashlib.blake2b(repr([images.contents[row] for row in rows.tolist()]).encode()).digest()
    paths, ids = ([names[row] for row in rows.tolist()] for names in (images.paths, dataset.ids))
    return cache.key(FileImages(paths, images.decoding), ids).encode()


def _read(path: Path) -> dict[str, Fit]:
    """Return the fits of a file of the cache; none where it is missing, and where it is damaged it is made again."""
    try:
        about = json.loads(str(read_arrays(path, ["about"])[0]))
        scores = dict(zip(about, read_arrays(path, list(about)), strict=True))
        return {
            name: Fit(
                Chosen(
                    parts["features"],
                    parts["model"],
                    parts["strength"],
                    parts["validation"],
                    np.asarray(scores[name], np.float64),
                ),
                parts["learned_from"],
                parts["of"],
            )
            for name, parts in about.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
