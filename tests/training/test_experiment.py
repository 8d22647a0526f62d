"""What an experiment consists of, by the size of the data: every choice says why and how to change it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ttc.training import experiment
from ttc.training.budget import budget
from ttc.training.experiment import Facts

SMALL = Facts(images=243, rare=57, share=0.23, groups=71, fixed=False)
RULES = budget(train=170, side=640, gray=True, gpu=False, cores=1)


@pytest.mark.parametrize(
    ("facts", "seeds", "folds"),
    [
        (SMALL, 1, 5),
        (replace(SMALL, rare=4), 1, 3),
        (replace(SMALL, rare=9), 1, 3),
        (replace(SMALL, rare=10), 1, 5),
        (replace(SMALL, rare=experiment.RARE_FOR_SEEDS - 1), 1, 5),
        (replace(SMALL, rare=experiment.RARE_FOR_SEEDS), 3, None),
        (replace(SMALL, fixed=True), 3, None),
    ],
)
def test_small_data_are_folded_and_large_or_divided_ones_are_seeded(
    facts: Facts, seeds: int, folds: int | None
) -> None:
    repeated, choice = experiment.repetitions(facts, None, None)
    assert (repeated.seeds, repeated.folds) == (seeds, folds)
    assert "--seeds" in choice.change
    assert "--folds" in choice.change


def test_what_the_user_asks_for_wins() -> None:
    assert experiment.repetitions(SMALL, 2, None)[0] == experiment.Repetitions(2, None)
    assert experiment.repetitions(SMALL, None, 4)[0] == experiment.Repetitions(1, 4)
    assert experiment.methods(SMALL, "supmin")[0] == ["supmin", "weighted-ce", "untrained"]
    assert experiment.methods(SMALL, "weighted-ce")[0] == ["weighted-ce", "untrained"]


def test_rare_classes_get_the_joint_recipe_and_balanced_ones_supcon() -> None:
    assert experiment.methods(SMALL, None)[0][0] == "joint"
    assert experiment.methods(replace(SMALL, share=0.4), None)[0][0] == "supcon"


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ((), ()),
        (("epochs",), ("steps",)),
        (("weights",), ("image_size", "encoder")),
        (("augmentation",), ("crop_scale",)),
        (("batch_size", "steps", "crop_scale"), ("batch_size", "steps", "crop_scale")),
    ],
)
def test_rules_become_flags_with_reasons_where_the_user_says_nothing(
    given: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    choices = {choice.words[0][2:].replace("-", "_"): choice for choice in experiment.from_rules(RULES, given)}
    assert set(choices) == set(RULES.reasons) - set(left_out)
    for name, choice in choices.items():
        value = getattr(RULES, name)
        assert [float(word) if name != "encoder" else word for word in choice.words[1:]] == (
            list(value) if name == "crop_scale" else [value]
        )
        assert choice.reason == RULES.reasons[name]
        assert choice.words[0] in choice.change


def test_colour_pictures_keep_the_crops_of_their_preset() -> None:
    rules = budget(train=170, side=32, gray=False, gpu=True, cores=1)
    assert not [choice for choice in experiment.from_rules(rules, ()) if "--crop-scale" in choice.words]


def test_a_batch_fits_into_the_smallest_fold() -> None:
    assert experiment.training_images(36, 52, 5, None) == 36
    assert experiment.training_images(36, 52, 5, 2) <= 20  # what one of two folds by group left for training
    assert experiment.training_images(170, 243, 24, 5) <= 243 - 49 - 24
    assert experiment.training_images(1, 2, 1, 2) == 1
