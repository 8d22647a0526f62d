"""The flags in groups; a flag has the same name and meaning in every script that has it."""

from ttc.flags.evaluation import (
    add_checkpoint,
    add_clinical,
    add_evaluation_output,
    add_evaluation_set,
    add_heads,
    add_metrics,
    add_probe,
)
from ttc.flags.running import add_output, add_runtime
from ttc.flags.training import add_augmentation, add_data, add_method, add_model, add_optimisation

__all__ = [
    "add_augmentation",
    "add_checkpoint",
    "add_clinical",
    "add_data",
    "add_evaluation_output",
    "add_evaluation_set",
    "add_heads",
    "add_method",
    "add_metrics",
    "add_model",
    "add_optimisation",
    "add_output",
    "add_probe",
    "add_runtime",
]
