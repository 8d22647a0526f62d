"""The one place that opens files of a run, which may come from anybody: regular files only, and no links inside a run.

A link inside a run folder could lead a write to any file of the user, and a read to a private one; opening a pipe waits
for ever. What a user names herself, a run folder or a single file, may be reached through links.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LINK = "a link; put the file or folder itself in its place, or link the whole run folder"
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # without O_NONBLOCK even the opening of a pipe waits for its other end


def refuse_links(folder: Path) -> None:
    """Make sure that a run folder holds nothing but regular files and folders, at any depth.

    Raises:
        ValueError: there is a link, pipe, socket or device; one line that names it.
    """
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        refuse_special(Path(entry.path))
        if entry.is_dir(follow_symlinks=False):
            refuse_links(Path(entry.path))


def refuse_special(path: Path) -> None:
    """Make sure that an entry of a run folder, if it exists, is a regular file or a folder.

    Raises:
        ValueError: it is something else; one line that names it.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ValueError(f"{path} is {_LINK}")
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; delete it")


def run_of(path: Path) -> Path | None:
    """Return the run folder of a checkpoint that lies in RUN/checkpoints; None for a file elsewhere."""
    return path.parent.parent if path.parent.name == "checkpoints" else None


def folder_of(checkpoint: str) -> Path:
    """Return the run folder that a checkpoint belongs to; of a copy that lies elsewhere, the folder that it lies in."""
    path = Path(checkpoint).resolve()
    return run_of(path) or path.parent


def read_bytes(path: Path, within: Path | None = None) -> bytes:
    """Read a whole regular file.

    Args:
        path: the file.
        within: the run folder that it was found in: no link is followed on the way from there. None for a file that
            the user has named.

    Raises:
        ValueError: a link inside the run, a pipe or a device, or more than the machine's memory holds.
        OSError: it cannot be read.
    """
    with open(_descriptor(path, within, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
        if size > memory:
            raise ValueError(f"{path} has {size / 2**30:.0f} GiB, this machine's memory {memory / 2**30:.0f}")
        return file.read()


def open_binary(path: Path, within: Path | None = None) -> IO[bytes]:
    """Open a regular file for reading; see `read_bytes` for arguments and errors."""
    return open(_descriptor(path, within, os.O_RDONLY), "rb")


def open_append(path: Path, within: Path | None = None) -> io.TextIOWrapper:
    """Open a text file for appending, making it where there is none; nothing in it is lost.

    Args:
        path: the file.
        within: the folder from which on no link is followed; the file's own folder by default.

    Raises:
        ValueError: there is a link, a pipe or a device in its place.
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return open(_descriptor(path, within or path.parent, flags), "a", encoding="utf-8")


def place(path: Path) -> Path:
    """Return where a command will write, once the folder around it is there; ask before the work is done.

    Raises:
        ValueError: the folder cannot be made, or the path is a folder itself.
    """
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {path} cannot be written ({error.strerror}); choose another place") from None
    return path


def replace(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`: after a crash at any point the file is the old one or the new one.

    A link in its place is replaced, never followed.

    Raises:
        ValueError: it could not be written; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed, or a stranger's link
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only file system refuses even this
            temporary.unlink(missing_ok=True)
        raise ValueError(
            f"{path} could not be written ({error.strerror}); free space there or choose another --output"
        ) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _descriptor(path: Path, within: Path | None, flags: int) -> int:
    """Open a regular file, from `within` on without following links."""
    folders: list[int] = []
    try:
        if within is None:
            number = os.open(path, flags | _FLAGS)
        else:
            *names, name = path.relative_to(within).parts
            folders.append(os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for folder_name in names:
                folders.append(_step(path, folder_name, os.O_RDONLY | os.O_DIRECTORY, folders[-1]))
            number = _step(path, name, flags, folders[-1])
    finally:
        for descriptor in folders:
            os.close(descriptor)
    with _closing_on_error(number):
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; name a regular file")
    return number


def _step(path: Path, name: str, flags: int, folder: int) -> int:
    """Open an entry of an open folder without following it."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | _FLAGS, 0o666, dir_fd=folder)
    except OSError as error:
        mode = 0
        with contextlib.suppress(OSError):
            mode = os.lstat(name, dir_fd=folder).st_mode
        if stat.S_ISLNK(mode):
            raise ValueError(f"{path} is, or lies behind, {_LINK}") from None
        if mode and stat.S_IFMT(mode) in _KINDS:  # a pipe that nobody reads cannot even be opened for writing
            raise ValueError(f"{path} is {_KINDS[stat.S_IFMT(mode)]}; delete it") from None
        raise error from None


@contextlib.contextmanager
def _closing_on_error(number: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(number)
        raise
