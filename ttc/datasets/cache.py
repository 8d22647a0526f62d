"""Keep decoded image files: on disk for this and later runs, or in shared memory for the processes of this run.

A cache is a folder that appears complete or not at all, named after what it holds: all that decides pixels, the id,
size and times of every file, and the content of some. Whoever comes first builds it under a lock of the operating
system; others wait, then map the same file. Every image has a checksum, compared on its first use in a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ttc import distributed
from ttc.datasets.images import CachedImages, FileImages, in_threads
from ttc.datasets.imbalance import hash_order
from ttc.datasets.pixels.decoding import decode_bytes, reason_of
from ttc.datasets.pixels.files import content_digest, read_regular, split_frame

log = logging.getLogger("ttc")

VERSION = 2
PIXELS, CONTENTS = "pixels.bin", "contents.json"
SHARED_MEMORY = Path("/dev/shm")
COMPARED_FILES = 256
"""Files whose content is part of the name; of all others size and times are."""
BadImages = list[tuple[int, str]]


def cache_folder(flag: str | None) -> Path:
    """Return the folder of all caches: `--cache-folder`, or ttc in the user's cache folder."""
    if flag is not None:
        return Path(flag)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttc"
    except RuntimeError:
        raise ValueError("--cache disk: this user has no home folder; name a folder with --cache-folder") from None


def open_cache(files: FileImages, ids: Sequence[str], mode: str, folder: str | None) -> tuple[CachedImages, BadImages]:
    """Map the decoded images, decoding the files first where nobody has.

    Args:
        files: The image files.
        ids: Id per file; with the file's size and time it says whether a cache holds this file.
        mode: "disk" or "ram".
        folder: `--cache-folder`.

    Returns:
        The images, and position and reason of files that cannot be decoded.

    Raises:
        ValueError: If there is no room, the folder cannot be written, or a cache is damaged.
    """
    parent = _run_memory() if mode == "ram" else cache_folder(folder)

    def build_first() -> str:
        name = f"images-{key(files, ids)}"
        _build(parent / name, files, mode)
        return name

    place = parent / distributed.from_first_rank(build_first)
    if not place.is_dir():  # the first rank is on another machine
        _build(place, files, mode)
    images, bad = _open(place, files)
    if mode == "ram":
        distributed.wait()
        # The memory lives as long as a process maps it, however these end.
        shutil.rmtree(parent, ignore_errors=True)
    return images, bad


def key(files: FileImages, ids: Sequence[str]) -> str:
    """Return a name for what the files hold: of their decoding, ids, sizes and times, and the content of some."""
    digest = hashlib.sha256(f"{VERSION} {files.decoding}\n".encode())
    for sample_id, path in zip(ids, files.paths, strict=True):
        try:
            status = os.stat(split_frame(path)[0])  # noqa: PTH116  # a Path per file takes longer than the call
            # Archives and copies set the time of the content; nothing but the system sets the other one.
            stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:
            stamp = "missing"
        digest.update(f"{sample_id}\0{stamp}\n".encode(errors="surrogateescape"))
    compared = [files.paths[row] for row in hash_order(ids, 0, "cache")[:COMPARED_FILES]]
    for content in in_threads(_content_of, compared, "compared"):
        digest.update(f"{content}\n".encode())
    return digest.hexdigest()[:32]


def _content_of(path: str) -> str:
    try:
        return content_digest(read_regular(path), path)
    except (OSError, ValueError):
        return "missing"


def _run_memory() -> Path:
    """Return a folder in memory that belongs to this run on this machine, and drop those of runs that are gone."""
    base = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    user = base / f"ttc-{os.getuid()}"
    user.mkdir(mode=0o700, exist_ok=True)
    if user.stat().st_uid != os.getuid():
        raise ValueError(f"--cache ram: {user} belongs to another user; use --cache disk")
    if sys.platform == "linux":
        for other in user.iterdir():
            if not Path("/proc", other.name).exists():
                shutil.rmtree(other, ignore_errors=True)
    # The ranks of a run on one machine have one parent, torchrun's agent; a single process is a run by itself.
    return user / str(os.getppid() if distributed.world_size() > 1 else os.getpid())


def _build(place: Path, files: FileImages, mode: str) -> None:
    """Decode all files into `place`, unless it is there."""
    size = len(files) * files.decoding.channels * files.decoding.size**2
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_name(f".{place.name}.lock")):
            if place.is_dir():
                return
            for leftover in place.parent.glob(f".{place.name}.*.tmp"):
                shutil.rmtree(leftover)
            log.info("--cache %s: decoding %d images into %s (%.1f GiB)", mode, len(files), place, size / 2**30)
            temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
            try:
                temporary.mkdir()
                _write(temporary, files, size)
                temporary.rename(place)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        remedy = "use --cache disk" if mode == "ram" else "choose another --cache-folder"
        raise ValueError(
            f"--cache {mode}: {place.parent} cannot take {size / 2**30:.1f} GiB ({error.strerror}); {remedy}, "
            "or --cache off"
        ) from None


def _write(folder: Path, files: FileImages, size: int) -> None:
    sums, contents, bad = [], [], []

    def decode(path: str) -> tuple[bytes | None, str]:
        try:
            content = read_regular(path)
            pixels = decode_bytes(content, files.decoding, split_frame(path)[1]).numpy().tobytes()
        except Exception as error:  # decoders raise a dozen unrelated types for broken files
            return None, reason_of(error)
        return pixels, content_digest(content, path)

    with (folder / PIXELS).open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            # Reserves the room: a disk that is too small shows now, not after hours of decoding.
            os.posix_fallocate(file.fileno(), 0, size)
        for row, (pixels, digest_or_reason) in enumerate(in_threads(decode, files.paths, "decoded")):
            if pixels is None:
                bad.append((row, digest_or_reason))
            sums.append(zlib.crc32(pixels or b""))
            contents.append("" if pixels is None else digest_or_reason)
            file.write(pixels or bytes(size // len(files)))
        file.flush()
        os.fsync(file.fileno())
    with (folder / CONTENTS).open("w", encoding="utf-8") as table:
        json.dump({"sums": sums, "contents": contents, "bad": bad}, table)
        table.flush()
        os.fsync(table.fileno())


def _open(place: Path, files: FileImages) -> tuple[CachedImages, BadImages]:
    shape = (len(files), files.decoding.channels, files.decoding.size, files.decoding.size)
    size = len(files) * files.decoding.channels * files.decoding.size**2
    try:
        table = json.loads((place / CONTENTS).read_text(encoding="utf-8"))
        sums, contents = torch.tensor(table["sums"], dtype=torch.int64), list(table["contents"])
        bad = [(int(row), str(reason)) for row, reason in table["bad"]]
        if (place / PIXELS).stat().st_size != size or not len(sums) == len(contents) == len(files):
            raise ValueError("its length is another")
        data = torch.from_file(str(place / PIXELS), shared=False, size=size, dtype=torch.uint8).view(shape)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{place} is damaged ({error}); delete this folder, it is built again") from error
    verified = torch.zeros(len(files), dtype=torch.bool)
    return CachedImages(data, sums, torch.arange(len(files)), contents, place, verified), bad


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the operating system frees when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
