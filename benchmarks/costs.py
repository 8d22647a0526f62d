"""What a training step costs each rank: operations and bytes sent, by formulae and counted in a step that runs.

Symbols: B samples of all ranks, V views, N = B * V rows, A = N / W rows of one rank, D dimensions, W ranks, P
parameters. One multiplication and one addition are two FLOP. Only the leading terms are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ttc import distributed

_FLOAT = 4
_LABEL_AND_ID = 16


@dataclass(frozen=True)
class StepCost:
    """Costs of one step for one rank.

    Attributes:
        network_flops: of the network's forward and backward passes.
        loss_flops: of the products of rows in the loss.
        gather_bytes: sent to gather rows, labels and ids, and to sum the rows' gradients.
        gradient_bytes: sent to average the gradients of the parameters.
        batchnorm_bytes: sent to share the statistics of BatchNorm.
    """

    network_flops: float
    loss_flops: float
    gather_bytes: float
    gradient_bytes: float
    batchnorm_bytes: float

    @property
    def flops(self) -> float:
        """Operations in all."""
        return self.network_flops + self.loss_flops

    @property
    def sent_bytes(self) -> float:
        """Bytes sent in all."""
        return self.gather_bytes + self.gradient_bytes + self.batchnorm_bytes


def step_cost(
    *,
    batch: int,
    views: int,
    dimensions: int,
    ranks: int,
    forward_flops: float,
    parameters: int,
    batchnorm_channels: int,
) -> StepCost:
    """Compute what a step of a contrastive method costs each rank.

    The loss of one process multiplies each pair of rows once (2 N^2 D / 2) and again in the backward pass, which adds
    each product to both gradients: 4 N^2 D. With several ranks a rank's rows meet all rows: 2 A N D forward, and in the
    backward pass as much to recompute, for the gradient of its rows and for that of all rows: 8 A N D. A gather or a
    sum that is scattered sends (W - 1) / W of its size from each rank, an all-reduce twice that (ring algorithms).

    Args:
        batch: B, samples of all ranks.
        views: V that the network embeds.
        dimensions: D.
        ranks: W.
        forward_flops: of the network's forward pass for one image.
        parameters: P.
        batchnorm_channels: channels of all BatchNorm layers together.
    """
    rows, share = batch * views, (ranks - 1) / ranks
    pairs = rows * rows / ranks * dimensions
    matrix = _FLOAT * rows * dimensions
    return StepCost(
        network_flops=3 * forward_flops * rows / ranks,
        loss_flops=(4 if ranks == 1 else 8) * pairs,
        gather_bytes=share * (2 * matrix + _LABEL_AND_ID * batch),
        gradient_bytes=2 * share * _FLOAT * parameters,
        # Mean and variance, forward and backward, each an all-reduce.
        batchnorm_bytes=4 * 2 * share * _FLOAT * batchnorm_channels,
    )


def count_forward_flops(network: nn.Module, image: Tensor) -> int:
    """Count the operations of a forward pass of one image [1, C, H, W]; the network's mode is left as it was."""
    training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    network.train(training)
    return int(counter.get_total_flops())


def count_batchnorm_channels(network: nn.Module) -> int:
    """Add up the channels of all BatchNorm layers."""
    return sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def flop_counter() -> FlopCounterMode:
    """Return a context that counts operations, with the in-place product that PyTorch's counter does not know."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _product_flops})


def _product_flops(total: Sequence[int], left: Sequence[int], right: Sequence[int], **kwargs: object) -> int:
    return 2 * left[0] * left[1] * right[1]


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves these untyped
    """Adds up what this rank sends in collectives: (W - 1) / W of the whole (a ring), twice that for an all-reduce."""

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.sent_bytes = 0.0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Note the collectives among the operators."""
        if func.namespace == "c10d":
            sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            world = distributed.world_size()
            times = 2 if "allreduce" in str(func) else 1
            # Of the two tensors of a gather or scatter, the larger one holds the parts of all ranks.
            self.sent_bytes += times * (world - 1) / world * max(sizes, default=0)
        return func(*args, **(kwargs or {}))
