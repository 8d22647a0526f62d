"""Averages of the weights along a run: they are evaluated, while training goes on with the weights themselves.

* Averaged are the parameters that learn, of network and objective (its classifier, for example), and the running
  statistics of BatchNorm. Statistics that are averaged with the same shares as the weights fit the averaged network as
  far as they depend linearly on the weights, which those of the last step do not; computing them anew would take
  another pass over the training images at every look. All else (frozen layers, counters, prototypes, queues, momentum
  keys) is the run's own.
* The share of the newest weights is a function of the step, like the learning rate, so that a resumed run needs nothing
  but the averages.
* The weights are the same on every rank after every step, so each rank averages alone.
* In a checkpoint the averages stand in the place of the weights, where everything that evaluates finds them; the
  weights that training goes on with are its part "raw".

Source: Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control Optim. 1992; Izmailov
et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018 (equal shares; there once per
epoch at a constant rate, with new statistics of BatchNorm); Tarvainen, Valpola, "Mean teachers are better role models",
NeurIPS 2017 (exponential).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ttc.losses.objective import Objective
from ttc.models.networks import PretrainNetwork


def exponential_share(step: int, *, decay: float) -> float:
    """Return the share of the newest weights in an exponential average.

    It falls from 1 to 1 - decay as 9 / (10 + step), so that a short run, or the begin of a long one, does not keep the
    weights that it started from.

    Args:
        step: optimizer steps before this one.
        decay: of the average, in (0, 1]; with 1 the share keeps falling.

    Source: `tf.train.ExponentialMovingAverage(num_updates=...)` of TensorFlow.
    """
    return 1.0 - min(decay, (1 + step) / (10 + step)) if step else 1.0


def equal_share(step: int, *, first: int) -> float:
    """Return the share of the newest weights where all count alike from a step on; before, they are all there is.

    Args:
        step: optimizer steps before this one.
        first: the first step that is averaged, counted from 0.
    """
    return 1.0 / max(step - first + 1, 1)


class WeightAverage:
    """The average of a network's and an objective's weights so far.

    Attributes:
        rule: for the plan.
        tensors: name in the checkpoint, such as "encoder.layers.0.weight", -> average; empty before the first step.
    """

    def __init__(
        self, network: PretrainNetwork, objective: Objective, share: Callable[[int], float], rule: str
    ) -> None:
        """Average nothing yet.

        Args:
            network: whose weights are averaged.
            objective: the same.
            share: optimizer steps before this one -> share of the newest weights, in (0, 1]; 1 at step 0.
            rule: says so in words.
        """
        self.rule, self.tensors, self._share = rule, dict[str, Tensor](), share
        self._network, self._objective = network, objective
        self._weights: dict[str, Tensor] = {}

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        if not self.tensors:
            self._begin()
        torch._foreach_lerp_(list(self.tensors.values()), list(self._weights.values()), self._share(step))

    def _begin(self) -> None:
        frozen = {name for name, parameter in self._network.named_parameters() if not parameter.requires_grad}
        of_network = {
            name: value
            for name, value in self._network.state_dict().items()
            if value.is_floating_point() and name not in frozen
        }
        of_objective = {
            f"objective.{name}": parameter.detach()
            for name, parameter in self._objective.named_parameters()
            if parameter.requires_grad
        }
        self._weights = of_network | of_objective
        self.tensors = {name: value.clone() for name, value in self._weights.items()}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let network and objective hold the averages within the context, to evaluate them."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, average in self.tensors.items():
            kept = self._weights[name].clone()
            self._weights[name].copy_(average)
            average.copy_(kept)

    def in_place_of(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of a checkpoint, "encoder", "projection" and "objective", with the averages in them."""
        return {
            part: values and {name: self.tensors.get(f"{part}.{name}", value) for name, value in values.items()}
            for part, values in weights.items()
        }

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Take over the averages of a checkpoint that `in_place_of` returned.

        Raises:
            LookupError, TypeError, RuntimeError: it has other parts; see `checkpoint.contents`.
        """
        self._begin()
        for name, average in self.tensors.items():
            part, _, key = name.partition(".")
            average.copy_(weights[part][key])
