"""What fine-tuning adds to training: an encoder of which parts stand still, a classifier, two learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ttc.losses import build_objective
from ttc.losses.objective import Objective
from ttc.models.batchnorm import synchronise
from ttc.models.description import Description
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import build_optimizer, learning_rate
from ttc.models.pretrained import Pretrained
from ttc.run import checkpoint
from ttc.run.folder import shorten

KIND = checkpoint.FINETUNE
"""Kind of the checkpoints that finetune.py writes."""

LOSSES = ("ce", "weighted-ce", "focal", "logit-adjusted-ce")
"""The objectives that train a classifier on one view."""


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


def build_network(
    run: Pretrained, *, from_scratch: bool, freeze_until: str | None, device: torch.device
) -> FinetuneNetwork:
    """Build the network of a checkpoint for fine-tuning.

    Args:
        run: the checkpoint.
        from_scratch: take random weights, from torch's global generator, in the place of the checkpoint's.
        freeze_until: last frozen layer, or None.
        device: where the network goes.
    """
    # Built in both cases, so that both leave the same random state behind.
    encoder = run.description.network().encoder
    if not from_scratch:
        encoder.load_state_dict(run.network.encoder.state_dict())
    network = FinetuneNetwork(encoder, freeze_until)
    synchronise(network, device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return network


def build_classifier(
    loss: str, description: Description, feature_dim: int, class_weights: Sequence[float] | None, seed: int
) -> tuple[Objective, dict[str, object]]:
    """Build a new head with its loss.

    Args:
        loss: one of LOSSES.
        description: of the pretraining run.
        feature_dim: F.
        class_weights: one per class, in place of the inverse class frequencies; for losses with weights.
        seed: of the head's weights.

    Returns:
        The objective, and the keyword arguments of `build_objective` that build it again.

    Raises:
        ValueError: not one weight per class.
    """
    classes = len(description.class_names)
    settings: dict[str, object] = {
        "num_classes": classes, "class_counts": description.class_counts, "feature_dim": feature_dim, "seed": seed
    }  # fmt: skip
    objective = build_objective(loss, **settings)  # type: ignore[arg-type]  # the values above
    if class_weights is not None:
        if len(class_weights) != classes:
            raise ValueError(f"--class-weights has {len(class_weights)} values for {classes} classes; give one each")
        weights = torch.tensor(class_weights, dtype=torch.float64)
        objective.get_buffer("class_weights_K").copy_(weights / weights.sum())
    # The objective's own check would wait for the device in every step, and raise before LossMonitor saves the batch.
    objective.validate = False
    return objective, settings


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
    # A phase that ends within its warm-up follows the rise of a longer one.
    rest = max(steps - linear_steps, warmup_steps)
    return learning_rate(step - linear_steps, peak=peak, steps=rest, warmup_steps=warmup_steps)
