"""How long, how large and with which crops to train on images of one's own, where the user names none of it.

The numbers rest on the runs of docs/budget.md: small sets, batches of 64, a small network from scratch, one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ttc.batches.samplers import BatchSampler
from ttc.run.escape import counted

STEPS = 1500
"""Optimizer steps that small sets need, however few images they have: the most that was measured on several."""
FEWEST_EPOCHS, MOST_EPOCHS = 10, 200
"""Least and most often that each image is seen: the first, not measured, decides for more than 9,600 images; the second
below about 500, since 170 X-rays lost by 750 epochs what 200 had reached."""
FEW_IMAGES = 300
"""Below, nobody is warned of a short run: 170 X-rays gained nothing after 100 steps, 546 ultrasound images much."""
GAINS = (5, 4)
"""Points of AUROC on ultrasound from 100 to 400 steps, and from 400 to `STEPS`; a test holds them against the runs."""
LOSS = 2
"""Points of AUROC on the X-rays from 400 steps (200 epochs) to `STEPS` (750 epochs), downwards."""
OWN_LENGTH = ("digits", "fashion")
"""Data sets whose recipes say how long; the digits, of 8 px, are learned in 150 steps."""
BATCH = 64
"""Batch of the measurements, for sets of up to `MANY` images; above, that of earlier versions."""
MANY, LARGE_BATCH = 10_000, 128
CROPS = (0.2, 1.0)
"""Share of the area that crops of gray pictures keep, as in the paper: 0.6 to 1 was no better on two sets."""
MINUTES = 5.0
"""What one run should take at most on the cores of a machine without a GPU; decides the image size."""
STEP_SECONDS = 0.05
"""Of a contrastive step of 64 images of 28 px through convnet-w16 on one core of 2020 or later."""
CPU_SIZES, GPU_SIZE = (64, 48, 32), 224


@dataclass(frozen=True)
class Budget:
    """What the rules choose.

    Attributes:
        steps: optimizer steps, before they are turned into whole epochs.
        batch_size: of the global batch.
        image_size: side of the network's input in px.
        encoder: its name.
        crop_scale: smallest and largest share of the area that a crop keeps; None for those of the preset.
        reasons: flag -> why it has this value, to follow "--flag value: ".
    """

    steps: int
    batch_size: int
    image_size: int
    encoder: str
    crop_scale: tuple[float, float] | None
    reasons: dict[str, str] = field(default_factory=dict)


def budget(
    *, train: int, side: int, gray: bool, gpu: bool, cores: int, processes: int = 1, batch: int | None = None
) -> Budget:
    """Choose for images of one's own.

    Args:
        train: training images.
        side: of the source's images in px, the shorter one.
        gray: whether the pictures have no colour, however they are stored.
        gpu: whether the training runs on one.
        cores: of the processor that this run may use.
        processes: among which the batch is divided.
        batch: its size, where the user names it.
    """
    size, why_size = image_size(side, gpu, cores)
    batch, why_batch = (batch, "as named") if batch else batch_size(train, processes)
    steps = steps_of(train, batch)
    name, why_encoder = encoder(size, gpu)
    reasons = {"image_size": why_size, "batch_size": why_batch, "encoder": why_encoder}
    if steps == STEPS:
        reasons["steps"] = f"with 400 the AUROC on ultrasound was {GAINS[1]} points lower (docs/budget.md)"
    elif steps < STEPS:
        reasons["steps"] = f"{MOST_EPOCHS} epochs; 170 X-rays lost {LOSS} points of AUROC by 750 (docs/budget.md)"
    else:
        reasons["steps"] = f"each image is seen {FEWEST_EPOCHS} times"
    if gray:
        reasons["crop_scale"] = "as in the paper; from 0.6 was no better on gray pictures (docs/budget.md)"
    return Budget(steps, batch, size, name, CROPS if gray else None, reasons)


def steps_of(train: int, batch: int) -> int:
    """Return the optimizer steps for so many training images in batches of this size."""
    per_epoch = max(train // batch, 1)
    return min(max(STEPS, FEWEST_EPOCHS * per_epoch), MOST_EPOCHS * per_epoch)


def image_size(side: int, gpu: bool, cores: int) -> tuple[int, str]:
    """Return the side of the network's input in px, and why."""
    if gpu:
        return min(side, GPU_SIZE), f"the images' own, on a GPU up to {GPU_SIZE} px"
    affordable = [
        size for size in CPU_SIZES if STEPS * STEP_SECONDS * (size / 28) ** 2 / cores <= 60 * MINUTES
    ] or CPU_SIZES[-1:]
    plural = "s" * (cores > 1)
    return min(side, affordable[0]), (
        f"without a GPU, on {cores} core{plural}, up to {affordable[0]} px for {STEPS:,} steps in {MINUTES:g} minutes"
    )


def batch_size(train: int, processes: int = 1) -> tuple[int, str]:
    """Return the global batch size, which the processes divide equally, and why."""
    wanted, why = (BATCH, "as measured") if train <= MANY else (LARGE_BATCH, f"more than {MANY:,} images")
    if wanted > train:  # a power of two, so that folds and seeds of other sizes mostly share it
        wanted, why = 1 << (train.bit_length() - 1), f"no more than the {train} training images"
    return max(wanted // processes, 1) * processes, why


def encoder(size: int, gpu: bool) -> tuple[str, str]:
    """Return the name of the encoder for an input of so many px, and why."""
    if size <= 16:
        return "convnet-w8", "up to 16 px"
    if size <= 64:
        return "convnet-w16", "up to 64 px"
    return ("resnet50", "above 64 px on a GPU, as in the paper") if gpu else ("convnet-w16", "without a GPU")


def length_warning(epochs: int, sampler: BatchSampler, dataset: str) -> str | None:
    """Return a warning when a training from scratch is too short, else None.

    Args:
        epochs: of the run.
        sampler: its batches.
        dataset: its name.
    """
    steps, images = epochs * sampler.steps_per_epoch, sum(sampler.counts)
    enough = steps_of(images, sampler.batch_size)
    if not 0 < steps < min(enough, STEPS) / 2 or images < FEW_IMAGES or dataset in OWN_LENGTH:
        return None
    return (
        f"{steps} steps ({counted(epochs, 'epoch')}) are few for an encoder that starts from random weights: "
        f"on ultrasound the AUROC rose by {GAINS[0]} points from 100 to 400 steps and by {GAINS[1]} more to "
        f"{STEPS:,} (docs/budget.md); try --steps {enough}"
    )


def epochs_of(steps: int, steps_per_epoch: int) -> int:
    """Return the whole epochs that hold at least so many steps."""
    return math.ceil(steps / steps_per_epoch)
