"""Images in memory that live on the training device, so that no pixel is copied while a run trains."""

from __future__ import annotations

import logging
from typing import TypeVar

import torch

from ttc.datasets.images import TensorImages

log = logging.getLogger("ttc")
Images = TypeVar("Images")

LARGEST_SHARE = 0.5
"""Of the device's free memory; the rest is left to the network, whose needs are not known yet."""


def resident(images: Images, device: torch.device, free_bytes: int | None = None) -> Images | TensorImages:
    """Move uint8 images to the training device if they take at most half of the memory that is free there.

    Args:
        images: of a data set; what is not in memory stays where it is.
        device: where training takes place; the CPU changes nothing.
        free_bytes: free memory of the device; None asks CUDA.

    Returns:
        The images to use; indices may be on the CPU as before.
    """
    if device.type == "cpu" or not isinstance(images, TensorImages):
        return images
    size = images.data.numel()
    free = torch.cuda.mem_get_info(device)[0] if free_bytes is None else free_bytes
    if size > LARGEST_SHARE * free:
        log.info("images stay in main memory: %d MiB, more than half of what is free on %s", size >> 20, device)
        return images
    return TensorImages(images.data.to(device))
