"""Losses for supervised contrastive learning on imbalanced classes; torch only, no ranks, no files.

The folder works under any name in another project. To read a method, start with its function in `reference.py`; to add
one, write a file with a class below `@method` and import it here.
"""

# ruff: noqa: I001  (the order of the imports is the order of the methods in help texts and tables)
from . import supervised, prototypes, targeted, balanced, parametric, subclass, probabilistic, cross_entropy  # noqa: F401
from .batch import Batch, Pool
from .build import build_objective, settings_of
from .objective import Objective
from .registry import METHODS, Method, method

__all__ = ["METHODS", "Batch", "Method", "Objective", "Pool", "build_objective", "method", "settings_of"]
