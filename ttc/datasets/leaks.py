"""Find ids, paths, groups and image contents that occur in two splits."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from ttc.datasets.images import TensorImages

log = logging.getLogger("ttc")

MAX_HASHED_FILES = 50_000
MAX_HASHED_BYTES = 2**31


def check_unique_ids(ids: Sequence[str]) -> None:
    """Raise ValueError when an id occurs twice."""
    seen: set[str] = set()
    for sample_id in ids:
        if sample_id in seen:
            raise ValueError(f"--data-root: id {sample_id!r} occurs twice; every sample needs an id of its own")
        seen.add(sample_id)


def check_leaks(
    ids: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[str] | None,
    paths: Sequence[str] | None,
    contents: Sequence[str] | None = None,
) -> None:
    """Check that no group, path or file content is in two splits.

    Args:
        ids: Id per sample, for the message.
        splits: Split per sample.
        groups: Group per sample, or None.
        paths: File per sample, or None.
        contents: Digest of each file where a cache knows it; the files are then not read.

    Files are compared by size first and by a hash of their bytes only where sizes agree across splits; beyond
    50,000 such files the content check is left out and the log says so. Empty files are left to the decoder.

    Raises:
        ValueError: With one example.
    """
    if groups is not None:
        _refuse("group", groups, splits, ids, "keep each group in one split")
    if paths is None:
        return
    _refuse("path", paths, splits, ids, "list each image once")
    suspects = list(range(len(paths))) if contents is not None else _equal_sizes(paths, splits)
    if contents is None and len(suspects) > MAX_HASHED_FILES:
        log.warning("content of %d files is not compared between splits: too many of equal size", len(suspects))
        return
    known = (_file_hash(paths[row]) for row in suspects) if contents is None else contents
    pair = _shared(known, [splits[row] for row in suspects])
    if pair is not None:
        first, second = (suspects[position] for position in pair)
        raise ValueError(
            f"--data-root: {paths[first]} ({splits[first]}) and {paths[second]} ({splits[second]}) are the same image; "
            "remove one, or put both in one group of a CSV table"
        )


def _equal_sizes(paths: Sequence[str], splits: Sequence[str]) -> list[int]:
    """Return the rows whose file has the size of one in another split; only they can be equal."""
    sizes = [_file_size(path) for path in paths]
    by_size: dict[int, set[str]] = defaultdict(set)
    for size, split in zip(sizes, splits, strict=True):
        by_size[size].add(split)
    return [row for row, size in enumerate(sizes) if size > 0 and len(by_size[size]) > 1]


def warn_about_equal_pixels(images: TensorImages, ids: Sequence[str], splits: Sequence[str]) -> None:
    """Log how many images in memory equal one of another split.

    A warning only: published data sets contain such pairs, and changing their official splits would make the
    results incomparable.
    """
    if images.data.numel() > MAX_HASHED_BYTES:
        log.warning("pixels are not compared between splits: more than %d bytes", MAX_HASHED_BYTES)
        return
    rows_of: dict[bytes, set[str]] = {}
    duplicates = []
    pixels = images.data.numpy()
    # One split after the other, so that every later copy is counted once.
    for row in sorted(range(len(ids)), key=lambda row: splits[row]):
        key = blake2b(pixels[row].tobytes(), digest_size=16).digest()
        known = rows_of.setdefault(key, {splits[row]})
        if splits[row] not in known:
            duplicates.append(ids[row])
    if duplicates:
        log.warning(
            "%d images have the same pixels as an image of another split, for example %s; the splits are kept",
            len(duplicates),
            duplicates[0],
        )


def _refuse(kind: str, values: Sequence[str], splits: Sequence[str], ids: Sequence[str], remedy: str) -> None:
    pair = _shared(values, splits)
    if pair is not None:
        first, second = pair
        raise ValueError(
            f"--data-root: {kind} {values[first]!r} is in two splits, {splits[first]} ({ids[first]}) and "
            f"{splits[second]} ({ids[second]}); {remedy}"
        )


def _shared(keys: Iterable[str | bytes], splits: Sequence[str]) -> tuple[int, int] | None:
    """Return the first two positions with equal keys and different splits."""
    first: dict[str | bytes, int] = {}
    for position, key in enumerate(keys):
        known = first.setdefault(key, position)
        if splits[known] != splits[position]:
            return known, position
    return None


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise ValueError(
            f"cannot read image {path}: {error.strerror}; restore it, or pretrain with --on-bad-image skip"
        ) from error


def _file_hash(path: str) -> bytes:
    return blake2b(Path(path).read_bytes(), digest_size=16).digest()
