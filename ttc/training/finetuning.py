"""What fine-tuning adds to training: an encoder with frozen parts, a classifier, two learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ttc.losses import build_objective
from ttc.losses.objective import Objective
from ttc.models.batchnorm import synchronise
from ttc.models.layers import recompute_blocks
from ttc.models.networks import PretrainNetwork
from ttc.models.optim import learning_rate
from ttc.models.pretrained import Pretrained
from ttc.run import checkpoint

KIND = checkpoint.FINETUNE
"""Kind of the checkpoints that finetune.py writes."""

LOSSES = ("ce", "weighted-ce", "focal", "logit-adjusted-ce")
"""The objectives that train a classifier on one view."""


class FinetuneNetwork(PretrainNetwork):
    """An encoder that is frozen for some time, or up to some layer; BatchNorm is frozen with its layer."""

    def __init__(self, encoder: nn.Module, freeze_until: str | None) -> None:
        """Take over an encoder.

        Args:
            encoder: of `build_encoder`; all its parameters will learn, apart from the frozen layers.
            freeze_until: last frozen layer, or None.

        Raises:
            ValueError: there is no such layer, or no layer is left to learn.
        """
        super().__init__(encoder, None)
        self.learning = True
        encoder.requires_grad_(True)
        if freeze_until is not None:
            self.freeze(freeze_until)

    def learn(self, learning: bool) -> None:
        """Let the encoder learn, or freeze it in eval mode, until the next call."""
        self.learning = learning
        self.train()

    def train(self, mode: bool = True) -> FinetuneNetwork:
        """Set the mode of all that is to learn."""
        super().train(mode and self.learning)
        return self


def build_network(
    run: Pretrained,
    *,
    from_scratch: bool,
    freeze_until: str | None,
    device: torch.device,
    drop_path: float = 0.0,
    recompute: bool = False,
) -> FinetuneNetwork:
    """Build the network of a checkpoint for fine-tuning.

    Args:
        run: the checkpoint.
        from_scratch: take random weights, from torch's global generator, in the place of the checkpoint's.
        freeze_until: last frozen layer, or None.
        device: where the network goes.
        drop_path: see `build_encoder`.
        recompute: keep only the inputs of the encoder's blocks for the backward pass.
    """
    # Built in both cases, so that both leave the same random state behind.
    encoder = run.description.network(drop_path).encoder
    if not from_scratch:
        encoder.load_state_dict(run.network.encoder.state_dict())
    network = FinetuneNetwork(encoder, freeze_until)
    synchronise(network, device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    if recompute:
        recompute_blocks(network.encoder, str(run.description.encoder["name"]))
    return network


def build_classifier(
    loss: str, class_counts: list[int], feature_dim: int, class_weights: Sequence[float] | None, seed: int
) -> tuple[Objective, dict[str, object]]:
    """Build a new head with its loss.

    Args:
        loss: one of LOSSES.
        class_counts: samples of each class that the batches present, as `BatchSampler.presented_counts` says.
        feature_dim: F.
        class_weights: one per class, in place of the inverse class frequencies; for losses with weights.
        seed: of the head's weights.

    Returns:
        The objective, and the keyword arguments of `build_objective` that build it again.

    Raises:
        ValueError: not one weight per class.
    """
    classes = len(class_counts)
    settings: dict[str, object] = {
        "num_classes": classes, "class_counts": class_counts, "feature_dim": feature_dim, "seed": seed
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
