from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from ttc.metrics import intervals
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic import combined
from ttc.metrics.intervals import bootstrap_counts


def binary(seed, n=120, share=0.2, decimals=2):
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < share).astype(int)
    labels[:3], labels[3:6] = 1, 0
    # Rounded scores have ties within and between the classes.
    return labels, np.round(np.clip(generator.normal(0.35 + 0.25 * labels, 0.2), 0, 1), decimals)


def sklearn_binary(labels, scores, predictions):
    return {
        "accuracy": sk.accuracy_score(labels, predictions),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predictions),
        "auroc": sk.roc_auc_score(labels, scores),
        "auprc": sk.average_precision_score(labels, scores),
        "f1": sk.f1_score(labels, predictions, zero_division=0.0),
        "mcc": sk.matthews_corrcoef(labels, predictions),
    }


@pytest.mark.parametrize("seed", range(5))
def test_point_values_equal_sklearn(seed):
    labels, scores = binary(seed)
    result = classification_metrics(labels, scores, bootstrap=0)
    for name, value in sklearn_binary(labels, scores, scores >= 0.5).items():
        assert result[name]["value"] == pytest.approx(value, abs=1e-12), name
        assert result[name]["low"] is None
    assert result["auprc"]["baseline"] == labels.mean()
    assert result["class_counts"] == [(labels == 0).sum(), (labels == 1).sum()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [1, 6])
def test_intervals_equal_sklearn_on_each_draw(seed, decimals):
    labels, scores = binary(seed, n=60, decimals=decimals)
    draws = {}
    for counts in bootstrap_counts(labels, 40, seed):
        for row in counts.astype(int):
            assert row[labels == 1].sum() == labels.sum()
            assert row[labels == 0].sum() == (1 - labels).sum()
            picked = np.repeat(np.arange(60), row)
            values = sklearn_binary(labels[picked], scores[picked], scores[picked] >= 0.5)
            for name, value in values.items():
                draws.setdefault(name, []).append(value)
    result = classification_metrics(labels, scores, bootstrap=40, seed=seed)
    for name in ("accuracy", "auroc"):  # these have intervals without draws
        assert result[name]["low"] < np.mean(draws.pop(name)) < result[name]["high"]
    positives = int(labels.sum())
    numbers = {"balanced_accuracy": combined.balanced_accuracy_of, "f1": combined.f1_of(positives, 60 - positives)}
    for name, values in draws.items():
        low, high = np.percentile(values, [2.5, 97.5])
        if name in numbers:  # joined with limits that need no draws
            more = combined.share_limits(numbers[name], labels == 1, scores >= 0.5, None)
            low, high = min(low, more[0]), max(high, more[1])
        elif name == "auprc":
            more = combined.precision_limits(result[name]["value"], labels == 1, None)
            low, high = min(low, more[0]), max(high, more[1])
        assert result[name]["low"] == pytest.approx(low, abs=1e-10), name
        assert result[name]["high"] == pytest.approx(high, abs=1e-10), name


def test_draws_resample_with_replacement():
    labels = np.array([0] * 30 + [1] * 10)
    counts = np.concatenate(list(bootstrap_counts(labels, 3000, 0)))
    assert counts.shape == (3000, 40)
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.08)
    # The share of samples that a draw leaves out is (1 - 1/n)^n within each class.
    assert (counts[:, :30] == 0).mean() == pytest.approx((1 - 1 / 30) ** 30, abs=0.01)
    assert (counts[:, 30:] == 0).mean() == pytest.approx((1 - 1 / 10) ** 10, abs=0.01)


def test_bootstrap_is_reproducible_and_leaves_global_state():
    labels, scores = binary(1)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the test is about the global state
    first = classification_metrics(labels, scores, bootstrap=200, seed=3)
    assert classification_metrics(labels, scores, bootstrap=200, seed=3) == first
    assert classification_metrics(labels, scores, bootstrap=200, seed=4) != first
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "mcc"):
        assert first[name]["low"] <= first[name]["value"] <= first[name]["high"]
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_positive_class_zero_mirrors_the_labels():
    labels, scores = binary(2)
    one = classification_metrics(labels, scores, positive_class=1, bootstrap=50)
    zero = classification_metrics(1 - labels, scores, positive_class=0, bootstrap=50)
    for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "mcc"):
        assert zero[name]["value"] == pytest.approx(one[name]["value"], abs=1e-12), name
    assert zero["auprc"]["baseline"] == one["auprc"]["baseline"]
    assert zero["class_counts"] == one["class_counts"][::-1]
    assert zero["positive_class"] == 0


@pytest.mark.parametrize("positive", [0, 1])
def test_two_columns_equal_scores_of_the_positive_class(positive):
    labels, scores = binary(3)
    columns = np.stack([1 - scores, scores], axis=1)
    expected = classification_metrics(labels, columns[:, positive], positive_class=positive, bootstrap=20)
    assert classification_metrics(labels, columns, positive_class=positive, bootstrap=20) == expected


def test_given_predictions_decide():
    labels, scores = binary(4)
    predictions = (scores >= 0.3).astype(int)
    result = classification_metrics(labels, 10 * scores - 7, predictions, bootstrap=0)
    for name, value in sklearn_binary(labels, scores, predictions).items():
        assert result[name]["value"] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_is_silent_and_undefined(label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = classification_metrics(np.full(6, label), np.linspace(0.1, 0.9, 6), bootstrap=20)
    for name in ("auroc", "auprc", "mcc"):
        assert result[name]["value"] is None
        assert result[name]["low"] is None
    assert result["accuracy"]["value"] == result["balanced_accuracy"]["value"] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_several_classes(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, size=150)
    scores = generator.random((150, 4)) + 0.4 * np.eye(4)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    result = classification_metrics(labels, scores, bootstrap=60, seed=seed)
    predictions = scores.argmax(axis=1)
    assert result["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, predictions), abs=1e-12)
    assert result["balanced_accuracy"]["value"] == pytest.approx(
        sk.balanced_accuracy_score(labels, predictions), abs=1e-12
    )
    assert result["mcc"]["value"] == pytest.approx(sk.matthews_corrcoef(labels, predictions), abs=1e-12)
    assert result["auroc"]["value"] == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-12)
    assert "f1" not in result
    areas = []
    for counts in bootstrap_counts(labels, 60, seed):
        for row in counts.astype(int):
            picked = np.repeat(np.arange(150), row)
            areas.append(sk.roc_auc_score(labels[picked], scores[picked], multi_class="ovr"))
    expected = np.percentile(areas, [2.5, 97.5])
    assert [result["auroc"]["low"], result["auroc"]["high"]] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("labels", "scores", "predictions", "options", "message"),
    [
        ([0, 1], [0.1], None, {}, "labels"),
        ([], [], None, {}, "n >= 1"),
        ([0, 1], [0.1, float("nan")], None, {}, "1 NaN"),
        ([0, 2], [0.1, 0.2], None, {}, "labels must be integers from 0 to 1"),
        ([0.0, 1.0], [0.1, 0.2], None, {}, "labels must be integers"),
        ([0, 1], [0.1, 0.2], [0, 2], {}, "predictions must be 2 labels"),
        ([0, 1], [0.1, 0.2], [0.4, 0.9], {}, "predictions must be 2 labels"),
        ([0, 1], [[0.1], [0.2]], None, {}, "one column"),
        ([0, 1], [0.1, 0.2], None, {"positive_class": 2}, "positive_class is 2"),
    ],
)
def test_bad_input_is_refused(labels, scores, predictions, options, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, scores, predictions, **options)


def test_kept_draws_are_the_drawn_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, others = np.arange(40) % 3, np.arange(40) % 2
    first = np.concatenate(list(bootstrap_counts(labels, 30, 1)))
    first_of_others = np.concatenate(list(bootstrap_counts(others, 30, 1)))
    assert (np.concatenate(list(bootstrap_counts(labels, 30, 1))) == first).all()
    assert (np.concatenate(list(bootstrap_counts(labels, 30, 2))) != first).any()
    monkeypatch.setattr(intervals, "_KEPT_BYTES", 0)
    assert (np.concatenate(list(bootstrap_counts(labels, 30, 1))) == first).all()
    assert (np.concatenate(list(bootstrap_counts(others, 30, 1))) == first_of_others).all()
