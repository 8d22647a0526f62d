"""Entry point of torch.hub: the encoder of a run, in a program of one's own.

torch.hub.load("PATH OF THIS FOLDER", "encoder", source="local", checkpoint="runs/NAME/checkpoints/last.pt")
"""

from __future__ import annotations

import torch

from ttc.evaluation.elsewhere.weights import checkpoint_of
from ttc.evaluation.export import ExportedEncoder
from ttc.models.pretrained import load_network

dependencies = ["torch", "torchvision", "numpy"]


def encoder(checkpoint: str, device: str = "cpu") -> ExportedEncoder:
    """Load the frozen encoder of a run with its normalisation in front.

    Args:
        checkpoint: file that pretrain.py wrote, or a run folder.
        device: where the encoder goes.

    Returns:
        A module in eval mode, from images [N, C, S, S], float32 in [0, 1], to features [N, F]; its attributes
        `image_size` and `feature_dim` are S and F.
    """
    network, description, _ = load_network(checkpoint_of(checkpoint), torch.device(device))
    return ExportedEncoder(network, description).to(device)
