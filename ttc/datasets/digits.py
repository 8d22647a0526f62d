"""The 1,797 handwritten digits that ship inside scikit-learn, 8x8 pixels."""

from __future__ import annotations

import numpy as np

from ttc.datasets.classes import group_labels
from ttc.datasets.table import DatasetSettings, Source

LABELS = {str(digit): str(digit) for digit in range(10)}
DEFAULT_CLASSES = ("01234", "56789")
HELD_OUT = {"test": 500, "val": 97}
MAX_INK = 16


def read(settings: DatasetSettings) -> Source:
    """Read the digits; 500 test and 97 validation images are drawn, stratified by digit."""
    from sklearn.datasets import load_digits

    if settings.data_root is not None:
        raise ValueError(f"--data-root {settings.data_root}: digits ships with scikit-learn; leave the flag out")
    bunch = load_digits()
    return Source(
        ids=[f"digits/{row:04d}" for row in range(len(bunch.target))],
        labels=[str(digit) for digit in bunch.target],
        classes=group_labels(LABELS, settings.classes, settings.positive_classes, DEFAULT_CLASSES),
        splits=["train"] * len(bunch.target),
        held_out=HELD_OUT,
        pixels=np.round(bunch.images * (255 / MAX_INK)).astype(np.uint8),
    )
