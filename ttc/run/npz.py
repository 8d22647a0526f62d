"""Read arrays of an .npz file that anybody may have written: nothing is unpickled, extracted or unpacked unmeasured."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttc.run import files
from ttc.run.escape import plain


def array_names(path: Path, within: Path | None = None) -> set[str]:
    """Return the names of the arrays in an .npz file that `read_arrays` could open; ValueError where it is none."""
    try:
        with files.open_binary(path, within) as stream, zipfile.ZipFile(stream) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def spelled(stored: set[str], kind: str) -> str | None:
    """Return the name among those stored that is the singular or the plural of what an array holds; None without."""
    return next((name for name in (kind, f"{kind}s") if name in stored), None)


def read_arrays(path: Path, names: Sequence[str], within: Path | None = None) -> list[NDArray[np.generic]]:
    """Read arrays of plain numbers or text.

    Args:
        path: the file.
        names: of the arrays.
        within: the run folder that the file was found in; None for a file that the user has named.

    Returns:
        The arrays in the order of the names; other members of the archive are never opened.

    Raises:
        ValueError: the file is damaged, lacks an array, holds Python objects, or unpacks to more than the memory.
    """
    try:
        with files.open_binary(path, within) as stream, zipfile.ZipFile(stream) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
        missing = [name for name in names if f"{name}.npy" not in sizes]
        if missing:
            raise ValueError(f"it has no array {missing[0]!r}")
        total = sum(sizes[f"{name}.npy"] for name in names)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
        if total > memory:
            raise ValueError(f"it unpacks to {total / 2**30:.0f} GiB, this machine has {memory / 2**30:.0f}")
        with files.open_binary(path, within) as stream, np.load(stream, allow_pickle=False) as file:
            return [_plain(file, name) for name in names]
    except Exception as error:  # damaged archives raise a dozen unrelated types
        raise ValueError(plain(" ".join(str(error).split()) or type(error).__name__, 200)) from error


def _plain(file: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.generic]:
    """Return an array; ValueError with the remedy where it holds Python objects, such as text that pandas gave."""
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        remedy = f"save text as {name}.astype('U') and numbers as numbers"
        raise ValueError(
            f"the array {name} holds Python objects, never loaded (allow_pickle=False); {remedy}"
        ) from None


@dataclass(frozen=True)
class SavedEmbeddings:
    """What compute_metrics.py keeps of a run for figures.

    Attributes:
        embeddings: [V, N, D] floating-point, finite.
        labels: [N] whole numbers 0 .. K - 1.
        class_names: K names.
        prototypes: [K, D] floating-point, or None.
    """

    embeddings: NDArray[np.generic]
    labels: NDArray[np.generic]
    class_names: list[str]
    prototypes: NDArray[np.generic] | None


def read_embeddings(path: Path, within: Path) -> SavedEmbeddings:
    """Read an embeddings.npz of a run.

    Args:
        path: the file.
        within: the run folder.

    Raises:
        ValueError: it is damaged, or its arrays do not fit each other; one line with the path and what to do.
    """
    try:
        embeddings, labels, names = read_arrays(path, ["embeddings", "labels", "class_names"], within)
        stored = "prototypes" in array_names(path, within)
        prototypes = read_arrays(path, ["prototypes"], within)[0] if stored else None
        arrays = [embeddings] if prototypes is None else [embeddings, prototypes]
        if labels.dtype.kind not in "iu" or names.dtype.kind != "U" or any(array.dtype.kind != "f" for array in arrays):
            raise ValueError("its arrays are of other types")
        dimensions, classes = embeddings.shape[-1:], names.shape
        if embeddings.ndim != 3 or labels.shape != embeddings.shape[1:2] or len(classes) != 1:
            raise ValueError(f"embeddings {embeddings.shape} and labels {labels.shape} do not fit each other")
        if prototypes is not None and (prototypes.shape[1:] != dimensions or len(prototypes) < len(names)):
            raise ValueError(f"prototypes {prototypes.shape} do not fit the embeddings {embeddings.shape}")
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
            raise ValueError(f"labels go beyond the {len(names)} classes")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("not all numbers are finite")
        if not embeddings.any(axis=2).all():
            raise ValueError("a sample has the embedding 0, which has no direction")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); run compute_metrics.py again in a new folder") from None
    return SavedEmbeddings(embeddings, labels, names.tolist(), prototypes)
