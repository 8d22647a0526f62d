"""What a training step will need in memory, from shapes alone: nothing is computed and nothing moves.

Legend: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

_MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that an optimizer keeps per weight."""


def step_bytes(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    images: int,
    *,
    optimizer: str,
    half_precision: bool,
    copies: int = 0,
) -> int:
    """Estimate the peak of a training step: weights, gradients, the optimizer, and what the backward pass needs.

    Args:
        network: encoder and head, in any mode; it is left as it was.
        image_shape: C, H, W of a view.
        images: views that are in the network at a time.
        optimizer: its name.
        half_precision: whether activations take half the bytes.
        copies: of the weights that learn, apart from the optimizer's.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    # From two numbers of images to any: some of what is kept does not grow with them.
    of_one, of_two = (activation_bytes(network, image_shape, count) for count in (1, 2))
    activations = of_one + (images - 1) * (of_two - of_one)
    return 4 * weights + 4 * learning * (1 + _MOMENTS[optimizer] + copies) + activations // (2 if half_precision else 1)


def activation_bytes(network: nn.Module, image_shape: tuple[int, int, int], images: int) -> int:
    """Return how many bytes a forward pass in training keeps for its backward pass, weights apart.

    Args:
        network: in any mode; it is left as it was.
        image_shape: C, H, W.
        images: N.
    """
    tensors = {
        name: value.detach().to("meta").requires_grad_(value.requires_grad)
        for name, value in [*network.named_parameters(), *network.named_buffers()]
    }
    of_network = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no other tensor gets the same address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    inputs = torch.zeros(images, *image_shape, device="meta")
    with _learning(network), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The outputs hold what is kept until all of it is counted.
        outputs = functional_call(network, tensors, (inputs,))
    assert len(outputs)
    return sum(storage.nbytes() for address, storage in saved.items() if address not in of_network)


@contextmanager
def _learning(network: nn.Module) -> Iterator[None]:
    """Set training mode, apart from BatchNorm, which would ask the other processes for their statistics."""
    modes = {module: module.training for module in network.modules()}
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
