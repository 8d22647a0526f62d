"""Find ids, paths, groups and image contents that occur in two splits, and images that occur under two labels."""

from __future__ import annotations

import logging
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from ttc.datasets.images import CachedImages, Images, TensorImages, in_threads
from ttc.datasets.pixels.files import content_digest, read_regular, split_frame
from ttc.run.escape import counted

log = logging.getLogger("ttc")

MAX_HASHED_FILES = 50_000
MAX_HASHED_BYTES = 2**31
MAX_DECODED_FILES, MAX_DECODED_BYTES = 2_000, 2**28
"""Up to here files are decoded at the start of a training to compare their pixels, some seconds at most."""


@dataclass(frozen=True)
class Samples:
    """What is compared; one entry per sample.

    Attributes:
        ids: Ids.
        splits: Splits, with the pool as a part of "train".
        labels: Names of the classes.
        groups: Groups, or None.
        paths: Files, or None.
    """

    ids: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str] | None = None
    paths: Sequence[str] | None = None


def check_unique_ids(ids: Sequence[str]) -> None:
    """Raise ValueError when an id occurs twice."""
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for sample_id in ids:
        if sample_id in seen:
            raise ValueError(f"--data-root: id {sample_id!r} occurs twice; every sample needs an id of its own")
        seen.add(sample_id)


def check_leaks(samples: Samples, images: Images, *, decode: bool = False, rule: int = 2) -> None:
    """Check that no group, path or image is in two splits, and no path or image under two labels or twice in the table.

    Args:
        samples: The table.
        images: The images of its rows.
        decode: Whether files are decoded to find copies that were saved in another way, unless they are too many.
        rule: 1 looks for what is in two splits only, as earlier versions did.

    Files are compared by size first and by a hash of their bytes only where sizes agree; beyond 50,000 such files the
    content check is left out and the log says so. Empty files are left to the decoder. Where a cache holds the pixels,
    these are compared, too.

    Raises:
        ValueError: With one example.
    """
    if samples.groups is not None:
        _refuse_two_splits("group", samples.groups, samples, "keep each group in one split")
    if samples.paths is None:
        return
    places = samples.paths if rule == 1 else [os.path.abspath(path) for path in samples.paths]  # noqa: PTH100
    if rule > 1 and (pair := _first_pair(places, samples.labels)):
        labels = " and ".join(repr(samples.labels[row]) for row in pair)
        raise ValueError(f"--data-root: {samples.paths[pair[0]]} has two labels, {labels}; correct one, or remove both")
    _refuse_two_splits("path", places, samples, "list each image once")
    if rule > 1 and (pair := _first_pair(places, range(len(places)))):
        ids = " and ".join(repr(samples.ids[row]) for row in pair)
        raise ValueError(f"--data-root: {samples.paths[pair[0]]} is listed twice (ids {ids}); list each image once")
    pair = _copies_by_bytes(samples, images, rule)
    if pair is None and rule > 1 and not isinstance(images, TensorImages):
        pixels = pixel_digests(images) if isinstance(images, CachedImages) or (decode and _few(samples.paths)) else []
        pair = _first_pair(pixels, _kinds(samples, rule)) if pixels else None
    if pair is not None:
        _refuse_copy(samples, *pair)


def pixel_digests(images: Images) -> list[str]:
    """Return a digest of the decoded pixels of every image; "" where a file cannot be decoded."""
    if isinstance(images, CachedImages):
        # Only equal sums can be equal pixels: the others need not be read from the disk.
        return _digests_of_equal_sums(images.sums[images.rows].tolist(), images.data, images.rows.tolist())
    if isinstance(images, TensorImages):
        data = images.data.cpu().contiguous()
        sums = [zlib.crc32(pixels) for pixels in data.flatten(1).numpy()]
        return _digests_of_equal_sums(sums, data, range(len(data)))

    def decoded(path: str) -> str:
        try:
            return pixel_digest(images.decode(path).numpy().tobytes())
        except ValueError:  # the decoder reports this file with its path, or skips it, as the user chose
            return ""

    return list(in_threads(decoded, images.paths, "compared"))


def _digests_of_equal_sums(sums: Sequence[int], data: Tensor, rows: Sequence[int]) -> list[str]:
    """Return a digest of the pixels where two sums agree, else the sum, which says as much and costs less."""
    counts = Counter(sums)
    return [
        pixel_digest(data[row].numpy().tobytes()) if counts[value] > 1 else f"{value}"
        for row, value in zip(rows, sums, strict=True)
    ]


def pixel_digest(content: bytes) -> str:
    """Return the digest by which decoded pixels are compared."""
    return blake2b(content, digest_size=16).hexdigest()


def _few(paths: Sequence[str]) -> bool:
    """Tell whether all files can be decoded in some seconds."""
    few = len(paths) <= MAX_DECODED_FILES and sum(map(_file_size, paths)) <= MAX_DECODED_BYTES
    if not few:
        log.info("the pixels of %d files are not compared at the start; scripts/check_dataset.py does so", len(paths))
    return few


def _kinds(samples: Samples, rule: int) -> list[tuple[str, str]]:
    """Return what no copy may differ in: the split, and by rule 2 the label."""
    labels = samples.labels if rule > 1 else [""] * len(samples.ids)
    return list(zip(samples.splits, labels, strict=True))


def _copies_by_bytes(samples: Samples, images: Images, rule: int) -> tuple[int, int] | None:
    """Return two rows of equal files that are not in one split or not under one label."""
    assert samples.paths is not None
    kinds = _kinds(samples, rule)
    if isinstance(images, CachedImages):
        return _first_pair(images.contents, kinds)
    suspects = _equal_sizes(samples.paths, kinds)
    if len(suspects) > MAX_HASHED_FILES:
        log.warning("content of %d files is not compared between splits: too many of equal size", len(suspects))
        return None
    paths = [samples.paths[row] for row in suspects]
    contents = (content_digest(read_regular(path), path) for path in paths)
    pair = _first_pair(contents, [kinds[row] for row in suspects])
    return None if pair is None else (suspects[pair[0]], suspects[pair[1]])


def refuse_equal_pixels(images: TensorImages, samples: Samples) -> None:
    """Raise ValueError when one image in memory lies in two splits or under two labels."""
    pair = _first_pair(pixel_digests(images), _kinds(samples, 2))
    if pair is not None:
        _refuse_copy(samples, *pair)


def _refuse_copy(samples: Samples, first: int, second: int) -> None:
    names = samples.paths or samples.ids
    if samples.splits[first] != samples.splits[second]:
        raise ValueError(
            f"--data-root: {names[first]} ({samples.splits[first]}) and {names[second]} "
            f"({samples.splits[second]}) are the same image; remove one, or put both in one group (--group-copies)"
        )
    raise ValueError(
        f"--data-root: {names[first]} ({samples.labels[first]}) and {names[second]} "
        f"({samples.labels[second]}) are the same image under two labels; correct one, or remove both"
    )


def _equal_sizes(paths: Sequence[str], kinds: Sequence[tuple[str, str]]) -> list[int]:
    """Return the rows whose file has the size of one of another kind; only they can be equal."""
    sizes = [_file_size(path) for path in paths]
    by_size: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for size, kind in zip(sizes, kinds, strict=True):
        by_size[size].add(kind)
    return [row for row, size in enumerate(sizes) if size > 0 and len(by_size[size]) > 1]


def warn_about_equal_pixels(images: TensorImages, samples: Samples) -> None:
    """Log how many images in memory equal one of another split, or one of another label.

    A warning only: published data sets contain such pairs, and changing their official splits would make the
    results incomparable.
    """
    if images.data.numel() > MAX_HASHED_BYTES:
        log.warning("pixels are not compared between splits: more than %d bytes", MAX_HASHED_BYTES)
        return
    digests = pixel_digests(images)
    counts = Counter(digests)
    repeated = [row for row, digest in enumerate(digests) if counts[digest] > 1]
    for values, what in ((samples.splits, "of another split"), (samples.labels, "under another label")):
        first: dict[str, set[str]] = {}
        copies = []
        # One value after the other, so that every later copy is counted once.
        for row in sorted(repeated, key=values.__getitem__):
            seen = first.setdefault(digests[row], {values[row]})
            if values[row] not in seen:
                copies.append(samples.ids[row])
        if copies:
            log.warning(
                "%s the same pixels as an image %s, for example %s; the splits are kept (--group-copies joins them)",
                counted(len(copies), "image has", "images have"),
                what,
                copies[0],
            )


def _refuse_two_splits(kind: str, values: Sequence[str], samples: Samples, remedy: str) -> None:
    pair = _first_pair(values, samples.splits)
    if pair is not None:
        first, second = pair
        raise ValueError(
            f"--data-root: {kind} {values[first]!r} is in two splits, {samples.splits[first]} ({samples.ids[first]}) "
            f"and {samples.splits[second]} ({samples.ids[second]}); {remedy}"
        )


def _first_pair(keys: Iterable[str], kinds: Sequence[object]) -> tuple[int, int] | None:
    """Return the first two positions with equal keys, "" apart, and different kinds."""
    first: dict[str, int] = {}
    for position, key in enumerate(keys):
        earlier = first.setdefault(key, position) if key else position
        if kinds[earlier] != kinds[position]:
            return earlier, position
    return None


def _file_size(path: str) -> int:
    try:
        return Path(split_frame(path)[0]).stat().st_size
    except OSError as error:
        reason = "a link that leads nowhere" if Path(path).is_symlink() else error.strerror
        raise ValueError(
            f"cannot read image {path}: {reason}; restore it, or pretrain with --on-bad-image skip"
        ) from error
