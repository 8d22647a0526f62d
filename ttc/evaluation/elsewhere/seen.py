"""Which samples of other data the run has seen: its numbers on them are too good."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ttc.datasets import DatasetSettings
from ttc.datasets.checks.leaks import (
    MAX_DECODED_BYTES,
    MAX_DECODED_FILES,
    MAX_HASHED_BYTES,
    MAX_HASHED_FILES,
    pixel_digest,
)
from ttc.datasets.images import FileImages, TensorImages, in_threads
from ttc.datasets.other import OtherData, images_of
from ttc.datasets.pixels.files import content_digest, read_regular, split_frame
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.datasets.registry import read_source
from ttc.datasets.splits import untold
from ttc.run.readers import Source, read_table

log = logging.getLogger("ttc")


@dataclass(frozen=True)
class SeenSamples:
    """The training and validation samples of a run.

    Attributes:
        run: its folder.
        ids: of the samples.
        paths: their files; "" where they were in memory.
    """

    run: Path
    ids: list[str]
    paths: list[str]


def read_seen(folders: Sequence[Path]) -> SeenSamples | None:
    """Read split.csv of the first folder that has one; None where none has, or it is damaged, which is told."""
    for run in folders:
        if not (run / "split.csv").is_file():
            continue
        try:
            columns = read_table(Source(run / "split.csv", "pretrain the run again", run), ("id", "path", "split"))
        except ValueError as error:
            log.warning("samples are not compared with those of training: %s", error)
            return None
        rows = [row for row, split in enumerate(columns["split"]) if split in ("train", "val")]
        return SeenSamples(run, [columns["id"][row] for row in rows], [columns["path"][row] for row in rows])
    return None


def seen_words(other: OtherData, seen: SeenSamples, settings: DatasetSettings, decoding: Decoding) -> str | None:
    """Return a line about the samples that the run has trained on or chosen with; None where there are none.

    Files are compared by their bytes, and images by their pixels where they are in memory or few enough to be decoded.
    An id counts only where the run's image is not there any more: folders everywhere hold an image 1.png.

    Args:
        other: the other data.
        seen: what the run has seen.
        settings: of the run's data.
        decoding: of the other data, in which both are compared.
    """
    there = [row for row, path in enumerate(seen.paths) if path and Path(split_frame(path)[0]).is_file()]
    paths = [seen.paths[row] for row in there]
    equal: set[int] = set()
    if isinstance(other.images, FileImages):
        equal = set(_equal_files(other.images.paths, paths))
    compared = {seen.ids[row] for row in there} if isinstance(other.images, FileImages) else set()
    images: FileImages | TensorImages | None = FileImages(paths, decoding) if paths else None
    if images is None and settings.name == "arrays":
        there, images = _in_memory(seen, settings, decoding)

    if images is not None and len(equal) < len(other.ids) and _few(other.images) and _few(images):
        digests = {digest for digest in _pixels(images) if digest}
        equal |= {row for row, digest in enumerate(_pixels(other.images)) if digest in digests}
        compared = {seen.ids[row] for row in there}
    # Ids that a reader made up from positions name no image.
    unchecked = {name for name in seen.ids if name not in compared and not name.startswith("arrays/")}
    named = {row for row, name in enumerate(other.ids) if name in unchecked} - equal
    if not equal | named:
        return None
    return (
        f"{len(equal | named)} of {len(other.ids)} samples were in training or validation of {seen.run} "
        f"({len(equal)} by content, {len(named)} by id), such as {other.ids[min(equal | named)]}: the numbers are too "
        "good; leave these samples out"
    )


def _equal_files(paths: Sequence[str], seen: Sequence[str]) -> Iterator[int]:
    """Yield the positions of files with the bytes of one that was seen; only files of equal size are read."""
    sizes = {path: _size(path) for path in {*paths, *seen}}
    shared = ({sizes[path] for path in paths} & {sizes[path] for path in seen}) - {0}
    suspects = [path for path in seen if sizes[path] in shared]
    if len(suspects) > MAX_HASHED_FILES:
        log.warning("content of %d files is not compared with that of training: too many of equal size", len(suspects))
        return
    digests = {_content(path) for path in suspects} - {""}
    for position, path in enumerate(paths):
        if sizes[path] in shared and _content(path) in digests:
            yield position


def _size(path: str) -> int:
    """Return the size of a file, 0 where there is none: who reads it says so."""
    try:
        return Path(split_frame(path)[0]).stat().st_size
    except OSError:
        return 0


def _content(path: str) -> str:
    """Return the digest of a file's content; "" where it cannot be read."""
    try:
        return content_digest(read_regular(path), path)
    except (OSError, ValueError):
        return ""


def _in_memory(
    seen: SeenSamples, settings: DatasetSettings, decoding: Decoding
) -> tuple[list[int], TensorImages | FileImages | None]:
    """Return the rows of an .npz file that were seen, and their images; none where the file is gone or another one."""
    try:
        with untold():
            source = read_source(settings)
        place = {name: row for row, name in enumerate(source.ids)}
        rows = [row for row, name in enumerate(seen.ids) if name in place]
        return rows, images_of(source, [place[seen.ids[row]] for row in rows], decoding, settings.data_root)
    except ValueError:
        return [], None


def _few(images: TensorImages | FileImages) -> bool:
    """Tell whether pixels can be compared in some seconds."""
    if isinstance(images, TensorImages):
        return images.data.numel() <= MAX_HASHED_BYTES
    return len(images) <= MAX_DECODED_FILES and sum(map(_size, images.paths)) <= MAX_DECODED_BYTES


def _pixels(images: TensorImages | FileImages) -> Iterator[str]:
    """Yield a digest of the pixels of every image; "" where it cannot be decoded, or shows nothing."""
    if isinstance(images, TensorImages):
        yield from map(_digest, images.data)
        return

    def decoded(path: str) -> str:
        try:
            return _digest(images.decode(path))
        except ValueError:  # the encoder refuses those of the other data
            return ""

    yield from in_threads(decoded, images.paths, "compared")


def _digest(pixels: Tensor) -> str:
    if bool((pixels == pixels.flatten()[0]).all()):  # plain areas are equal without being copies
        return ""
    return pixel_digest(pixels.contiguous().numpy().tobytes())
