"""Sharpness-aware minimisation: a step follows the gradient at the worst point nearby, not the one where it stands.

With g the gradient of the loss L at the weights w, the step is taken from w with the gradient of L at w + rho g / |g|,
where L is largest within rho to first order. That takes two forward and backward passes.

* Both passes see the same views, and draw the same random numbers (dropout, skipped blocks).
* Running statistics of BatchNorm, of a momentum network's too, move in the first pass only; so does what a method notes
  for `Objective.after_step`. Within the second pass BatchNorm normalises by the batch, as always in training.
* Both gradients are averaged over ranks like every other one, so that all ranks climb to the same point, the one of
  the global batch. The paper lets every device climb by its own gradient, which would save the first average
  (DDP's `no_sync`) and make the result depend on the number of devices.
* The point does not depend on the scale of the loss, so the gradients need not be unscaled first. Where the first
  gradient overflows, the second one is no number either and the scaler leaves the step out; the weights are put back
  from a copy in any case.
* Weight decay and the limit of the gradient's norm belong to the step, not to the climb.

Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021, equation 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ttc.losses.objective import Objective
from ttc.models.batchnorm import running_statistics_moving_by
from ttc.models.optim import trainable


def gradient_passes(
    rho: float | None, optimizer: torch.optim.Optimizer, network: nn.Module, objective: Objective
) -> Iterator[bool]:
    """Yield once for every forward and backward pass of a step; the gradient of the last one is that of the step.

    Args:
        rho: distance of the worst point, > 0; None for the only pass of an ordinary step.
        optimizer: of all weights; when the first pass is over, they must hold its gradients, averaged over ranks.
        network: in training mode, wrapped or not.
        objective: its `terms` stay those of the first pass.

    Yields:
        Whether it is the first pass, at the weights themselves.
    """
    if rho is None:
        yield True
        return
    device = trainable(optimizer)[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the second pass draws from here again
        yield True
    terms = objective.terms
    with _uphill(optimizer, rho), running_statistics_moving_by(nn.ModuleList([network, objective]), 0.0):
        objective.training = False  # of this module alone: it notes nothing for `after_step`
        yield False
        objective.training = True
    objective.terms = terms


@contextmanager
def _uphill(optimizer: torch.optim.Optimizer, rho: float) -> Iterator[None]:
    """Move the weights by rho along their gradient within the context."""
    learning = [weight for weight in trainable(optimizer) if weight.grad is not None]
    weights = [weight.detach() for weight in learning]
    kept = [weight.clone() for weight in weights]
    gradients = [weight.grad for weight in learning if weight.grad is not None]
    norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
    torch._foreach_add_(weights, list(torch._foreach_mul(gradients, rho / (norm + 1e-12))))
    try:
        yield
    finally:
        torch._foreach_copy_(weights, kept)
