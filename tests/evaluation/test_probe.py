from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from ttc.datasets import DatasetSettings, load_dataset
from ttc.evaluation.probe import PROBES, paper_probes, usual_probes


def test_probes_of_few_images_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """Digits with 3 % of a class: 18 rare training images, 6 of each class in a hundredth of the pool."""
    dataset = load_dataset(DatasetSettings("digits", class_ratios=(0.97, 0.03)))
    assert usual_probes(dataset, PROBES, fraction=0.1) == list(PROBES)
    assert not caplog.text
    with caplog.at_level(logging.WARNING, "ttc"):
        assert usual_probes(dataset, PROBES, fraction=0.01) == ["all", "minority"]
    assert "probe fraction is left out: it would learn from 6 images of each class; --probes fraction" in caplog.text
    assert usual_probes(dataset, ["fraction"], fraction=0.01) == ["all"]
    earlier = load_dataset(DatasetSettings("digits", class_ratios=(0.97, 0.03), split_rule=1))
    assert usual_probes(earlier, PROBES, fraction=0.01) == list(PROBES)


@pytest.mark.parametrize(
    ("name", "rule", "expected"),
    [("digits", 2, "fraction"), ("inat21", 2, "fraction"), ("breastmnist", 2, "all"), ("fracatlas", 2, "all"),
     ("breastmnist", 1, "fraction")],
)  # fmt: skip
def test_the_papers_protocol_leaves_sets_whole_that_the_paper_does(name: str, rule: int, expected: str) -> None:
    settings = DatasetSettings(name, split_rule=rule)
    assert paper_probes(SimpleNamespace(settings=settings)) == [expected]  # type: ignore[arg-type]  # all it looks at
