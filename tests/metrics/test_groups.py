"""Intervals of samples that share a group (patient, site): against closed forms, naive draws and repeated studies."""

from __future__ import annotations

import numpy as np
import pytest

from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinical import clinical_metrics
from ttc.metrics.comparison import compare_scores
from ttc.metrics.delong import delong, delong_test
from ttc.metrics.intervals import bootstrap, bootstrap_counts, numbered

METRICS = ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "mcc")


def sample(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and rounded probabilities of one image per patient."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    return labels, np.round(np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1), 2)


def both(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


def estimates(result: dict[str, object], path: str = "") -> dict[str, tuple[object, ...]]:
    """Return all estimates of a result by path."""
    found = {}
    for name, entry in result.items():
        if isinstance(entry, dict) and "value" in entry:
            found[path + name] = (entry["value"], entry["low"], entry["high"])
        elif isinstance(entry, dict) and name not in ("details", "intervals"):
            found |= estimates(entry, f"{path}{name}/")
    return found


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_an_image_add_no_knowledge(copies: int) -> None:
    """Every metric and both ends of every interval are those of one image per patient."""
    (labels, scores), (known, known_scores) = sample(0), sample(1)
    options = {"validation": (known, both(known_scores)), "deploy_prevalence": [0.05], "bootstrap": 100, "seed": 3}
    single = clinical_metrics(labels, both(scores), **options)
    patients = [f"patient {number}" for number in np.repeat(np.arange(len(labels)), copies)]
    many = clinical_metrics(
        np.repeat(labels, copies), both(np.repeat(scores, copies)), groups=patients, **options
    )  # fmt: skip
    # With groups these have another kind of interval, so that three copies of an image are what they are held against.
    three = estimates(clinical_metrics(
        np.repeat(labels, 3), both(np.repeat(scores, 3)), groups=list(np.repeat(np.arange(60), 3)), **options
    ))  # fmt: skip
    expected, found = estimates(single), estimates(many)
    for name in ("auroc", "calibration/before/intercept", "calibration/before/slope"):
        assert three[name][0] == pytest.approx(expected[name][0], abs=1e-10)
        expected[name] = three[name]
    assert found.keys() == expected.keys()
    assert len(found) > 70
    for name, values in expected.items():
        # Newton's method ends once its next step is small, after steps that sums in another order make a little other.
        fitted = name.endswith(("calibration/before/intercept", "calibration/before/slope"))
        assert found[name] == pytest.approx(values, abs=1e-9 if fitted else 1e-12), name
    assert many["auroc_delong"]["variance"] == pytest.approx(single["auroc_delong"]["variance"], rel=1e-12)
    basis = {"draws": 100, "rough": False, "units": 60, "smallest": 20}
    assert single["intervals"] == {
        **basis, "resampled": "samples", "smallest_groups": None, "rests_on": "20 positives"
    }  # fmt: skip
    words = f"{20 * copies} positives of 20 groups"
    assert many["intervals"] == {
        **basis, "resampled": "groups", "smallest": 20 * copies, "smallest_groups": 20, "rests_on": words
    }  # fmt: skip
    # Without the groups the copies would pass for new patients.
    blind = clinical_metrics(np.repeat(labels, copies), both(np.repeat(scores, copies)), **options)
    for name in METRICS:
        width, right = (each[name]["high"] - each[name]["low"] for each in (blind, single))
        assert width < 0.85 * right, name


def test_groups_of_one_sample_change_nothing() -> None:
    labels, scores = sample(2)
    names = [str(number) for number in range(len(labels))]
    one, other = (
        clinical_metrics(labels, both(scores), groups=groups, bootstrap=100) for groups in (names, None)
    )  # fmt: skip
    expected = estimates(other)
    for name, values in estimates(one).items():
        assert values == pytest.approx(expected[name]), name


def test_draws_hold_whole_groups_and_every_class() -> None:
    """Groups of class 0, of class 1 and of both, of different sizes."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 0])
    groups = numbered(list("aabbbcddeeff"), 12)
    counts = np.concatenate(list(bootstrap_counts(labels, 4000, 0, groups)))
    for group in range(6):
        inside = counts[:, groups == group]
        assert (inside == inside[:, :1]).all()
    drawn = counts[:, [0, 2, 5, 6, 8, 10]]
    for stratum in ([0, 1], [2, 3], [4, 5]):
        assert (drawn[:, stratum].sum(axis=1) == 2).all()
        assert np.abs(drawn[:, stratum].mean(axis=0) - 1).max() < 0.05
        assert np.abs(drawn[:, stratum].var(axis=0) - 0.5).max() < 0.05  # binomial: two draws with probability 1/2


def test_standard_error_of_a_mean_over_groups() -> None:
    """The share of a draw that is correct has the variance of a ratio of group sums, here with groups of one size."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 4)
    right = np.repeat(generator.random(80) < 0.7, 4) ^ (generator.random(320) < 0.1)
    means = right.reshape(80, 4).mean(axis=1)
    labels = np.zeros(320, dtype=np.int64)
    draws = bootstrap(lambda counts: {"share": counts @ right / counts.sum(axis=1)}, labels, 8000, 0, groups)["share"]
    assert draws.std() == pytest.approx(means.std() / np.sqrt(80), rel=0.03)


def naive_variance(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Obuchowski's estimator as it is printed, pair by pair."""
    wins = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    area, over, under = wins.mean(), wins.mean(axis=1), wins.mean(axis=0)
    pairs = []
    for group in np.unique(groups):
        own = (over[groups[positive] == group], under[groups[~positive] == group])
        pairs.append([each.sum() - len(each) * area for each in own])
    first, second = np.array(pairs).T
    ill, well = len(np.unique(groups[positive])), len(np.unique(groups[~positive]))
    total, many, few = len(pairs), positive.sum(), (~positive).sum()
    s10 = ill / ((ill - 1) * many) * (first**2).sum()
    s01 = well / ((well - 1) * few) * (second**2).sum()
    s11 = total / (total - 1) * (first * second).sum()
    return float(s10 / many + s01 / few + 2 * s11 / (many * few))


@pytest.mark.parametrize("seed", range(3))
def test_variance_of_the_auroc_is_obuchowskis(seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups = np.sort(generator.integers(12, size=50))
    groups = np.unique(groups, return_inverse=True)[1]
    positive = generator.random(50) < 0.4
    scores = np.round(generator.normal(positive + generator.normal(0, 1, 12)[groups], 1), 1)
    assert delong(positive, scores, groups)["variance"] == pytest.approx(
        naive_variance(positive, scores, groups), abs=1e-12
    )


def test_paired_test_of_copies() -> None:
    labels, first = sample(4)
    second = sample(5)[1]
    expected = delong_test(labels == 1, first, second)
    found = delong_test(*(np.repeat(each, 3) for each in (labels == 1, first, second)), np.repeat(np.arange(60), 3))
    assert found == {name: pytest.approx(value, rel=1e-9) for name, value in expected.items()}
    groups = [str(number) for number in np.repeat(np.arange(60), 3)]
    scores = [first, second]
    single = compare_scores(labels == 1, scores, [each > 0.5 for each in scores], bootstrap=200)
    copied = [np.repeat(each, 3) for each in scores]
    many = compare_scores(np.repeat(labels == 1, 3), copied, [each > 0.5 for each in copied], groups=groups,
                          bootstrap=200)  # fmt: skip
    assert (single["groups"], many["groups"], many["n"]) == (None, 60, 180)
    for name in ("auroc", "balanced_accuracy"):
        for end in ("low", "high"):
            assert many[name]["bootstrap"][end] == pytest.approx(single[name]["bootstrap"][end], abs=1e-12)
        assert many[name]["exchange"] == single[name]["exchange"]


@pytest.mark.long
def test_coverage_where_images_of_a_patient_resemble_each_other() -> None:
    """100 studies with 60 patients of six images and a true AUROC of 0.5: the intervals that know the patients hold it
    in about 95 of them (binomial 99.9 %: at least 86); those that do not, in far fewer."""
    held = {"bootstrap": 0, "delong": 0, "blind": 0}
    for seed in range(100):
        generator = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), 6)
        labels = groups % 2
        scores = 1 / (1 + np.exp(-generator.normal(0, 1, 60)[groups] - generator.normal(0, 0.5, 360)))
        names = [str(group) for group in groups]
        known = classification_metrics(labels, scores, groups=names, bootstrap=300, seed=seed)["auroc"]
        blind = classification_metrics(labels, scores, bootstrap=300, seed=seed)["auroc"]
        for name, found in (("bootstrap", known), ("delong", delong(labels == 1, scores, groups)), ("blind", blind)):
            held[name] += found["low"] <= 0.5 <= found["high"]
    assert min(held["bootstrap"], held["delong"]) >= 86, held
    assert held["blind"] <= 75, held


def test_a_single_group_has_no_interval() -> None:
    labels, scores = sample(6)
    found = clinical_metrics(labels, both(scores), groups=["one site"] * 60, bootstrap=50)
    assert found["intervals"]["units"] == found["intervals"]["smallest_groups"] == 1
    assert found["intervals"]["rests_on"] == "20 positives of 1 group: rough"
    for name, (_, low, high) in estimates(found).items():
        assert (low, high) == (None, None), name
    compared = compare_scores(labels == 1, [scores, 1 - scores], [scores > 0.5, scores < 0.5], groups=["one"] * 60)
    assert compared["auroc"]["bootstrap"] == {"low": None, "high": None}
    assert compared["auroc"]["exchange"] == {"p": None}
    assert compared["auroc"]["delong"]["p"] is None


def test_groups_must_be_as_many_as_labels() -> None:
    labels, scores = sample(7)
    with pytest.raises(ValueError, match="groups has 3 entries for 60 labels"):
        clinical_metrics(labels, both(scores), groups=["a", "b", "c"])
