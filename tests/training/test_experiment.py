"""What an experiment consists of, by the size of the data: every choice says why and how to change it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ttc.training import experiment
from ttc.training.experiment import Facts

SMALL = Facts(
    images=243, training=170, rare=57, share=0.23, groups=71, fixed=False, files=True, gray=True, gpu=False, cores=2
)


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
    flags = [choice.change for choice in experiment.budget(SMALL, {"--epochs", "--crop-scale"}, 42)]
    assert flags == ["--batch-size", "--batch-sampler", "--encoder"]


def test_rare_classes_get_the_joint_recipe_and_balanced_ones_supcon() -> None:
    assert experiment.methods(SMALL, None)[0][0] == "joint"
    assert experiment.methods(replace(SMALL, share=0.4), None)[0][0] == "supcon"


@pytest.mark.parametrize("facts", [SMALL, replace(SMALL, gray=False, gpu=True, training=9), replace(SMALL, training=5)])
def test_choices_are_flags_with_reasons_and_make_about_the_steps_they_promise(facts: Facts) -> None:
    batch = experiment.batch_size(facts)
    choices = experiment.budget(facts, (), batch)
    words = {choice.change: choice.words for choice in choices}
    assert all(choice.reason and choice.words[0] == choice.change for choice in choices)
    steps = int(words["--epochs"][1]) * max(1, facts.training // batch)
    assert experiment.STEPS <= steps < experiment.STEPS + max(1, facts.training // batch)
    assert ("--crop-scale" in words) == facts.gray
