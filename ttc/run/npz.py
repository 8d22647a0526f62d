"""Read arrays of an .npz file that anybody may have written: nothing is unpickled, extracted or unpacked unmeasured."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttc.run import files


def array_names(path: Path, within: Path | None = None) -> set[str]:
    """Return the names of the arrays in an .npz file that `read_arrays` could open."""
    with files.open_binary(path, within) as stream, zipfile.ZipFile(stream) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


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
        total, memory = (
            sum(sizes[f"{name}.npy"] for name in names),
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE"),
        )
        if total > memory:
            raise ValueError(f"it unpacks to {total / 2**30:.0f} GiB, this machine has {memory / 2**30:.0f}")
        with files.open_binary(path, within) as stream, np.load(stream, allow_pickle=False) as file:
            return [file[name] for name in names]
    except Exception as error:  # damaged archives raise a dozen unrelated types
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
