"""Read our own modules as syntax trees, for the tests of rules."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.processes import ROOT


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Yield where a file calls what."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield f"{name_of(path)}:{node.lineno}", ast.unparse(node.func), node


def keywords_of(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def none(offenders: Iterable[str]) -> None:
    """Fail with every line that breaks the rule, not with the first one alone."""
    lines = list(offenders)
    assert not lines, "\n" + "\n".join(lines)
