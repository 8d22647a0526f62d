"""Recipes: files of flags that a command line names as @FILE. Anybody may have written them, so all is bounded."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST_WORDS = 10_000
"""Of a whole command line; argparse takes a second for so many, and four times as long for twice as many."""
MOST_FILES = 1_000
"""Recipes read for one command line, the same one twice counting twice."""
MOST_DEEP = 50
"""Recipes inside of each other."""
MOST_BYTES = 2**22
"""Of all recipes together."""

Placed = tuple[str, str]
"""A word and where it came from: "command line" or FILE:LINE of a recipe."""


def expand(words: Sequence[str], folder: Path) -> list[Placed]:
    """Replace every @FILE among the words of a command line by the words of that file.

    Args:
        words: of the command line.
        folder: what the names of recipes on it are relative to; those in a recipe are relative to the recipe.

    Raises:
        ValueError: a recipe cannot be read, includes itself, or the whole is too large; one line that names the place.
    """
    return list(_Expansion().words(words, "command line", folder, ()))


class _Expansion:
    """The replacement of the recipes of one command line, and what it has read so far."""

    def __init__(self) -> None:
        self.words_read = self.files = self.bytes = 0

    def words(self, words: Sequence[str], source: str, folder: Path, opened: tuple[Path, ...]) -> Iterator[Placed]:
        """Yield the words with recipes replaced, from left to right."""
        for word in words:
            if word.startswith("@"):
                path = (folder / word[1:]).resolve()
                for number, line in enumerate(self._lines(path, word, source, opened), 1):
                    place = f"{path.name}:{number}"
                    yield from self.words(_split(line, place), place, path.parent, (*opened, path))
            else:
                self.words_read += 1
                self._bound(self.words_read, MOST_WORDS, "words", source)
                yield word, source

    def _lines(self, path: Path, word: str, source: str, opened: tuple[Path, ...]) -> list[str]:
        if path in opened:
            raise ValueError(f"{source}: {word} includes itself; remove the line")
        self._bound(len(opened) + 1, MOST_DEEP, "recipes inside of each other", source)
        self.files += 1
        self._bound(self.files, MOST_FILES, "recipes", source)
        try:
            # Whoever opens a pipe or a device may wait for ever.
            if path.exists() and not path.is_file():
                raise OSError(0, "Is a directory" if path.is_dir() else "no regular file")
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            self.bytes += len(content)
            self._bound(self.bytes, MOST_BYTES, "bytes of recipes", source)
            return content.decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ValueError(
                f"{source}: recipe {word} cannot be read ({reason}); name an existing .args file"
            ) from None

    def _bound(self, count: int, most: int, what: str, source: str) -> None:
        if count > most:
            raise ValueError(f"{source}: more than {most:,} {what}; shorten the recipe")


def _split(line: str, place: str) -> list[str]:
    if line.startswith("#"):
        return []
    if line.isascii() and not any(mark in line for mark in "\\'\"#\x1f"):
        return line.split()  # what shlex says too, a hundred times as fast
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise ValueError(f"{place}: {str(error).lower()}; close the quotation") from None
