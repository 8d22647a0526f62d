"""BatchNorm with the statistics of the whole batch when several processes hold pieces of it.

torch's SyncBatchNorm does this on CUDA only, and for torch's own classes only. The version here works on every device
and for every class derived from them, so that a run on two CPU processes computes what one process computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ttc import distributed

_TORCHS_OWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norm_over_ranks(
    values: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what `torch.nn.functional.batch_norm` does in training, with the rows of all ranks as the batch.

    Args:
        values: [N, C, ...], this rank's rows; N is the same on every rank.
        running_mean: [C], changed in place unless None.
        running_var: the same.
        weight: [C] or None.
        bias: [C] or None.
        training: always True.
        momentum: by how much the running statistics move.
        eps: added to the variance.

    Returns:
        [N, C, ...] in the precision of `values`.

    Raises:
        ValueError: all ranks together hold a single value per channel.
    """
    assert training
    channels = (-1, *(1,) * (values.dim() - 2))
    dims = (0, *range(2, values.dim()))
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    count = float(exact.numel() // exact.shape[1] * distributed.world_size())
    if count < 2:
        raise ValueError(
            f"BatchNorm needs more than one value per channel, not {list(values.shape)}; use larger batches"
        )
    # Two passes (mean, then squared deviations) as in one process; E[x^2] - E[x]^2 loses digits in float32.
    mean = distributed.sum_with_gradient(exact.sum(dims)) / count
    centred = exact - mean.view(channels)
    variance = distributed.sum_with_gradient((centred * centred).sum(dims)) / count
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance.detach() * count / (count - 1)).to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps)
    out = centred * (scale if weight is None else weight * scale).view(channels)
    return (out if bias is None else out + bias.view(channels)).to(values.dtype)


class _OverRanks(TorchFunctionMode):
    """Lets the training pass of every batch_norm that is called in the context go over the rows of all ranks."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        positional: Sequence[object] = (),
        keywords: Mapping[str, object] | None = None,
    ) -> object:
        if func is functional.batch_norm:
            func = batch_norm_over_ranks
        return func(*positional, **(keywords or {}))


class GlobalStatistics(_BatchNorm):
    """What `synchronise` adds to a class of BatchNorm; in eval mode the class does what it did without."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalise [N, C, ...] per channel, and do whatever else the class does."""
        with _OverRanks() if self.training else contextlib.nullcontext():
            return super().forward(values)


def synchronise(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm so that its statistics are those of the global batch; no change in a single process.

    Args:
        network: changed in place; parameters, buffers and their names stay. Layers with frozen statistics, which are
            no BatchNorm to torch or are in eval mode, compute what they did.
        device: CUDA takes torch's own SyncBatchNorm for torch's own classes.

    Returns:
        The network to use.
    """
    if distributed.world_size() == 1:
        return network
    if device.type == "cuda" and type(network) in _TORCHS_OWN:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch
        return converted
    if isinstance(network, _BatchNorm) and not isinstance(network, GlobalStatistics | nn.SyncBatchNorm):
        network.__class__ = type(f"Global{type(network).__name__}", (GlobalStatistics, type(network)), {})
    for name, child in network.named_children():
        setattr(network, name, synchronise(child, device))
    return network


@contextlib.contextmanager
def running_statistics_moving_by(network: nn.Module, share: float) -> Iterator[None]:
    """Let one training step consist of several forward passes, each of which moves running statistics by a share.

    After 1 / share passes the statistics from before the step have the weight that one pass leaves them, 1 - momentum,
    and the passes share the rest almost equally. The step is counted once.

    Args:
        network: its BatchNorms are changed within the context.
        share: of a step; 0 for a pass that repeats another one, which moves and counts nothing.
    """
    norms = [
        module
        for module in network.modules()
        # A frozen one counts nothing, one without statistics has none to move.
        if isinstance(module, _BatchNorm) and module.training and module.num_batches_tracked is not None
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (momentum, counted) in zip(norms, before, strict=True):
        assert counted is not None
        norm.num_batches_tracked = torch.zeros_like(counted)
        if momentum is not None:
            norm.momentum = 1.0 - (1.0 - momentum) ** share
        elif share == 0:
            norm.momentum = 0.0
        else:  # the average of all batches so far, of which each step was as many
            norm.num_batches_tracked += counted * round(1 / share)
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
            if share and counted is not None:
                counted += 1
