"""What the benchmarks compare with: masked losses, augmentation of one image after the other, other libraries.

Nothing here is used in training. The masked losses are written from the equations of the papers.

Shape suffixes: B samples, V views, N = B * V rows, D dimensions, C channels, S pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from ttc.batches.augment import Augmentation

TEMPERATURE = 0.07
VIEWS = 2
Loss = Callable[[Tensor, Tensor], Tensor]
Views = Callable[[], Tensor]


def masked_supcontrast(z_BVD: Tensor, labels_B: Tensor) -> Tensor:
    """Return SupCon by full N x N matrices of masks and logits, the way it is usually written."""
    rows_ND = z_BVD.flatten(0, 1)
    labels_N = labels_B.repeat_interleave(z_BVD.shape[1])
    others_NN = 1.0 - torch.eye(len(rows_ND), device=rows_ND.device)
    positives_NN = (labels_N[:, None] == labels_N).float() * others_NN
    return _masked_loss(rows_ND, positives_NN, others_NN)[0]


def masked_published(z_BVD: Tensor, labels_B: Tensor, *, minority_only: bool = False) -> Tensor:
    """Return SupCon of two classes with all arrays that the published code of SupMin makes at every call.

    These are four masks (all labels, each class, own sample) and the exponentials without their diagonal, whether the
    method needs them or not.

    Args:
        z_BVD: unit embeddings.
        labels_B: 0, or 1 for the minority.
        minority_only: return SupMin, in which a row of class 0 attracts the other view of its own sample alone.
    """
    samples, views = z_BVD.shape[:2]
    rows_ND = z_BVD.transpose(0, 1).flatten(0, 1)
    alike_BB = (labels_B[:, None] == labels_B).float()
    masks = [alike_BB, torch.eye(samples, device=rows_ND.device)]
    for outside_B in (labels_B == 0, labels_B == 1):
        inside_BB = alike_BB.clone()
        inside_BB[outside_B] = 0.0
        inside_BB[:, outside_B] = 0.0
        masks.append(inside_BB)
    repeated = [mask_BB.repeat(views, views) for mask_BB in masks]
    others_NN = torch.ones_like(repeated[0]).fill_diagonal_(0.0)
    repeated = [mask_NN * others_NN for mask_NN in repeated]
    positives_NN = repeated[0]
    if minority_only:
        positives_NN = torch.where((labels_B == 1).repeat(views)[:, None], repeated[2], repeated[1])
    loss, exp_NN = _masked_loss(rows_ND, positives_NN, others_NN)
    itself_NN = torch.eye(len(rows_ND), dtype=torch.bool, device=rows_ND.device)
    exp_NN[~itself_NN].view(len(rows_ND), -1)
    return loss


def _masked_loss(rows_ND: Tensor, positives_NN: Tensor, others_NN: Tensor) -> tuple[Tensor, Tensor]:
    """Return SupCon of rows with given positives and denominators, and the exponentials."""
    logits_NN = rows_ND @ rows_ND.T / TEMPERATURE
    logits_NN = logits_NN - logits_NN.max(1, keepdim=True).values.detach()
    exp_NN = logits_NN.exp() * others_NN
    log_probability_NN = logits_NN - exp_NN.sum(1, keepdim=True).log()
    loss = -((positives_NN * log_probability_NN).sum(1) / positives_NN.sum(1)).mean()
    return loss, exp_NN


def metric_learning_loss() -> Loss:
    """Return SupCon of the package pytorch-metric-learning."""
    from pytorch_metric_learning.losses import SupConLoss

    loss = SupConLoss(temperature=TEMPERATURE)

    def call(z_BVD: Tensor, labels_B: Tensor) -> Tensor:
        value: Tensor = loss(z_BVD.flatten(0, 1), labels_B.repeat_interleave(z_BVD.shape[1]))
        return value

    return call


def lightly_loss() -> Loss:
    """Return NT-Xent of the package lightly, which has no SupCon: it is to be compared with simclr."""
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)

    def call(z_BVD: Tensor, labels_B: Tensor) -> Tensor:
        value: Tensor = loss(z_BVD[:, 0], z_BVD[:, 1])
        return value

    return call


def per_sample_transform(
    size: int, strength: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[Image.Image], Tensor]:
    """Return torchvision's transforms of one PIL image into one view, float [C, S, S].

    Args:
        size: S.
        strength: of the changes.
        mean: per channel.
        std: per channel.
    """
    from torchvision import transforms

    jitter = transforms.ColorJitter(strength.brightness, strength.contrast, strength.saturation, strength.hue)
    steps = [
        transforms.RandomResizedCrop(size, strength.scale, strength.ratio),
        transforms.RandomHorizontalFlip(strength.flip),
        transforms.RandomApply([jitter], strength.jitter),
        transforms.RandomGrayscale(strength.grayscale),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    transform: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return transform


def per_sample_views(images: Tensor, strength: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]) -> Views:
    """Return torchvision's transforms on PIL images, one image and view after the other.

    Args:
        images: uint8 [B, 3, S, S].
        strength: of the changes.
        mean: per channel.
        std: per channel.

    Returns:
        A function that gives float views [B, V, 3, S, S].
    """
    transform = per_sample_transform(images.shape[-1], strength, mean, std)
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()

    def call() -> Tensor:
        return torch.stack([torch.stack([transform(Image.fromarray(array)) for _ in range(VIEWS)]) for array in arrays])

    return call


def kornia_views(images: Tensor, strength: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]) -> Views:
    """Return kornia's transforms, on batches with parameters per image; see `per_sample_views`."""
    from kornia import augmentation

    size = images.shape[-1]
    transform = nn.Sequential(
        augmentation.RandomResizedCrop((size, size), strength.scale, strength.ratio),
        augmentation.RandomHorizontalFlip(p=strength.flip),
        augmentation.ColorJitter(
            strength.brightness, strength.contrast, strength.saturation, strength.hue, p=strength.jitter
        ),
        augmentation.RandomGrayscale(p=strength.grayscale),
        augmentation.Normalize(torch.tensor(mean), torch.tensor(std)),
    )

    def call() -> Tensor:
        views: Tensor = transform(images.repeat_interleave(VIEWS, 0).float() / 255)
        return views.view(len(images), VIEWS, *views.shape[1:])

    return call
