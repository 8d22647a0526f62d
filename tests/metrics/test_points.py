"""Point values against scikit-learn, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics

from ttc.metrics import points


@pytest.mark.parametrize("samples", [2, 3, 5, 40, 3000])
def test_values_are_those_of_scikit_learn_to_the_last_bit(samples: int) -> None:
    """Of continuous and of tied scores, of chance and of good ones, of rare and of frequent classes."""
    for seed in range(20):
        generator = np.random.default_rng([samples, seed])
        positive = generator.random(samples) < generator.choice([0.03, 0.5, 0.9])
        positive[:2] = True, False
        scores = generator.normal(size=samples) + generator.choice([0.0, 2.0]) * positive
        if seed % 2:
            scores = np.round(scores, 1)
        area, precision = points.ranking_values(positive, scores)
        assert area == metrics.roc_auc_score(positive, scores)
        assert precision == metrics.average_precision_score(positive, scores)

        classes = int(generator.integers(2, 5))
        labels, predictions = generator.integers(0, classes, (2, samples))
        if seed % 5 == 0:
            predictions[:] = predictions[0]
        values = points.decision_values(points.confusion(labels, predictions, classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about predictions of classes that the labels lack
            assert values["balanced_accuracy"] == metrics.balanced_accuracy_score(labels, predictions)
        assert values["accuracy"] == metrics.accuracy_score(labels, predictions)
        if len(set(labels.tolist())) > 1:
            assert values["mcc"] == metrics.matthews_corrcoef(labels, predictions)
        else:
            assert values["mcc"] is None
        if classes == 2:
            assert values["f1"] == metrics.f1_score(labels, predictions, zero_division=0.0)
