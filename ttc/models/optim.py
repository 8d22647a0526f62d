"""Optimizers, parameter groups and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ttc.models.layers import layer_numbers

_UNDECAYED = ("token", "pos_embed", "pos_embedding", "relative_position_bias_table", "logit_scale", "layer_scale")
"""Ends of the names of parameters that AdamW does not decay although some have several dimensions."""


def build_optimizer(
    name: str, modules: Iterable[nn.Module], *, lr: float, weight_decay: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """Build the optimizer over all trainable parameters of `modules`.

    Weights decay; biases, normalisation gains, tokens and positions do not when the optimizer is AdamW, and do with
    SGD, as in the experiments of the paper.

    Args:
        name: "sgd" (with `momentum`), "adam" or "adamw".
        modules: the modules to train; parameters with `requires_grad=False` are left out.
        lr: peak learning rate, > 0.
        weight_decay: >= 0.
        momentum: of SGD.

    Raises:
        ValueError: unknown name.
    """
    return _optimizer(name, _groups(name, modules, weight_decay), lr=lr, weight_decay=weight_decay, momentum=momentum)


def build_layered_optimizer(
    name: str,
    encoder: nn.Module,
    others: Iterable[nn.Module],
    *,
    lr: float,
    encoder_lr: float,
    layer_decay: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Build an optimizer whose encoder learns more slowly than the heads, and its first layers most slowly.

    `set_learning_rate` keeps the ratios.

    Args:
        name: see `build_optimizer`.
        encoder: its layers are those of `layer_numbers`.
        others: the heads and the objective; they learn with `lr`.
        lr: peak rate of the heads.
        encoder_lr: peak rate of the encoder's last layer.
        layer_decay: factor of the rate from one block to the one before it, in (0, 1].
        weight_decay: see `build_optimizer`.

    Source: Clark et al., "ELECTRA", ICLR 2020, appendix; Bao et al., "BEiT", ICLR 2022, for images.
    """
    numbers = layer_numbers(encoder) if layer_decay < 1 else dict.fromkeys(dict(encoder.named_parameters()), 0)
    top = max(numbers.values())
    groups = _groups(name, others, weight_decay)
    for number in sorted(set(numbers.values())):
        layer = [(key, p) for key, p in encoder.named_parameters() if numbers[key] == number]
        factor = encoder_lr / lr * layer_decay ** (top - number)
        groups += [{**group, "lr": lr * factor, "factor": factor} for group in _split(name, layer, weight_decay)]
    return _optimizer(name, groups, lr=lr, weight_decay=weight_decay)


def _groups(name: str, modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    parameters = (named for module in modules for named in module.named_parameters())
    return _split(name, parameters, weight_decay)


def _split(name: str, parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, object]]:
    """Return the groups of an optimizer: with AdamW those that decay and those that do not."""
    learning = [(key, p) for key, p in parameters if p.requires_grad]
    if name != "adamw":
        return [{"params": [p for _, p in learning]}]
    spared = [p.ndim <= 1 or key.endswith(_UNDECAYED) for key, p in learning]
    return [
        {"params": [p for (_, p), spare in zip(learning, spared, strict=True) if spare is plain], "weight_decay": decay}
        for plain, decay in ((False, weight_decay), (True, 0.0))
    ]


def _optimizer(
    name: str, groups: list[dict[str, object]], *, lr: float, weight_decay: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    raise ValueError(f"--optimizer {name} is unknown; choose sgd, adam or adamw")


def learning_rate(step: int, *, peak: float, steps: int, warmup_steps: int) -> float:
    """Return the learning rate of a step: linear warm-up from 0.1 peak, then a cosine down to 0.001 peak.

    A function of the step alone, so that a resumed run needs no scheduler state.

    Args:
        step: 0 .. steps; at `steps` the run has ended.
        peak: the highest rate, reached at the end of the warm-up.
        steps: steps of the whole run.
        warmup_steps: steps of the warm-up, 0 .. steps.

    Raises:
        ValueError: step or warm-up lie outside the run.

    Source: the schedule of Mildenberger et al., CVPR 2025, per step instead of per epoch.
    """
    if not 0 <= step <= steps:
        raise ValueError(f"step {step} is outside the run of {steps} steps; give 0 to {steps}")
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warmup_steps {warmup_steps} do not fit into the run of {steps} steps; give 0 to {steps}")
    if step < warmup_steps:
        return peak * (0.1 + 0.9 * step / warmup_steps)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    floor = 0.001 * peak
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate, times the group's "factor" where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)


def step_optimizer(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip_norm: float | None = None
) -> None:
    """Clip the gradients if asked to, and let the optimizer take a step unless half precision has overflowed.

    Args:
        optimizer: its parameters hold the gradients of the scaled loss.
        scaler: of the mixed precision; may be disabled.
        clip_norm: largest norm of all gradients together; None for no limit.
    """
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(trainable(optimizer), clip_norm)
    scaler.step(optimizer)
    scaler.update()


def trainable(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return all parameters that the optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
