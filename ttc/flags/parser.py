"""Command lines: @recipe files, where each value came from, number types. The only user of argparse in the package."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ttc.distributed import launched_task
from ttc.flags import recipes
from ttc.run.roles import Declared, Role

Namespace: TypeAlias = argparse.Namespace
"""The values of a command line as attributes."""


class _HelpFormatter(argparse.HelpFormatter):
    """Shows defaults as a user would type them; none where a flag is off or its value follows from other things."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default == [] or default == argparse.SUPPRESS:
            return action.help
        words = default if isinstance(default, list) else [default]
        typed = " ".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words)
        return f"{action.help} (default: {typed.replace('%', '%%')})"


@dataclass(frozen=True)
class Given:
    """A parsed command line.

    Attributes:
        values: flag name with underscores -> value.
        sources: flag name -> "default", "command line" or "FILE:LINE" of a recipe.
    """

    values: dict[str, object]
    sources: dict[str, str]

    def namespace(self) -> argparse.Namespace:
        """Return the values as attributes."""
        return argparse.Namespace(**self.values)


_UNSET = object()
"""Stands for a keyword that was not given, where None is a value."""


class _Declaring(argparse._ActionsContainer):
    """What takes flags together with their roles."""

    writes_run: bool
    declared: dict[str, Declared]

    def add_argument(
        self,
        *names: str,
        role: Role | None = None,
        before: object = _UNSET,
        counted: bool = False,
        **keywords: Any,
    ) -> argparse.Action:
        """Declare a flag.

        Args:
            names: as in argparse.
            role: what another value makes of a run; only a parser that writes no run does without.
            before: the value that means "as before the flag existed", in runs of earlier versions. A flag that was
                added after the first release names it, unless it is None or False, the values of an unused flag.
            counted: whether digests of results hold the flag even where it has the value `before`: only for a flag of
                which results were written before it said so.
            keywords: of argparse.
        """
        if self.writes_run and role is None and "--help" not in names:
            raise TypeError(f"{names[0]} has no role; say with role=Role... what another value makes of a run")
        action = super().add_argument(*names, **keywords)
        if role is not None:
            explicit = before is not _UNSET
            self.declared[action.dest] = Declared(role, before if explicit else None, explicit and not counted)
        return action


class _Group(_Declaring, argparse._ArgumentGroup):
    """A group of flags."""

    def __init__(self, parser: Parser, title: str) -> None:
        """Make an empty group."""
        super().__init__(parser, title)
        self.writes_run, self.declared = parser.writes_run, parser.declared


class Parser(_Declaring, argparse.ArgumentParser):
    """An ArgumentParser with @recipe files, roles of flags, and a record of where each value came from.

    `@FILE` is replaced by the words of the file: shell-like words, `#` starts a comment, files may name further files
    relative to themselves. The words are read from left to right and the last one wins.
    """

    def __init__(self, description: str, example: str, *, writes_run: bool = False) -> None:
        """Make an empty parser.

        Args:
            description: what the script does.
            example: a command that works.
            writes_run: whether the values are written to an `args.json`; every flag must then have a role.

        Attributes:
            declared: flag, named as in `args.json` -> what was declared with it.
        """
        self.writes_run, self.declared = writes_run, {}
        super().__init__(
            description=description,
            epilog=f"Example: {example}   (@FILE reads flags from a recipe)",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )

    def add_argument_group(self, title: str) -> _Group:  # type: ignore[override]  # groups have a title here, no more
        """Add a group of flags."""
        group = _Group(self, title)
        self._action_groups.append(group)
        return group

    def parse(self, argv: Sequence[str]) -> Given:
        """Parse the words after the script's name; wrong usage ends the process with exit code 2."""
        words = self.expand(argv)
        values = vars(self.parse_args([word for word, _ in words]))
        sources = dict.fromkeys(values, "default")
        flags = {flag: action.dest for action in self._actions for flag in action.option_strings}
        for word, source in words:
            if (flag := word.split("=", 1)[0]) in flags:
                sources[flags[flag]] = source
        return Given(values, sources)

    def expand(self, argv: Sequence[str]) -> list[recipes.Placed]:
        """Return the words with the recipes replaced by what they hold, each with where it came from."""
        try:
            return recipes.expand(argv, Path.cwd())
        except (ValueError, OSError) as error:
            self.error(str(error))

    def refuse(self, message: str) -> NoReturn:
        """End with exit code 2 and one line, of the first process only, for values that contradict each other."""
        line = " ".join(f"{self.prog}: error: {message}".split())
        self.exit(2, f"{line}\n" if launched_task().rank == 0 else None)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, one line and the way to the help."""
        self.refuse(f"{message} (see --help)")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a flag type: a whole number of at least `least` and at most `most`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return convert


def real(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return a flag type: a finite number in [least, most], or in (least, most] with `above`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value) or not least <= value <= most or (above and value == least):
            opening = "(" if above else "["
            raise argparse.ArgumentTypeError(f"{text} is outside {opening}{least:g}, {most:g}]")
        return value

    return convert


def part_of(text: str) -> str:
    """Read I/K, part I of K parts, as a flag type; return it in its only spelling."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/K, such as 1/5")
    if not 1 <= int(number) <= int(count) or int(count) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no part of at least 2; use 1/K to K/K")
    return f"{int(number)}/{int(count)}"
