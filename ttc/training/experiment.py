"""What an experiment on somebody's own data consists of, by their size: image size, methods, repetitions, budget.

Pure functions of what is known about data and machine. Every choice carries its reason and the flag that changes it, so
that a page can list them; a choice that the user's own flags make is not made here.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

RARE_FOR_SEEDS = 400
"""Rare images (or groups with one) from which a drawn test set of a fifth holds enough of them: about 80."""
FOLDS, FEW_FOLDS = 5, 3
SEEDS = 3
BALANCED = 0.4
"""Share of the smaller class from which the classes count as balanced."""
STEPS, TUNING_STEPS = 1500, 400
BATCH = 64
PIXELS_CPU, PIXELS_GPU = 64, 128


@dataclass(frozen=True)
class Facts:
    """What the choices depend on.

    Attributes:
        images: of all splits.
        training: images of the training split.
        rare: units of the rarer class in all splits: images, or groups that hold one.
        share: of the rarer class among the training images.
        groups: number of groups, or None.
        fixed: whether the data name a test split themselves.
        files: whether images are decoded from files, so that their size is free.
        gray: whether they have one channel.
        gpu: whether there is one.
        cores: of the processor that may be used.
    """

    images: int
    training: int
    rare: int
    share: float
    groups: int | None
    fixed: bool
    files: bool
    gray: bool
    gpu: bool
    cores: int


@dataclass(frozen=True)
class Choice:
    """One decision.

    Attributes:
        what: that was decided on.
        chosen: the decision, for a reader.
        reason: one sentence.
        change: the flag that decides otherwise.
        words: flags of pretrain.py that it stands for.
    """

    what: str
    chosen: str
    reason: str
    change: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repetitions:
    """How often everything is done again: folds, or seeds where folds is None."""

    seeds: int
    folds: int | None

    @property
    def text(self) -> str:
        """Return what means are taken over."""
        number, unit = (self.seeds, "seed") if self.folds is None else (self.folds, "fold")
        return f"{number} {unit}{'s' * (number > 1)}"


def image_size(facts_files: bool, gpu: bool) -> Choice | None:
    """Choose the size of images in files; arrays keep theirs.

    Args:
        facts_files: whether the images are files.
        gpu: whether there is one.
    """
    if not facts_files:
        return None
    size = PIXELS_GPU if gpu else PIXELS_CPU
    machine = "a GPU" if gpu else "no GPU; the time grows with the square of the size"
    return Choice("image size", f"{size} px", f"{machine}", "--image-size", ("--image-size", str(size)))


def repetitions(facts: Facts, seeds: int | None, folds: int | None) -> tuple[Repetitions, Choice]:
    """Choose between seeds and folds of the whole experiment.

    Args:
        facts: of the data.
        seeds: that the user asks for, or None.
        folds: the same.
    """
    unit = "images" if facts.groups is None else "groups"
    if folds is not None:
        return Repetitions(1, folds), Choice("repetitions", f"{folds} folds", "as you asked", "--folds, --seeds")
    if seeds is not None:
        return Repetitions(seeds, None), Choice("repetitions", f"{seeds} seeds", "as you asked", "--seeds, --folds")
    if facts.fixed:
        reason = "the data name the test split, so only initial weights, order and augmentation are drawn anew"
    elif facts.rare >= RARE_FOR_SEEDS:
        reason = f"{facts.rare} {unit} hold the rarer class: a drawn test split of a fifth has enough of them"
    else:
        count = FOLDS if facts.rare >= 2 * FOLDS else FEW_FOLDS
        reason = (
            f"only {facts.rare} {unit} hold the rarer class: one test split of a fifth says little, "
            f"in {count} folds every image is tested once"
        )
        by = "" if facts.groups is None else " by group"
        return Repetitions(1, count), Choice("repetitions", f"{count} folds{by}", reason, "--folds, --seeds")
    return Repetitions(SEEDS, None), Choice("repetitions", f"{SEEDS} seeds", reason, "--seeds, --folds")


def methods(facts: Facts, method: str | None) -> tuple[list[str], Choice]:
    """Choose the rows of the table: the advised method and the baselines that it has to beat.

    Args:
        facts: of the data.
        method: that the user asks for in place of the advised one, or None.

    Returns:
        Names: methods of pretrain.py, joint for scripts/recipes/joint-balanced.args, and untrained.
    """
    base = ["weighted-ce", "untrained"]
    beside = "weighted cross-entropy is the baseline to beat, the untrained encoder shows what learning adds"
    if method is not None:
        rows = [method, *(name for name in base if name != method)]
        reason = f"as you asked; {beside}"
    elif facts.share >= BALANCED:
        rows, reason = ["supcon", *base], f"the classes are balanced, where supcon works; {beside}"
    else:
        rows = ["joint", *base]
        reason = f"the joint recipe did best on rare classes (docs/choosing.md); {beside}"
    return rows, Choice("methods", ", ".join(rows), reason, "--method")


def batch_size(facts: Facts) -> int:
    """Return the samples of a batch: few, for more steps with the same images."""
    return max(8, min(BATCH, facts.training // 4))


def budget(facts: Facts, given: Collection[str], size: int) -> list[Choice]:
    """Choose batch, sampler, steps, encoder and crops, apart from those that the user has chosen.

    Args:
        facts: of the data.
        given: flags of the user, with hyphens.
        size: samples of a batch.
    """
    epochs = max(1, math.ceil(STEPS / max(1, facts.training // size)))
    choices = [
        Choice(
            "batch", f"{size}", "small batches give more steps for the same images", "--batch-size",
            ("--batch-size", str(size)),
        ),
        Choice(
            "sampler", "balanced", "every batch holds as many rare images as common ones, without which supervised "
            "losses collapse", "--batch-sampler", ("--batch-sampler", "balanced"),
        ),
        Choice(
            "length", f"{epochs} epochs, about {STEPS} steps",
            f"{facts.training} training images make {max(1, facts.training // size)} steps an epoch; what counts is "
            "the number of steps", "--epochs", ("--epochs", str(epochs)),
        ),
    ]  # fmt: skip
    if not facts.gpu:
        choices.append(
            Choice("encoder", "convnet-w16", "no GPU: a small network", "--encoder", ("--encoder", "convnet-w16"))
        )
    if facts.gray:
        choices.append(
            Choice(
                "crops", "50 to 100 % of the area", "gray images: a finding may be small or near the border",
                "--crop-scale", ("--crop-scale", "0.5", "1"),
            )
        )  # fmt: skip
    return [choice for choice in choices if choice.change not in given]


PER_GROUP = Choice(
    "results by group", "mean score of a group's images",
    "groups hold several images, and decisions are made about groups", "--per-group",
)  # fmt: skip


def tuning_epochs(training: int, batch: int) -> int:
    """Return the epochs of fine-tuning that make about `TUNING_STEPS` steps."""
    return max(5, math.ceil(TUNING_STEPS / max(1, training // batch)))
