"""The blocks and stages of any encoder: for layer decay, recomputation, freezing and probes of intermediate layers.

A block is an outermost part whose class is named so (BasicBlock, EncoderBlock, CNBlock, SwinTransformerBlock,
InvertedResidual, Fire, ...); in networks without any it is a layer with a weight matrix. A stage is a part that holds
several consecutive blocks, or a single block where the network is one sequence of them, as in a ViT.

Legend: N images, C channels, H x W positions, T tokens, F features.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ttc.models.batchnorm import running_statistics_moving_by

OUTPUTS = ("encoder", "projection")
"""What every network returns; other names of layers are those of the encoder's modules."""

_BLOCK = re.compile(r"Block|Bottleneck|Residual|MBConv|DenseLayer|Fire|Inception|DepthwiseSeparable")


def blocks(encoder: nn.Module) -> list[str]:
    """Return the names of the blocks in the order in which they were built."""
    return _marked(encoder) or [
        name for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]


def _marked(encoder: nn.Module) -> list[str]:
    names: list[str] = []
    for name, module in encoder.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in names)
        if name and not inside and _BLOCK.search(type(module).__name__) and list(module.parameters()):
            names.append(name)
    return names


def stages(encoder: nn.Module) -> list[str]:
    """Return the names of the stages, from the first to the last."""
    names = _marked(encoder)
    parents = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    return parents if len(parents) > 1 and all(parents) else names or blocks(encoder)


def layer_numbers(encoder: nn.Module) -> dict[str, int]:
    """Return parameter name -> number of its layer.

    0 is what comes before the first block, k the k-th block with what leads to it; what comes after the last block
    belongs to it. Where a block is a single weight matrix, its normalisation belongs to it.
    """
    names, between = blocks(encoder), int(bool(_marked(encoder)))
    numbers: dict[str, int] = {}
    latest = 0
    for name, _ in encoder.named_parameters():
        block = next((number for number, block in enumerate(names, 1) if name.startswith(f"{block}.")), None)
        latest = block or latest
        numbers[name] = block or (latest and min(latest + between, len(names)))
    return numbers


def recompute_blocks(encoder: nn.Module, name: str) -> None:
    """Let the blocks keep nothing for the backward pass but their inputs, and compute the rest again when it comes.

    The gradients are the same; a step takes about a third longer. BatchNorm's running statistics move once.

    Args:
        encoder: changed in place; its final form, as this wraps what the blocks are now.
        name: of the encoder, for the message.

    Raises:
        ValueError: it has no blocks.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    names = _marked(encoder)
    if not names:
        raise ValueError(f"--grad-checkpointing: --encoder {name} has no blocks to compute again; leave it out")
    for block in map(encoder.get_submodule, names):
        block.forward = partial(_recomputed, block, block.forward)


def _recomputed(block: nn.Module, forward: Callable[..., object], *inputs: object, **options: object) -> object:
    if not block.training or not torch.is_grad_enabled():
        return forward(*inputs, **options)
    contexts = partial(_contexts, block)
    again = partial(forward, **options)
    return checkpoint(again, *inputs, use_reentrant=False, context_fn=contexts)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what the first and the second pass of a block run in."""
    return contextlib.nullcontext(), running_statistics_moving_by(block, 0.0)


class WithStages(nn.Module):
    """A network that returns the means of intermediate outputs behind its features.

    Attributes:
        network: returns (features, z); its `encoder` has the stages.
        names: of the stages.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        """Remember the parts.

        Args:
            network: in either mode.
            names: modules of `network.encoder`.

        Raises:
            ValueError: there is no such module.
        """
        super().__init__()
        self.training = network.training  # which `train` and `eval` pass on
        self.network, self.names = network, list(names)
        self._widths: list[int] = []
        encoder = network.encoder
        assert isinstance(encoder, nn.Module)
        modules = dict(encoder.named_modules())
        for name in names:
            if name not in modules or not name:
                raise ValueError(f"--layers {name}: the encoder has no such layer; use {', '.join(stages(encoder))}")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embed images; return features [N, F and the stages' widths] and z [N, D]."""
        encoder = self.network.encoder
        assert isinstance(encoder, nn.Module)
        outputs: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, inputs: object, output: Tensor | Sequence[Tensor]) -> None:
            outputs[name] = pooled(output, encoder)

        hooks = [encoder.get_submodule(name).register_forward_hook(partial(keep, name)) for name in self.names]
        try:
            features, z = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        parts = [features, *(outputs[name] for name in self.names)]
        self._widths = [part.shape[1] for part in parts]
        return torch.cat(parts, 1), z

    def split(self, features: Tensor) -> dict[str, Tensor]:
        """Return the parts of what `forward` returned last: "encoder" and each stage -> [N, its width]."""
        return dict(zip(("encoder", *self.names), torch.split(features, self._widths, -1), strict=True))


def pooled(output: Tensor | Sequence[Tensor], encoder: nn.Module) -> Tensor:
    """Return one vector per image of what a layer returned: the mean of a map, and of tokens what the encoder uses.

    Args:
        output: [N, C, H, W], [N, H, W, C] of a Swin, [N, T, C] or [N, C].
        encoder: whose layer it is.

    Returns:
        [N, C].
    """
    values = output if isinstance(output, Tensor) else output[0]
    if values.ndim == 4:
        last = getattr(encoder, "output_fmt", "NCHW") == "NHWC" or type(encoder).__name__ == "SwinTransformer"
        return values.mean((1, 2) if last else (2, 3))
    if values.ndim == 3:
        prefix = getattr(encoder, "num_prefix_tokens", 0)
        takes_first = getattr(encoder, "global_pool", "") == "token" or hasattr(encoder, "class_token")
        return values[:, 0] if takes_first else values[:, prefix:].mean(1)
    return values
