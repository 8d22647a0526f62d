"""The methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .objective import Objective

Class = TypeVar("Class", bound=type[Objective])


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        objective: its class.
        description: one line for the help text.
        streamed: its memory grows with the rows of the batch; False for a method that forms pair matrices.
    """

    objective: type[Objective]
    description: str
    streamed: bool = True

    @property
    def source(self) -> str:
        """Paper and equation, from the class's docstring."""
        _, heading, source = (inspect.getdoc(self.objective) or "").partition("Source:")
        assert heading, f"{self.objective.__name__} names no source"
        return " ".join(source.partition("Note:")[0].split())


METHODS: dict[str, Method] = {}
"""In the order in which their files are imported, which is that of help texts and tables."""


def method(name: str, description: str, *, streamed: bool = True) -> Callable[[Class], Class]:
    """Register the class below under a name.

    Args:
        name: value of `--method`.
        description: one line for the help text.
        streamed: False if the loss forms matrices of all pairs of rows; the plan of a run then says what they take.
    """

    def register(objective: Class) -> Class:
        assert name not in METHODS, f"{name} is registered already"
        METHODS[name] = Method(objective, description, streamed)
        return objective

    return register
