from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from ttc.results import embedding_figures, embedding_panels, figure_style
from ttc.results.embedding_figures import save_comparison_figure, save_embedding_figure

NAMES = ["majority", "minority"]


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = (data.target >= 5).astype(int)
    keep = np.concatenate([np.flatnonzero(labels == 0)[:200], np.flatnonzero(labels == 1)[:20]])
    rows = data.data[keep] - data.data.mean(axis=0)
    return np.stack([rows, rows + 1.0]), labels[keep]


def collapsed():
    embeddings, labels = digits()
    return np.ones_like(embeddings), labels


def shows_classes(path):
    pixels = matplotlib.image.imread(path)[..., :3]
    colours = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for colour in figure_style.COLOURS[:2]]
    return all((np.abs(pixels - colour).max(axis=2) < 0.02).sum() > 20 for colour in colours)


@pytest.mark.parametrize("data", [digits, collapsed])
@pytest.mark.parametrize("scatter", ["pca", "tsne"])
def test_embedding_figure(tmp_path, data, scatter):
    embeddings, labels = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_embedding_figure(tmp_path / "a.png", embeddings, labels, NAMES, scatter=scatter, title="digits")
    assert shows_classes(tmp_path / "a.png")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_same_input_same_bytes(tmp_path):
    embeddings, labels = digits()
    for name in ("a", "b"):
        save_embedding_figure(tmp_path / f"{name}.png", embeddings, labels, NAMES)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_comparison_figure(tmp_path):
    prototypes = np.stack([np.eye(64)[0], -np.eye(64)[0]])
    runs = [("pixels", *digits(), None), ("collapsed", *collapsed(), prototypes)]
    save_comparison_figure(tmp_path / "c.png", runs, NAMES)
    assert shows_classes(tmp_path / "c.png")
    assert (tmp_path / "c.pdf").stat().st_size > 5000


def test_long_names_of_runs_stand_side_by_side(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(embedding_figures, "save", lambda figure, path: drawn.append(figure))
    runs = [(f"supproto-balanced-lr0.25-e100-seed{number}", *digits(), None) for number in range(9)]
    save_comparison_figure(tmp_path / "c.png", runs, NAMES)
    drawn[0].draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in drawn[0].axes if axes.get_title()]
    assert len(boxes) == 9
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_collapse_is_one_spot_and_antipodal_classes_lie_on_the_axis():
    embeddings, labels = collapsed()
    rows = embeddings[0] / np.linalg.norm(embeddings[0], axis=1, keepdims=True)
    noisy = rows + 1e-4 * np.random.default_rng(0).normal(size=rows.shape)
    points = embedding_panels._onto_circle(noisy @ embedding_panels._plane(noisy, labels, None).T)
    assert np.linalg.norm(points - points[0], axis=1).max() < 0.05
    poles = np.eye(64)[np.zeros(len(labels), dtype=int)] * (2 * labels - 1)[:, None]
    points = embedding_panels._onto_circle(poles @ embedding_panels._plane(poles, labels, None).T)
    np.testing.assert_allclose(points[:, 0], 2 * labels - 1, atol=1e-12)


def test_prototype_axis_replaces_the_class_means():
    embeddings, labels = digits()
    prototypes = np.stack([np.eye(64)[3], -np.eye(64)[3]])
    basis = embedding_panels._plane(embeddings[0], labels, prototypes)
    np.testing.assert_allclose(basis[0], -np.eye(64)[3], atol=1e-12)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("classes", [1, 4])
def test_other_numbers_of_classes(tmp_path, classes):
    embeddings, _ = digits()
    labels = np.arange(embeddings.shape[1]) % classes
    save_embedding_figure(tmp_path / "k.png", embeddings, labels, [f"class {label}" for label in range(classes)])
    assert (tmp_path / "k.png").stat().st_size > 5000


def test_cosine_histogram_is_scaled_to_its_peak():
    axes = Figure().subplots()
    rows = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    embedding_panels.draw_cosines(axes, rows, np.array([0, 0, 0, 1]), NAMES)
    tops = [patch.get_data().values.max() for patch in axes.patches]
    assert tops == [1.0] * 4  # between classes and within the majority, each as area and line; one sample has no pairs


def test_bad_input_is_refused(tmp_path):
    embeddings, labels = digits()
    with pytest.raises(ValueError, match="do not fit"):
        save_embedding_figure(tmp_path / "a.png", embeddings[0], labels, NAMES)
    with pytest.raises(ValueError, match="'umap'"):
        save_embedding_figure(tmp_path / "a.png", embeddings, labels, NAMES, scatter="umap")
    with pytest.raises(ValueError, match="at least one run"):
        save_comparison_figure(tmp_path / "a.png", [], NAMES)


def test_import_is_light():
    heavy = "{'matplotlib', 'sklearn'}"
    imports = "import sys, ttc.results.embedding_figures, ttc.metrics.classification"
    code = f"{imports}; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
