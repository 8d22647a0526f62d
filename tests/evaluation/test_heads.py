"""Nearest neighbours against scikit-learn, prototypes against their definition, folds, summaries over draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.evaluation.folds import stratified_folds
from ttc.evaluation.heads import VOTE_TEMPERATURE, knn_classifier, prototype_classifier
from ttc.evaluation.probe import summarise
from ttc.models.pretrained import load_pretrained


def features(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.randn(n, 6, generator=generator) + torch.eye(3, 6)[labels], labels


@pytest.mark.parametrize("votes", ["similarity", "equal"])
@pytest.mark.parametrize("neighbours", [1, 7, 40])
def test_neighbours_equal_sklearn(votes: str, neighbours: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (known, labels), (queries, _) = features(0, 40), features(1, 25)
    weights = "uniform" if votes == "equal" else lambda distances: np.exp((1 - distances) / VOTE_TEMPERATURE)
    model = KNeighborsClassifier(neighbours, metric="cosine", weights=weights)
    model.fit(known.double().numpy(), labels.numpy())
    found = knn_classifier(known, labels, 3, neighbours=neighbours, votes=votes)(queries)
    assert found == pytest.approx(model.predict_proba(queries.double().numpy()), abs=1e-10)


@pytest.mark.parametrize(
    ("neighbours", "message"),
    [
        (11, "11 is more than the 10 samples"),
        (0, "0 is not"),
        (-1, "-1 is not"),
        (1.5, "1.5 is not"),
        (True, "True is"),
    ],
)
def test_impossible_numbers_of_neighbours_are_refused(neighbours: int, message: str) -> None:
    known, labels = features(0, 10)
    with pytest.raises(ValueError, match=f"--neighbours {message}"):
        knn_classifier(known, labels, 3, neighbours=neighbours, votes="equal")


def test_other_votes_and_no_samples_are_refused() -> None:
    known, labels = features(0, 10)
    with pytest.raises(ValueError, match="votes 'loud' do not exist"):
        knn_classifier(known, labels, 3, neighbours=2, votes="loud")
    with pytest.raises(ValueError, match="no samples"):
        knn_classifier(known[:0], labels[:0], 3, neighbours=None, votes="equal")


def test_the_nearest_prototype_is_predicted(pretrained_run: Path) -> None:
    run = load_pretrained(str(pretrained_run / "checkpoints" / "last.pt"), None, 0, torch.device("cpu"))
    prototypes = run.objective_state["prototypes_KD"].double()
    z = torch.nn.functional.normalize(torch.randn(50, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    distances = ((z.double()[:, None] - prototypes) ** 2).sum(2)
    found = prototype_classifier(run)(z)
    assert (found.argmax(1) == distances.argmin(1).numpy()).all()
    # d^2 = 2 - 2 cos on the sphere; supproto's temperature is 0.07.
    assert found == pytest.approx((-distances / 0.14).softmax(1).numpy(), abs=1e-6)


def fold_sizes(labels: np.ndarray, fold: np.ndarray, count: int) -> list[list[int]]:
    return [np.bincount(labels[fold == number], minlength=2).tolist() for number in range(count)]


def test_folds_have_the_same_class_shares() -> None:
    labels = (np.arange(103) % 10 == 0).astype(np.int64)
    fold = stratified_folds(labels, None, 5, seed=0)
    sizes = fold_sizes(labels, fold, 5)
    assert max(sum(size) for size in sizes) - min(sum(size) for size in sizes) <= 2
    assert max(p for _, p in sizes) - min(p for _, p in sizes) <= 1
    assert (stratified_folds(labels, None, 5, seed=0) == fold).all()
    assert (stratified_folds(labels, None, 5, seed=1) != fold).any()


def test_no_group_is_in_two_folds() -> None:
    labels = (np.arange(120) // 4 % 3 == 0).astype(np.int64)
    groups = [f"patient{number // 4}" for number in range(120)]
    fold = stratified_folds(labels, groups, 5, seed=3)
    for group in set(groups):
        assert len({int(f) for f, name in zip(fold, groups, strict=True) if name == group}) == 1
    assert all(positive > 0 and negative > 0 for negative, positive in fold_sizes(labels, fold, 5))


def test_folds_that_would_lack_a_class_are_refused() -> None:
    labels = np.array([0] * 20 + [1] * 4)
    with pytest.raises(ValueError, match="--folds 5: class 1 has 4 samples"):
        stratified_folds(labels, None, 5, seed=0)
    with pytest.raises(ValueError, match="--folds 3: class 1 has 2 groups"):
        stratified_folds(labels, [*map(str, range(20)), "a", "a", "b", "b"], 3, seed=0)


def test_summary_of_draws() -> None:
    def draw(value: float | None, n: int) -> dict[str, object]:
        estimate = {"value": value, "low": None if value is None else value - 1, "high": None}
        return {"auroc": estimate, "points": {"youden": {"ppv": estimate}}, "n": n, "kind": "x", "details": {"t": n}}

    found = summarise([draw(1.0, 5), draw(4.0, 6)])
    expected = {"values": [1.0, 4.0], "mean": 2.5, "std": pytest.approx(4.5**0.5), "low": 1.5, "high": None}
    assert found == {
        "draws": 2,
        "auroc": expected,
        "points": {"youden": {"ppv": expected}},
        "n": [5, 6],
        "kind": "x",
        "details": {"t": 5},
    }
    assert summarise([draw(1.0, 5), draw(None, 5)])["auroc"] == {
        "values": [1.0, None],
        "mean": None,
        "std": None,
        "low": None,
        "high": None,
    }
    assert summarise([draw(1.0, 5)])["auroc"]["std"] == 0.0  # type: ignore[index]
