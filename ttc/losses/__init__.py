"""Losses for supervised contrastive learning on imbalanced classes; needs torch only."""

from ttc.losses.batch import Batch, Pool
from ttc.losses.objective import Objective
from ttc.losses.registry import METHODS, build_objective, method, settings_of

__all__ = ["METHODS", "Batch", "Objective", "Pool", "build_objective", "method", "settings_of"]
