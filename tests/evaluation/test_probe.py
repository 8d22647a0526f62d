from __future__ import annotations

import logging

import pytest

from ttc.datasets import DatasetSettings, load_dataset
from ttc.evaluation.probe import PROBES, usual_probes


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
