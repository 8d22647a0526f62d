"""Features of any encoder in an .npz file: the same heads, metrics and results as with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.metrics.naive_metrics import naive_metrics
from tests.processes import run
from ttc.evaluation.embeddings import as_run, read_features
from ttc.metrics.representation import representation_metrics

FAST = ("--bootstrap", 20, "--probes", "all", "minority", "--probe-seeds", 2, "--layers", "encoder")


def write(path: Path, **arrays: object) -> Path:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3 == 0
    usual = {"features": generator.normal(size=(60, 4)) + labels[:, None], "labels": np.where(labels, "rare", "usual")}
    np.savez(path, **{name: value for name, value in {**usual, **arrays}.items() if value is not None})  # type: ignore[arg-type]
    return path


def test_the_same_features_give_the_same_result(pretrained_run: Path, tmp_path: Path) -> None:
    checkpoint = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt")
    assert run("scripts.export", *checkpoint, "--features", "--output", "out", folder=tmp_path).code == 0
    # Only images have a floor of raw pixels.
    sources = {"a": (*checkpoint, "--floor", "none"), "b": ("--embeddings", "out/features.npz")}
    for name, words in sources.items():
        result = run("linear_eval", *words, *FAST, "--output", name, folder=tmp_path)
        assert result.code == 0, result.stderr
    for name in ("result.json", "predictions.csv", "heads.pt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_foreign_file_without_splits(tmp_path: Path) -> None:
    write(tmp_path / "f.npz", groups=np.arange(60) // 2 % 20)
    words = ("--embeddings", "f.npz", "--bootstrap", 20, "--probes", "all")
    result = run("linear_eval", *words, folder=tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["class_names"] == ["rare", "usual"]
    assert found["positive_class"] == 0
    assert list(found["probes"]) == ["encoder"]
    assert found == json.loads((tmp_path / "f" / "linear_eval" / "result.json").read_text())


def test_splits_are_drawn_by_group_and_seed(tmp_path: Path) -> None:
    groups = np.arange(60) // 2 % 20
    file = read_features(write(tmp_path / "f.npz", groups=groups), "--embeddings")
    drawn = [as_run(file, seed).dataset.splits for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert {len(set(drawn[0][groups == group])) for group in range(20)} == {1}
    assert set(drawn[0]) == {"train", "val", "test"}


SPLIT = np.array(["train", "val", "test"] * 20)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"features": None}, "no array 'features' or 'embeddings'"),
        ({"labels": None}, "no array 'labels'"),
        ({"features": np.ones((60, 4), int)}, "floating-point"),
        ({"features": np.ones((59, 4))}, "do not fit"),
        ({"features": None, "embeddings": np.ones((1, 60, 4))}, "one view"),
        ({"labels": np.array([{}] * 60)}, "cannot be read"),
        ({"split": np.array(["train", "other", "test"] * 20)}, "unknown split 'other'"),
        ({"ids": np.arange(59)}, "59 entries of id for 60 samples"),
        ({"class_names": np.array(["usual", "other"])}, "the label 'rare' is none of the class_names"),
        ({"about": np.array("{")}, "about is damaged"),
        ({"split": SPLIT, "groups": np.arange(60) // 2}, "the group '0' is in train and in val"),
        ({"split": SPLIT, "labels": np.where(SPLIT == "val", "a", "b")}, "has no sample in split 'train'"),
        ({"ids": np.zeros(60, int)}, "id"),
    ],
)
def test_what_does_not_fit_is_refused(arrays: dict[str, object], text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "f.npz", **arrays)
    with pytest.raises(ValueError, match=text) as caught:
        as_run(read_features(path, "--embeddings"), 0)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "either --checkpoint or --embeddings"),
        (("--checkpoint", "a.pt", "--embeddings", "f.npz"), "either --checkpoint or --embeddings"),
        (("--embeddings", "f.npz", "--head", "own"), "--head own"),
        (("--embeddings", "f.npz", "--protocol", "paper"), "--protocol paper"),
        (("--embeddings", "f.npz", "--data-root", "x"), "--data-root"),
        (("--embeddings", "f.npz", "--layers", "encoder.stage"), "--layers"),
    ],
)
def test_what_needs_a_network_is_refused(words: tuple[str, ...], text: str, tmp_path: Path) -> None:
    result = run("linear_eval", *words, folder=tmp_path)
    assert result.code == 2
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("--views", 7), ("--max-samples", 10), ("--class-balance", "balanced"), ("--projector",)]
)
def test_metrics_of_embeddings_refuse_what_concerns_images(words: tuple[object, ...], tmp_path: Path) -> None:
    result = run("compute_metrics", "--embeddings", write(tmp_path / "f.npz"), *words, folder=tmp_path)
    assert result.code == 2
    assert f"{words[0]} says how images are embedded" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_minority_of_embeddings_is_a_class_that_occurs(tmp_path: Path) -> None:
    labels = np.array([0] * 50 + [1] * 10)
    path = write(tmp_path / "f.npz", labels=labels, class_names=np.array(["common", "rare", "absent"]))
    result = run("compute_metrics", "--embeddings", path, "--peu-draws", 0, folder=tmp_path)
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["minority_class"] == 1


def test_metrics_of_a_single_view(tmp_path: Path) -> None:
    path = write(tmp_path / "f.npz", split=np.where(np.arange(60) % 2, "train", "test"))
    result = run("compute_metrics", "--embeddings", path, "--peu-draws", 0, folder=tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)["embeddings"]
    file = read_features(path, "--embeddings")
    assert file.labels is not None
    expected = representation_metrics(file.views[:, ::2], file.labels[::2], peu_draws=0, one_view=True)
    assert found == json.loads(json.dumps(expected))
    assert found["SAA"]["all"] is found["SAD"]["all"] is None
    naive = naive_metrics(file.views[:, ::2].numpy(), file.labels[::2].numpy(), 0.05)
    assert found["CAC"]["per_class"] == pytest.approx(naive["CAC"])
