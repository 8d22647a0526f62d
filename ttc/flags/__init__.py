"""The flags in groups; a flag has the same name and meaning in every script that has it."""

from ttc.flags.data import add_augmentation, add_data
from ttc.flags.evaluation import (
    add_checkpoint,
    add_clinical,
    add_compare,
    add_evaluation_output,
    add_evaluation_set,
    add_heads,
    add_metrics,
    add_probe,
)
from ttc.flags.finetuning import add_finetuning, check_classes, complete_finetuning
from ttc.flags.running import add_monitoring, add_output, add_runtime
from ttc.flags.training import add_method, add_model, add_optimisation

__all__ = [
    "add_augmentation",
    "add_checkpoint",
    "add_clinical",
    "add_compare",
    "add_data",
    "add_evaluation_output",
    "add_evaluation_set",
    "add_finetuning",
    "add_heads",
    "add_method",
    "add_metrics",
    "add_model",
    "add_monitoring",
    "add_optimisation",
    "add_output",
    "add_probe",
    "add_runtime",
    "check_classes",
    "complete_finetuning",
]
