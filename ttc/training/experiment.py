"""What an experiment on somebody's own data consists of, by their size: image size, methods, repetitions, budget.

Pure functions of what is known about data and machine. Every choice carries its reason and the flag that changes it, so
that a page can list them; a choice that the user's own flags make is not made here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ttc.run.escape import counted
from ttc.training.budget import Budget

RARE_FOR_SEEDS = 400
"""Rare images (or groups with one) from which a drawn test set of a fifth holds enough of them: about 80."""
FOLDS, FEW_FOLDS = 5, 3
SEEDS = 3
BALANCED = 0.4
"""Share of the smaller class from which the classes count as balanced."""
TUNING_SHARE = 3
"""Fine-tuning takes so many times fewer steps than pretraining."""


PATIENT_STEPS = 150
"""Steps without improvement after which fine-tuning ends, and between two looks at pretraining: small sets have one or
two steps an epoch."""


@dataclass(frozen=True)
class Facts:
    """What the choices depend on.

    Attributes:
        images: of all splits.
        rare: units of the rarer class in all splits: images, or groups that hold one.
        share: of the rarer class among the training images.
        groups: number of groups, or None.
        fixed: whether the data name a test split themselves.
    """

    images: int
    rare: int
    share: float
    groups: int | None
    fixed: bool


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


def repetitions(facts: Facts, seeds: int | None, folds: int | None) -> tuple[Repetitions, Choice]:
    """Choose between seeds and folds of the whole experiment.

    Args:
        facts: of the data.
        seeds: that the user asks for, or None.
        folds: the same.
    """
    unit = "image" if facts.groups is None else "group"
    held = f"{counted(facts.rare, unit)} {'holds' if facts.rare == 1 else 'hold'}"
    if folds is not None:
        return Repetitions(1, folds), Choice("repetitions", counted(folds, "fold"), "as you asked", "--folds, --seeds")
    if seeds is not None:
        return Repetitions(seeds, None), Choice(
            "repetitions", counted(seeds, "seed"), "as you asked", "--seeds, --folds"
        )
    if facts.fixed:
        reason = "the data name the test split, so only initial weights, order and augmentation are drawn anew"
    elif facts.rare >= RARE_FOR_SEEDS:
        reason = f"{held} the rarer class: a drawn test split of a fifth has enough of them"
    else:
        count = FOLDS if facts.rare >= 2 * FOLDS else FEW_FOLDS
        reason = (
            f"only {held} the rarer class: one test split of a fifth says little, "
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


SAMPLER = Choice(
    "sampler", "balanced",
    "every batch holds as many rare images as common ones, without which supervised losses collapse",
    "--batch-sampler", ("--batch-sampler", "balanced"),
)  # fmt: skip
PER_GROUP = Choice(
    "results by group", "mean score of a group's images",
    "groups hold several images, and decisions are made about groups", "--per-group", ("--per-group", "mean"),
)  # fmt: skip


def training_images(training: int, images: int, validation: int, folds: int | None) -> int:
    """Return how many images every run trains on at least.

    Args:
        training: of the data's own or drawn split.
        images: of all splits.
        validation: images of it.
        folds: number of folds, or None; whole groups make them unequal, so that a fifth is left for that.
    """
    return training if folds is None else max(1, int(0.8 * (images - images / folds - validation)))


def patience(steps_per_epoch: int) -> int:
    """Return the epochs without improvement after which fine-tuning ends; not below the default."""
    return max(10, -(-PATIENT_STEPS // max(1, steps_per_epoch)))


def from_rules(rules: Budget, given: Collection[str]) -> list[Choice]:
    """Turn what the rules of `ttc.training.budget` say into choices, apart from what the user has chosen.

    Args:
        rules: that were applied to the data.
        given: flags of the user, named as in `args.json`; weights want the image size that they were trained with, a
            preset that is named keeps its own crops, and --epochs take the place of --steps.
    """
    values: dict[str, tuple[str, Sequence[object]]] = {
        "image_size": ("image size", [rules.image_size]),
        "encoder": ("encoder", [rules.encoder]),
        "batch_size": ("batch", [rules.batch_size]),
        "steps": ("steps", [rules.steps]),
    }
    if rules.crop_scale is not None:
        values["crop_scale"] = ("share of the area in a crop", [f"{share:g}" for share in rules.crop_scale])
    decided = set(given)
    for flag, others in (
        ("weights", ("image_size", "encoder")),
        ("augmentation", ("crop_scale",)),
        ("epochs", ("steps",)),
    ):
        decided |= set(others) if flag in decided else set()
    choices = []
    for name, (what, words) in values.items():
        if name not in decided:
            flag, texts = f"--{name.replace('_', '-')}", [str(word) for word in words]
            change = "--steps, --epochs" if name == "steps" else flag
            choices.append(Choice(what, " to ".join(texts), rules.reasons[name], change, (flag, *texts)))
    return choices
