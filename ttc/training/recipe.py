"""How a training step is made, apart from the method: what both training loops take from the flags."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from ttc.batches.augment import ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.losses import Objective
from ttc.training.embedder import MicroBatchEmbedder


@dataclass(frozen=True)
class StepRecipe:
    """What a step consists of.

    Attributes:
        views: augments a batch.
        cutmix: pastes patches of common images into rare ones, if at all.
        autocast: makes the context of the network's precision.
        micro_batches: pieces that a batch is embedded in, by gradient caching; 1 embeds it at once.
        compiled: whether torch compiles the network, and a loss that it can.
        learning_rate: step, counted from 0 -> learning rate.
        clip_norm: largest norm of the gradient; None for no limit.
        sam_rho: distance of the point whose gradient a step follows, see `gradient_passes`; None for its own.
        network: takes the place of the run's network, whose parameters it uses; see `frozen`.
    """

    views: ViewGenerator
    cutmix: MinorityCutMix
    autocast: Callable[[], AbstractContextManager[object]]
    micro_batches: int
    compiled: bool
    learning_rate: Callable[[int], float]
    clip_norm: float | None
    sam_rho: float | None = None
    network: nn.Module | None = None

    def prepare(self, network: nn.Module, objective: Objective) -> nn.Module:
        """Return the network as the loop calls it: compiled, or as the embedder of micro-batches, or as it is."""
        network = self.network or network
        if self.compiled:
            network = torch.compile(network)  # type: ignore[assignment]  # a Module, says torch elsewhere
            if objective.compiles and not objective.extra_terms:
                objective.compile()
        if self.micro_batches == 1:
            return network
        return MicroBatchEmbedder(
            network,
            objective,
            self.views,
            self.cutmix,
            micro_batches=self.micro_batches,
            autocast=self.autocast,
        )
