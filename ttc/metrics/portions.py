"""How several processes share the comparison of pairs: each takes every n-th block, and their sums are added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class Portion:
    """The part of one process.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        total: Returns the sum of a tensor over all processes, on each of them.

    Note: every block's result has a place of its own, zero where another process computes it. Adding zeros is exact,
        so that the result does not depend on the number of processes.
    """

    rank: int = 0
    size: int = 1
    total: Callable[[torch.Tensor], torch.Tensor] = _itself

    def holds(self, block: int) -> bool:
        """Tell whether this process computes the block of that number."""
        return block % self.size == self.rank


ALONE = Portion()
"""A single process computes everything."""
