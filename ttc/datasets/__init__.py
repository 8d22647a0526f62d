"""Data sources, class groups, imbalance, splits and image loading.

A new source is one module with `read(settings) -> Source` and one line in `registry.READERS`.
"""

from ttc.datasets.images import CachedImages, FileImages, TensorImages
from ttc.datasets.loading import TrainingBatches, batches
from ttc.datasets.plan import describe
from ttc.datasets.registry import DATASETS, load_dataset
from ttc.datasets.residence import resident
from ttc.datasets.table import Dataset, DatasetSettings

__all__ = [
    "DATASETS",
    "CachedImages",
    "Dataset",
    "DatasetSettings",
    "FileImages",
    "TensorImages",
    "TrainingBatches",
    "batches",
    "describe",
    "load_dataset",
    "resident",
]
