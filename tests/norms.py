"""Every kind of BatchNorm, and the shape of what it normalises: [N, C, ...]."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(3), (8, 3)),
    "1d of sequences": (lambda: nn.BatchNorm1d(3), (6, 3, 5)),
    "2d": (lambda: nn.BatchNorm2d(3), (6, 3, 4, 5)),
    "3d": (lambda: nn.BatchNorm3d(3), (6, 3, 4, 2, 2)),
    "cumulative": (lambda: nn.BatchNorm2d(3, momentum=None), (6, 3, 4, 5)),
    "without scale": (lambda: nn.BatchNorm2d(3, affine=False), (6, 3, 4, 5)),
    "without statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 4, 5)),
    "with activation": (lambda: pytest.importorskip("timm.layers").BatchNormAct2d(3), (6, 3, 4, 5)),
}
