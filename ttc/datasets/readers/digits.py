"""The 1,797 handwritten digits that ship inside scikit-learn, 8x8 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ttc.datasets.classes import group_labels
from ttc.datasets.table import DatasetSettings, Source

LABELS = {str(digit): str(digit) for digit in range(10)}
DEFAULT_CLASSES = ("01234", "56789")
HELD_OUT = {"test": 500, "val": 97}
MAX_INK = 16


def read(settings: DatasetSettings) -> Source:
    """Read the digits; 500 test and 97 validation images are drawn, stratified by digit."""
    if settings.data_root is not None:
        raise ValueError(f"--data-root {settings.data_root}: digits ships with scikit-learn; leave the flag out")
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ValueError("--dataset digits ships with scikit-learn, which is not installed; pip install scikit-learn")
    # The file that load_digits reads, without the seconds that importing scikit-learn takes.
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    ink, digits = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
    return Source(
        ids=[f"digits/{row:04d}" for row in range(len(digits))],
        labels=[str(digit) for digit in digits],
        classes=group_labels(LABELS, settings.classes, settings.positive_classes, DEFAULT_CLASSES),
        splits=["train"] * len(digits),
        held_out=HELD_OUT,
        pixels=np.round(ink * (255 / MAX_INK)).astype(np.uint8),
    )
