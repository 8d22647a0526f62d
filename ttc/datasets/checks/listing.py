"""Which files of a folder are images, and what else lies there: one rule for training and for new images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ttc.datasets.pixels.files import is_image, split_frame
from ttc.run.escape import counted

SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
"""What Windows leaves in folders; hidden files are what Linux and macOS leave."""


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        images: Files with an image's extension, by name; links that lead nowhere are among them.
        left_out: Extension in lower case ("without extension" where there is none) -> files that were left out.
        example: One of the files that were left out.
    """

    images: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    example: Path | None = None

    def describe(self) -> str:
        """Tell what was left out: "3 .txt, 1 .heic (such as FOLDER/x.txt)"."""
        return f"{describe_formats(self.left_out)} (such as {self.example})"


def describe_formats(left_out: Counter[str]) -> str:
    """Join counts of formats: "3 .txt, 1 .heic"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items(), key=lambda item: -item[1]))


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is the system's: hidden, such as ._x.png of macOS, or __MACOSX, Thumbs.db."""
    return name.startswith((".", "__MACOSX")) or name.casefold() in SYSTEM_FILES


def is_broken_link(path: Path) -> bool:
    """Tell whether a file is a link to something that is not there."""
    return path.is_symlink() and not path.exists()


def subfolders(folder: Path, flag: str = "--data-root") -> list[Path]:
    """Return the folders in a folder, by name, without hidden ones and those that begin with two underscores.

    Raises:
        ValueError: The folder cannot be listed, or a link in it that may have been a folder leads nowhere.
    """
    folders = []
    for path in _entries(folder, flag):
        if not path.name.startswith("__") and path.is_dir():
            folders.append(path)
        elif not path.suffix and is_broken_link(path):
            raise ValueError(f"{flag}: {printable(path)} is a link that leads nowhere; restore its target or remove it")
    return folders


def list_images(folder: Path, flag: str = "--data-root", *, deep: bool = False) -> Listing:
    """List the images in a folder.

    Args:
        folder: Where to look.
        flag: What named it, for messages.
        deep: Whether folders inside of it are searched, to any depth.

    Raises:
        ValueError: A folder cannot be listed.
    """
    listing, waiting, entered = Listing(), [folder], set()
    while waiting:
        for path in _entries(waiting.pop(), flag):
            if path.is_dir():
                place = path.resolve()  # a link may lead back to where it lies
                if deep and place not in entered:
                    entered.add(place)
                    waiting.append(path)
            elif is_image(path):
                listing.images.append(path)
            else:
                listing.left_out[path.suffix.lower() or "without extension"] += 1
                listing.example = listing.example or path
    listing.images.sort()
    return listing


def _entries(folder: Path, flag: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise ValueError(
            f"{flag}: folder {printable(folder)} cannot be listed ({error.strerror}); make it readable, or remove it"
        ) from None


def refuse_strange_names(names: Iterable[str], flag: str) -> None:
    """Raise ValueError when a name is not UTF-8: no table that names it could be written.

    Args:
        names: Paths, ids or labels.
        flag: What named them, for the message.
    """
    names = list(names)
    if is_utf8("".join(names)):  # looks at all of them in a tenth of the time
        return
    strange = [name for name in names if not is_utf8(name)]
    if strange:
        more = f" ({len(strange) - 1} more are alike)" if len(strange) > 1 else ""
        raise ValueError(
            f"{flag}: the name {printable(strange[0])} is not UTF-8{more}; rename it, for example with "
            "convmv -f latin1 -t utf8 -r FOLDER"
        )


def is_utf8(name: str) -> bool:
    """Tell whether a name of the file system can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str | Path) -> str:
    r"""Return a name with bytes that are not UTF-8 shown as \xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def refuse_all_missing(paths: Sequence[str], place: str) -> None:
    """Raise ValueError when not one of the files that a table lists exists.

    Args:
        paths: The files; looked at until one exists.
        place: What the table is called in messages.
    """
    if not paths or any(Path(split_frame(path)[0]).exists() for path in paths):
        return
    remedy = "paths start at the table's folder; correct them, or move the table"
    if "\\" in paths[0]:
        remedy = "write paths with / instead of \\"
    raise ValueError(f"{place}: none of its {counted(len(paths), 'file')} exists, the first is {paths[0]}; {remedy}")
