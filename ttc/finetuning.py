"""What fine-tuning adds to training: an encoder of which parts stand still, two learning rates, choice by validation.

Legend: N images, F encoder features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ttc.models import PretrainNetwork
from ttc.optim import build_optimizer, learning_rate
from ttc.runfolder import shorten
from ttc.training_state import TrainingState

KIND = "finetune"
"""Kind of the checkpoints that finetune.py writes."""

LOSSES = ("ce", "weighted-ce", "focal", "logit-adjusted-ce")
"""The objectives that train a classifier on one view."""

SELECTORS = ("auroc", "auprc", "balanced_accuracy", "loss")
"""Validation metrics that can choose the epoch; all but the loss are better when higher."""


class FinetuneNetwork(PretrainNetwork):
    """An encoder that stands still for some time, or up to some layer; BatchNorm stands still with its layer."""

    def __init__(self, encoder: nn.Module, freeze_until: str | None) -> None:
        """Take over an encoder.

        Args:
            encoder: of `build_encoder`; all its parameters will learn, apart from the frozen layers.
            freeze_until: last frozen layer, or None.

        Raises:
            ValueError: there is no such layer, or none is left to learn.
        """
        super().__init__(encoder, None)
        self.learning = True
        encoder.requires_grad_(True)
        # By name: SyncBatchNorm takes the place of modules.
        self._frozen = set() if freeze_until is None else _freeze(encoder, freeze_until)

    def learn(self, learning: bool) -> None:
        """Let the encoder learn, or stand still in eval mode, until the next call."""
        self.learning = learning
        self.train()

    def train(self, mode: bool = True) -> FinetuneNetwork:
        """Set the mode of all that is to learn."""
        super().train(mode and self.learning)
        for name, module in self.encoder.named_modules():
            if name in self._frozen:
                module.eval()
        return self


def _freeze(encoder: nn.Module, layer: str) -> set[str]:
    """Freeze all parameters up to those of a layer; return the names of the modules that own them."""
    names = [name for name, _ in encoder.named_parameters()]
    inside = [place for place, name in enumerate(names) if name.startswith(f"{layer}.")]
    if not inside or inside[-1] == len(names) - 1:
        reason = "freezes the whole encoder; use --freeze-encoder, or" if inside else "is no layer with weights;"
        raise ValueError(f"--freeze-until {layer} {reason} choose one of {shorten(_layers(encoder), 9)}")
    frozen = set(names[: inside[-1] + 1])
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return {name.rpartition(".")[0] for name in frozen}


def _layers(encoder: nn.Module) -> list[str]:
    """Return the coarsest layers with weights, without the last."""
    parts = [name for name, part in encoder.named_children() if list(part.parameters())]
    if len(parts) == 1:
        parts = [f"{parts[0]}.{name}" for name, part in encoder.get_submodule(parts[0]).named_children()
                 if list(part.parameters())]  # fmt: skip
    return parts[:-1]


def finetune_optimizer(
    name: str, network: nn.Module, head: nn.Module, *, lr: float, encoder_lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build one optimizer for head and encoder; `set_learning_rate` keeps the ratio of their rates.

    Args:
        name: see `build_optimizer`.
        network: holds the encoder.
        head: learns with `lr`.
        lr: peak rate of the head.
        encoder_lr: peak rate of the encoder.
        weight_decay: of both.
    """
    optimizer = build_optimizer(name, [head], lr=lr, weight_decay=weight_decay)
    for group in build_optimizer(name, [network], lr=encoder_lr, weight_decay=weight_decay).param_groups:
        optimizer.add_param_group({**group, "factor": encoder_lr / lr})
    return optimizer


def two_phase_rate(step: int, *, peak: float, linear_steps: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate of a step: a cosine over the linear phase, then warm-up and cosine over the rest.

    Args:
        step: 0 .. steps - 1.
        peak: the highest rate in each phase.
        linear_steps: steps of the linear phase, 0 .. steps.
        steps: of the whole run.
        warmup_steps: of the second phase.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022
        (linear probing, then fine-tuning).
    """
    if step < linear_steps:
        return learning_rate(step, peak=peak, steps=linear_steps, warmup_steps=0)
    return learning_rate(step - linear_steps, peak=peak, steps=steps - linear_steps, warmup_steps=warmup_steps)


@dataclass
class Selection:
    """Keeps the weights of the epoch that validation likes best, and tells when waiting longer is no use.

    Its memory is `state.extra`, so that it is saved and resumed with the run.

    Attributes:
        state: of the run.
        validate: returns the validation metrics of the network as it is, "val/..." -> number, equal on every rank.
        metric: one of SELECTORS.
        patience: epochs without a better one after which the run ends; 0 never.
        first_epoch: epochs up to this one do not count against the patience.
    """

    state: TrainingState
    validate: Callable[[], Mapping[str, float]]
    metric: str
    patience: int
    first_epoch: int

    def epoch_ended(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and return the numbers for the log."""
        values = dict(self.validate())
        score = -values["val/loss"] if self.metric == "loss" else values[f"val/{self.metric}"]
        extra = self.state.extra
        if not extra or score > extra["best_score"]:
            weights = {"encoder": self.state.network.encoder, "objective": self.state.objective}
            best = {name: _copy(part.state_dict()) for name, part in weights.items()}
            extra |= {"best_score": score, "best_epoch": self.state.epoch, "best": best}
        return {**values, "val/best_epoch": float(extra["best_epoch"])}

    @property
    def exhausted(self) -> bool:
        """Whether the patience has run out."""
        last = max(self.state.extra.get("best_epoch", 0), self.first_epoch)
        return bool(self.patience) and self.state.epoch - last >= self.patience

    def take_best(self) -> None:
        """Give network and objective the weights of the best epoch; the run is over."""
        best = self.state.extra.pop("best")
        self.state.network.encoder.load_state_dict(best["encoder"])
        self.state.objective.load_state_dict(best["objective"])


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
