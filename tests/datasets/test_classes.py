from __future__ import annotations

import pytest

from ttc.datasets.classes import group_labels

DIGITS = {str(k): str(k) for k in range(4)}
ARTICLES = {"0": "T-shirt/top", "1": "Trouser", "2": "Pullover"}


def test_groups_follow_the_given_order_and_drop_the_rest() -> None:
    classes = group_labels(DIGITS, [["3"], ["0", "1"]], None)
    assert classes.names == ["3", "0,1"]
    assert classes.label_of == {"3": 0, "0": 1, "1": 1}


def test_names_work_like_labels() -> None:
    classes = group_labels(ARTICLES, [["trouser", "2"], ["T-shirt/top"]], None)
    assert classes.names == ["Trouser/Pullover", "T-shirt/top"]
    assert classes.label_of == {"1": 0, "2": 0, "0": 1}


def test_positive_classes_become_label_one() -> None:
    classes = group_labels(ARTICLES, None, ["Pullover"])
    assert classes.names == ["not Pullover", "Pullover"]
    assert classes.label_of == {"0": 0, "1": 0, "2": 1}


def test_two_labels_need_no_choice_and_three_groups_are_three_classes() -> None:
    assert group_labels({"a": "a", "b": "b"}, None, None).label_of == {"a": 0, "b": 1}
    assert group_labels(DIGITS, [["0"], ["1"], ["2", "3"]], None).names == ["0", "1", "2,3"]


@pytest.mark.parametrize(
    ("classes", "positive", "message"),
    [
        ([["0"], ["7"]], None, r"--classes 0 7: unknown label '7'; the data has 0, 1, 2, 3"),
        ([["0", "1"], ["1"]], None, r"--classes 0,1 1 names label '1' twice"),
        ([["0", "0"], ["1"]], None, r"names label '0' twice"),
        ([["0", "1"]], None, r"names 1 class"),
        ([["0"], []], None, r"class 1 is empty"),
        ([["0"], ["1"]], ["1"], r"contradict"),
        (None, ["0", "1", "2", "3"], r"leaves one of the two classes empty"),
        (None, ["x"], r"--positive-classes x: unknown label 'x'"),
        (None, None, r"the data has 4 labels .* choose groups with --classes or --positive-classes"),
    ],
)
def test_bad_choices_are_named(classes: list[list[str]] | None, positive: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_labels(DIGITS, classes, positive)


def test_one_label_is_not_enough() -> None:
    with pytest.raises(ValueError, match="two are needed"):
        group_labels({"only": "only"}, None, None)
