"""Augmented views, made in batches on the training device from uint8 images.

Randomness is a pure function of (seed, draw, sample id, view): numbers come from an integer hash of these four, not
from a generator, so that they depend neither on the number of ranks and workers nor on what ran before. `draw` counts
how often the sample was drawn in the run (the epoch, for a sampler that shows each image once an epoch).

Legend: B samples, V views, N = B * V images, C channels, H x W input pixels, S output pixels, R random numbers per
image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ttc.batches.resize import resize_centre

# Multipliers of the splitmix64 finaliser, as signed 64-bit integers, which torch has on every device.
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)


def _shift(x: Tensor, bits: int) -> Tensor:
    # Logical shift right: torch's own is arithmetic and would smear the sign bit.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def uniform(seed: int, draws_B: Tensor, ids_B: Tensor, views: int, numbers: int) -> Tensor:
    """Return reproducible uniform random numbers for every view of every sample.

    Args:
        seed: the run's seed.
        draws_B: [B] int64, how often each sample was drawn before.
        ids_B: [B] int64, global sample ids, on the device where the result is wanted.
        views: V.
        numbers: R.

    Returns:
        [B, V, R] float32 in [0, 1).
    """
    key = _mix(torch.full_like(ids_B, seed) * _GAMMA + draws_B + 1)
    key = _mix(key * _GAMMA + ids_B + 1)
    counter = torch.arange(1, views * numbers + 1, device=ids_B.device)
    bits = _mix(key[:, None] + counter * _GAMMA).view(len(ids_B), views, numbers)
    return _shift(bits, 40).float() / (1 << 24)


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes; plain values that travel in the checkpoint.

    Attributes:
        scale: smallest and largest share of the image's area that a crop keeps.
        ratio: smallest and largest width / height of a crop.
        flip: probability of a horizontal flip.
        rotation: largest rotation in degrees, either way.
        jitter: probability that the colours change at all.
        brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x].
        hue: largest turn of the colour circle in turns, either way.
        grayscale: probability of losing the colours.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rotation: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2

    @property
    def changes_nothing(self) -> bool:
        """Whether every view is the plain one."""
        return self == PRESETS["none"]

    def stronger(self, factor: float) -> Augmentation:
        """Return a copy whose colour changes are `factor` times as strong; 0 switches all of them off.

        Brightness, contrast, saturation and hue change further, and colours are lost that much more often.
        """
        return replace(
            self,
            brightness=self.brightness * factor,
            contrast=self.contrast * factor,
            saturation=self.saturation * factor,
            hue=self.hue * factor,
            grayscale=min(1.0, self.grayscale * factor),
        )


PRESETS = {
    "none": Augmentation((1.0, 1.0), (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "natural": Augmentation(),
    "medical": Augmentation(saturation=0.0, hue=0.0, grayscale=0.0),
    "cardiac": Augmentation(
        rotation=45.0, jitter=1.0, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.0, grayscale=0.0
    ),
    "digits": Augmentation(
        scale=(0.5, 1.0), flip=0.0, brightness=0.2, contrast=0.2, saturation=0.0, hue=0.0, grayscale=0.0
    ),
}
"""Named strengths. Source: Mildenberger et al., CVPR 2025, for natural (photographs) and cardiac; medical is natural
without colour, for X-ray and ultrasound; digits keeps the writing readable (no mirror images, large crops); with none
all views of an image are the plain one that evaluation uses."""

_NUMBERS = 12
_EXACT_PX = 1e-3
_GRAY = (0.299, 0.587, 0.114)


class ViewGenerator:
    """Makes V augmented, normalised views of a batch of uint8 images.

    Crop, flip and rotation are one affine map, sampled once bilinearly. Brightness, contrast, saturation, hue and
    grayscale are one affine map of the colours per image.

    Note: The usual per-image pipeline draws the order of the colour changes at random and clips after each one. Here
        the order is brightness, contrast, saturation, hue, and values are clipped once, at the end. Hue turns the
        chroma plane of YIQ.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        shown: float | None = None,
    ) -> None:
        """Remember the settings.

        Args:
            augmentation: strengths.
            image_size: S, side of the views in px.
            mean: per channel, of pixel values in [0, 1].
            std: per channel, > 0.
            seed: of the run.
            shown: share of the side of the images that the plain view shows; None crops S px.
        """
        self.augmentation = augmentation
        self.shown = shown
        self.image_size = image_size
        self.mean = torch.tensor(mean).view(1, -1, 1, 1)
        self.std = torch.tensor(std).view(1, -1, 1, 1)
        self.seed = seed

    def plain(self, images: Tensor) -> Tensor:
        """Normalise without augmentation: the view that evaluation uses.

        Args:
            images: [B, C, H, W] uint8; of images larger than S the centre is shown, cropped where it has S px, else
                resized with antialiasing.

        Returns:
            [B, C, S, S] float32.
        """
        side = images.shape[2]
        if self.shown is not None and abs(self.shown * side - self.image_size) > _EXACT_PX:
            pixels = images.float() / 255
            for dim in (2, 3):
                pixels = resize_centre(pixels, dim, self.shown * side, self.image_size)
            return self._normalise(pixels)
        top, left = (images.shape[2] - self.image_size) // 2, (images.shape[3] - self.image_size) // 2
        images = images[:, :, top : top + self.image_size, left : left + self.image_size]
        return self._normalise(images.float() / 255)

    def views(self, images: Tensor, ids: Tensor, draws: Tensor, views: int) -> Tensor:
        """Make augmented views.

        Args:
            images: [B, C, H, W] uint8.
            ids: [B] int64, global sample ids.
            draws: [B] int64, how often each sample was drawn before.
            views: V.

        Returns:
            [B, V, C, S, S] float32, normalised.
        """
        if self.augmentation.changes_nothing:
            return self.plain(images)[:, None].expand(-1, views, -1, -1, -1)
        random_NR = uniform(self.seed, draws.to(images.device), ids.to(images.device), views, _NUMBERS).flatten(0, 1)
        pixels = (images.float() / 255).repeat_interleave(views, 0)
        pixels = functional.grid_sample(
            pixels, self._grid(random_NR, images.shape), padding_mode="border", align_corners=False
        )
        out = self._normalise(self._recolour(pixels, random_NR))
        return out.view(len(images), views, *out.shape[1:])

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Normalise in place, which spares a step on a CPU the memory of several copies; so does `_recolour`."""
        mean, std = (statistic.to(pixels.device, non_blocking=True) for statistic in (self.mean, self.std))
        return pixels.sub_(mean).div_(std)

    def _grid(self, random_NR: Tensor, shape: torch.Size) -> Tensor:
        """Return where each output pixel is read: [N, S, S, 2] in grid_sample's coordinates (-1 .. 1)."""
        a = self.augmentation
        area = a.scale[0] + (a.scale[1] - a.scale[0]) * random_NR[:, 0]
        low, high = math.log(a.ratio[0]), math.log(a.ratio[1])
        ratio = torch.exp(low + (high - low) * random_NR[:, 1]) * (shape[2] / shape[3])
        # Sides as shares of the image; a crop that would leave the image keeps its area and gives up its ratio.
        width = (area * ratio).sqrt().clamp(max=1.0).maximum(area)
        height = area / width
        centre_x = (1 - width) * (2 * random_NR[:, 2] - 1)
        centre_y = (1 - height) * (2 * random_NR[:, 3] - 1)
        mirror = torch.where(random_NR[:, 4] < a.flip, -1.0, 1.0)
        angle = math.radians(a.rotation) * (2 * random_NR[:, 5] - 1)
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack(
            [
                torch.stack([mirror * width * cos, -width * sin, centre_x], 1),
                torch.stack([mirror * height * sin, height * cos, centre_y], 1),
            ],
            1,
        )
        size = [len(random_NR), shape[1], self.image_size, self.image_size]
        return functional.affine_grid(theta, size, align_corners=False)

    def _recolour(self, pixels: Tensor, random_NR: Tensor) -> Tensor:
        a = self.augmentation
        if a.jitter == 0 and a.grayscale == 0:
            return pixels
        changed = random_NR[:, 6] < a.jitter

        def factor(strength: float, column: int) -> Tensor:
            drawn = 1 + strength * (2 * random_NR[:, column] - 1)
            return torch.where(changed, drawn.clamp(min=0.0), 1.0)[:, None, None, None]

        pixels.mul_(factor(a.brightness, 7))
        contrast = factor(a.contrast, 8)
        gray = _luma(pixels).mean((1, 2, 3), keepdim=True)
        pixels.mul_(contrast).add_((1 - contrast) * gray)
        if pixels.shape[1] == 3 and (a.saturation or a.hue or a.grayscale):
            saturation = factor(a.saturation, 9)
            lost = (random_NR[:, 11] < a.grayscale)[:, None, None, None]
            luma = _luma(pixels)
            chroma = pixels.sub_(luma).mul_(torch.where(lost, 0.0, saturation))
            if a.hue:
                turn = torch.where(changed, 2 * math.pi * a.hue * (2 * random_NR[:, 10] - 1), 0.0)
                chroma = torch.einsum("nij,njhw->nihw", _hue_rotation(turn), chroma)
            pixels = chroma.add_(luma)
        return pixels.clamp_(0, 1)


def _luma(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    weights = _constant([_GRAY], pixels).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


def _hue_rotation(turn_N: Tensor) -> Tensor:
    """Return [N, 3, 3] matrices that turn the chroma of RGB pixels by angles in radians, leaving luma alone."""
    to_yiq = [_GRAY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)]
    cos, sin, zero, one = turn_N.cos(), turn_N.sin(), torch.zeros_like(turn_N), torch.ones_like(turn_N)
    rows = [torch.stack(row, 1) for row in ([one, zero, zero], [zero, cos, -sin], [zero, sin, cos])]
    from_yiq = torch.linalg.inv(torch.tensor(to_yiq)).tolist()
    return _constant(from_yiq, turn_N) @ torch.stack(rows, 1) @ _constant(to_yiq, turn_N)


def _constant(matrix: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return numbers as a tensor beside `like`, in a copy that the host does not wait for."""
    return torch.tensor(matrix, dtype=like.dtype).to(like.device, non_blocking=True)
