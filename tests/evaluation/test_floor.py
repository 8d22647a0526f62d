"""The floor of raw pixels: its models against scikit-learn's own pipelines, its draws, its cache, what it tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.processes import run, run_ranks
from ttc.datasets import Dataset, DatasetSettings, TensorImages, load_dataset
from ttc.evaluation.floor.fits import MOST_IMAGES, Floor, drawn_rows, equal_share, left_out
from ttc.evaluation.floor.models import choose, principal, unit_auroc
from ttc.run.escape import counted

Arrays = tuple[np.ndarray, np.ndarray]
Measured = tuple[Path, dict[str, object]]


def samples(seed: int, count: int, classes: int = 2, signal: float = 1.0) -> Arrays:
    """Return pixels [N, 12] and labels [N] of overlapping classes, the first one rare."""
    generator = np.random.default_rng(seed)
    labels = np.where(np.arange(count) % 5 == 0, 0, 1 + np.arange(count) % (classes - 1 or 1))
    centres = np.random.default_rng(0).normal(size=(classes, 12)) * signal
    return centres[labels] + generator.normal(size=(count, 12)), labels.astype(np.int64)


def reached(model: object, pixels: np.ndarray, labels: np.ndarray) -> float:
    decisions = model.decision_function(pixels)  # type: ignore[attr-defined]  # scikit-learn's
    if decisions.ndim == 1:
        return float(roc_auc_score(labels, decisions))
    shares = torch.softmax(torch.from_numpy(decisions), 1).numpy()
    return float(roc_auc_score(labels, shares, multi_class="ovr"))


@pytest.mark.parametrize("classes", [2, 3])
def test_validation_chooses_among_the_pipelines_of_scikit_learn(classes: int) -> None:
    train, val, test = (samples(seed, count, classes, 0.6) for seed, count in ((0, 90), (1, 60), (2, 80)))
    pipelines = {}
    for features, steps in (("pixels", [StandardScaler()]), ("pca", [PCA(12, whiten=True)])):
        for strength in (0.001, 0.01, 0.1, 1.0):
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=100)
            pipelines[features, "linear", strength] = make_pipeline(*steps, model)
        for strength in (0.1, 1.0, 10.0):
            pipelines[features, "svm", strength] = make_pipeline(*steps, SVC(C=strength, class_weight="balanced"))
    scores = {name: reached(model.fit(*train), *val) for name, model in pipelines.items()}
    found = choose(train, (*val, None), test[0])
    assert found.validation == pytest.approx(max(scores.values()), abs=1e-9)
    name = (found.features, found.model, found.strength)
    assert scores[name] == pytest.approx(max(scores.values()), abs=1e-9)
    expected = reached(pipelines[name], *test)
    own = unit_auroc(found.scores_WK, test[1], None)
    assert own == pytest.approx(expected, abs=0.02 if classes > 2 else 1e-9), "scaling keeps the order of two classes"
    assert found.scores_WK.sum(1) == pytest.approx(np.ones(80))


def test_scores_are_those_of_equally_frequent_classes() -> None:
    """An SVM that learned from one rare image in twenty still finds most rare ones at a score of one half."""
    generator = np.random.default_rng(0)

    def of(seed: int, rare: int, count: int) -> Arrays:
        labels = (np.arange(count) < rare).astype(np.int64)
        noise = np.random.default_rng(seed).normal(size=(count, 30))
        return noise + 0.9 * labels[:, None] * centre, labels

    centre = generator.normal(size=30)
    test = of(2, 200, 400)
    found = choose(of(0, 20, 400), None, test[0])
    assert (found.features, found.model, found.strength, found.validation) == ("pca", "svm", 1.0, None)
    decided = found.scores_WK[:, 1] > 0.5
    assert decided[test[1] == 1].mean() > 0.6
    assert decided[test[1] == 0].mean() < 0.4


def test_components_of_copies_are_no_noise() -> None:
    pixels = np.repeat(samples(0, 4)[0], 6, axis=0)
    values = principal(pixels)(samples(1, 9)[0])
    assert values.shape[1] == 3, "four different images span three directions"
    assert np.abs(values).max() < 100


def test_groups_of_one_class_are_judged_as_groups() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    scores = np.stack([1 - (at := np.array([0.1, 0.2, 0.9, 0.8, 0.3, 0.7])), at], 1)
    assert unit_auroc(scores, labels, ["a", "a", "a", "b", "b", "b"]) == 1.0  # means 0.4 and 0.6
    mixed = ["a", "a", "b", "b", "c", "c"]
    assert unit_auroc(scores, labels, mixed) == roc_auc_score(labels, scores[:, 1])


@pytest.mark.parametrize(
    ("counts", "most"), [([5, 90], 60), ([5, 90], 200), ([40, 40], 60), ([3, 20, 50], 40), ([1, 1], 1)]
)
def test_small_classes_stay_whole(counts: list[int], most: int) -> None:
    naive = max(share for share in range(max(counts) + 1) if sum(min(count, share) for count in counts) <= most)
    assert equal_share(counts, most) == naive


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSettings("digits", class_ratios=(0.9, 0.1)))


def fitted(dataset: Dataset, folder: Path | None) -> tuple[Floor, np.ndarray]:
    train, val, test = (dataset.indices(split) for split in ("train", "val", "test"))
    floor = Floor(dataset, [train], torch.cat([val, test]).sort().values, num_workers=0, folder=folder)
    scores = floor.fit(train, val)(test[:, None])
    floor.save()
    return floor, scores


def test_a_second_run_reads_the_floor_of_the_first(digits: Dataset, tmp_path: Path) -> None:
    first, scores = fitted(digits, tmp_path / "new" / "folder")
    second, again = fitted(digits, tmp_path / "new" / "folder")
    assert second._pixels_ND is None, "nothing was decoded"
    assert (again == scores).all()
    assert [fit.plain() for fit in second.fits] == [fit.plain() for fit in first.fits]
    (kept,) = (tmp_path / "new" / "folder").iterdir()
    kept.write_bytes(kept.read_bytes()[:-200])
    damaged, mended = fitted(digits, tmp_path / "new" / "folder")
    assert damaged._pixels_ND is not None
    assert (mended == scores).all()


def test_other_pixels_labels_or_rows_are_another_floor(digits: Dataset, tmp_path: Path) -> None:
    names = set()
    assert isinstance(digits.images, TensorImages)
    pixels, labels = digits.images.data.clone(), digits.labels.clone()
    pixels[digits.indices("val")[0], 0, 3, 3] += 1
    labels[digits.indices("test")[0]] = 1 - labels[digits.indices("test")[0]]
    for dataset in (digits, replace(digits, images=TensorImages(pixels)), replace(digits, labels=labels)):
        tested = torch.cat([dataset.indices("val"), dataset.indices("test")]).sort().values
        for rows in (tested, tested[1:]):
            floor = Floor(dataset, [dataset.indices("train")], rows, num_workers=0, folder=tmp_path)
            names.add(floor._path)
    assert len(names) == 6


def test_a_folder_that_cannot_be_written_is_no_error(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    _, scores = fitted(digits, tmp_path / "file")
    assert (fitted(digits, None)[1] == scores).all()


def test_why_there_is_no_floor(digits: Dataset) -> None:
    train, rest = digits.indices("train"), torch.cat([digits.indices("val"), digits.indices("test")])
    assert left_out(digits, train, rest) is None
    rare = train[digits.labels[train] == 1]
    for few in (1, 2):
        rows = torch.cat([train[digits.labels[train] == 0], rare[:few]])
        assert f"has {counted(few, 'training image')}, it needs 3" in str(left_out(digits, rows, rest))
    count = MOST_IMAGES + 1
    many = replace(digits, labels=digits.labels.repeat(-(-count // len(digits.labels)))[:count])
    assert "it would read 25,001 images, more than 25,000" in str(left_out(many, train, torch.arange(count)))


def test_the_draw_keeps_every_class(digits: Dataset) -> None:
    train = digits.indices("train")
    assert torch.equal(drawn_rows(digits, train), train)
    labels = digits.labels.repeat(6)
    rare = torch.cumsum(labels == 1, 0) > 700
    labels[rare & (labels == 1)] = 0
    many = replace(digits, labels=labels, ids=[str(row) for row in range(len(labels))])
    drawn = drawn_rows(many, torch.arange(len(labels)))
    assert torch.bincount(labels[drawn]).tolist() == [2300, 700]


FAST = ("--probes", "all", "--layers", "encoder", "--bootstrap", 20)


@pytest.fixture(scope="module")
def measured(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Return an evaluation with the floor, and its result."""
    folder = tmp_path_factory.mktemp("floor")
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", *FAST)
    done = run("linear_eval", *words, folder=folder)
    assert done.code == 0, done.stderr
    assert "does not clear the floor of raw pixels" in done.stderr
    assert "more steps (--epochs; it took 8 steps)" in " ".join(done.stderr.split())
    return folder / "out", json.loads(done.stdout)


def test_the_floor_changes_nothing_else(measured: Measured, pretrained_run: Path, tmp_path: Path) -> None:
    folder, result = measured
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", "--floor", "none", *FAST)
    alone, silent = run_ranks(2, "linear_eval", *words, folder=tmp_path)
    without = json.loads(alone.stdout)
    assert without["floor"] is None
    assert not silent.stdout
    assert without["probes"] == result["probes"]
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    assert not (tmp_path / "out" / "floor").exists()


def test_the_floor_is_a_result_that_can_be_compared(measured: Measured, tmp_path: Path) -> None:
    folder, result = measured
    floor = result["floor"]
    assert isinstance(floor, dict)
    assert floor["clears"] == {"encoder": {"all": {"test": False, "validation": False}}}
    (fit,) = floor["fits"]["all"]
    assert (fit["learned_from"], fit["of"]) == (597, 597)
    table = pandas.read_csv(folder / "floor" / "predictions.csv")
    test = table[table["split"] == "test"]
    assert floor["probes"]["all"]["auroc"]["mean"] == pytest.approx(roc_auc_score(test["label"], test["score"]))
    compared = run("scripts.compare", folder, folder / "floor", "--probe", "all", "--bootstrap", 100, folder=tmp_path)
    assert compared.code == 0, compared.stderr
    assert json.loads(compared.stdout)["auroc"]["second"] == pytest.approx(floor["probes"]["all"]["auroc"]["mean"])


def test_the_floor_of_folds_and_ranks(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", "--folds", 3)
    first, _ = run_ranks(2, "linear_eval", *words, "--layers", "encoder", "--bootstrap", 0, folder=tmp_path)
    floor = json.loads(first.stdout)["floor"]
    assert len(floor["fits"]["folds"]) == 3
    assert floor["probes"]["pooled"]["n"] == json.loads(first.stdout)["test_samples"]
    assert floor["probes"]["pooled"]["auroc"]["mean"] > 0.9
    table = pandas.read_csv(tmp_path / "out" / "floor" / "predictions.csv")
    assert table["id"].is_unique
