"""BatchNorm with the statistics of the whole batch when several processes hold pieces of it.

torch's SyncBatchNorm does this on CUDA only. The version here works on every device, so that a run on two CPU processes
computes what one process computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ttc import distributed


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the images of all ranks; in eval mode it is BatchNorm2d."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalise [N, C, H, W] per channel."""
        if not self.training:
            return super().forward(images)
        dims = (0, 2, 3)
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        # Two passes (mean, then squared deviations) as in one process; E[x^2] - E[x]^2 loses digits in float32.
        count = float(values.numel() // values.shape[1] * distributed.world_size())
        mean = distributed.sum_with_gradient(values.sum(dims)) / count
        centred = values - mean[:, None, None]
        variance = distributed.sum_with_gradient((centred * centred).sum(dims)) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


def synchronise(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm so that its statistics are those of the global batch; no change in a single process.

    Args:
        network: changed in place; parameters, buffers and their names stay.
        device: CUDA takes torch's own SyncBatchNorm.

    Returns:
        The network to use.
    """
    if distributed.world_size() == 1:
        return network
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
    return network


@contextlib.contextmanager
def running_statistics_moving_by(network: nn.Module, share: float) -> Iterator[None]:
    """Let one training step consist of several forward passes: a pass moves running statistics by a share of a step.

    After 1 / share passes the statistics from before the step have the weight that one pass leaves them, 1 - momentum,
    and the passes have the rest in nearly equal parts. The step is counted once.

    Args:
        network: its BatchNorms are changed within the context.
        share: of a step; 0 for a pass that repeats another one, which moves and counts nothing.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training  # a frozen one counts nothing
    ]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (momentum, counted) in zip(norms, kept, strict=True):
        assert momentum is not None
        assert counted is not None
        norm.momentum = 1.0 - (1.0 - momentum) ** share
        norm.num_batches_tracked = torch.zeros_like(counted)
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
            if share and counted is not None:
                counted += 1
