"""Curves of classifiers against scikit-learn, and figures that hold what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ttc.evaluation.predictions import Predictions
from ttc.results import curve_figures as curves
from ttc.results.embedding_figures import save_grid_figure
from ttc.results.figure_style import panel_grid
from ttc.results.figures.members import Member, laid_out
from ttc.results.scatter_figure import save_scatter_figure


def predictions(seed: int, n: int = 300, digits: int = 2) -> Predictions:
    """Return rounded scores, so that there are ties."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.3).astype(int)
    return Predictions(labels, np.round(np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1), digits))


@pytest.mark.parametrize("digits", [1, 2, 6])
def test_roc_and_pr_are_those_of_scikit_learn(digits: int) -> None:
    one = predictions(0, digits=digits)
    labels, scores = one.labels_N, one.scores_N
    roc, pr = curves.roc_and_pr([one], draws=0)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.y_G, np.interp(roc.x_G, false, true), atol=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    for x, y in zip(pr.x_G, pr.y_G, strict=True):
        reaching = recall >= x - 1e-12
        reached = np.flatnonzero(reaching & (recall == recall[reaching].min()))
        assert np.isclose(y, precision[reached]).any(), x


def test_areas_under_the_curves() -> None:
    one = predictions(1, n=4000, digits=6)
    labels, scores = one.labels_N, one.scores_N
    roc, pr = curves.roc_and_pr([one], draws=0)
    assert np.trapezoid(roc.y_G, roc.x_G) == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)
    assert np.trapezoid(pr.y_G, pr.x_G) == pytest.approx(average_precision_score(labels, scores), abs=1e-2)


def test_bands_cover_the_truth_as_often_as_they_say() -> None:
    truth, _ = curves.roc_and_pr([predictions(99, n=100_000, digits=6)], draws=0)
    inside = []
    for seed in range(60):
        roc, _ = curves.roc_and_pr([predictions(seed, digits=6)], draws=200)
        assert (roc.low_G <= roc.y_G + 1e-12).all()
        assert (roc.high_G >= roc.y_G - 1e-12).all()
        inside.append(roc.low_G[30] <= truth.y_G[30] <= roc.high_G[30])
    assert 0.85 <= np.mean(inside) <= 1.0


def test_bands_of_copied_patients_are_those_of_single_images() -> None:
    """Five equal images of each patient; taken as independent they would give a band that is far too narrow."""
    one = predictions(3)
    copies = [np.repeat(each, 5) for each in (one.labels_N, one.scores_N)]
    names = [str(number) for number in np.repeat(np.arange(300), 5)]
    single, known, blind = (
        curves.roc_and_pr([each], draws=100)[0]
        for each in (one, Predictions(*copies, groups=names), Predictions(*copies))
    )
    np.testing.assert_allclose(known.low_G, single.low_G, atol=1e-12)
    np.testing.assert_allclose(known.high_G, single.high_G, atol=1e-12)
    assert (blind.high_G - blind.low_G).mean() < 0.6 * (single.high_G - single.low_G).mean()


def test_reliability_of_true_probabilities() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random(5000)
    labels = (generator.random(5000) < probabilities).astype(int)
    mean_K, share_K, interval_2K = curves.reliability([Predictions(labels, probabilities)])
    assert len(mean_K) == 10
    assert (np.diff(mean_K) > 0).all()
    assert ((interval_2K[0] <= mean_K) & (mean_K <= interval_2K[1])).mean() >= 0.8
    assert (interval_2K[0] < share_K).all()
    assert (share_K < interval_2K[1]).all()


def test_reliability_with_fewer_samples_than_bins() -> None:
    mean_K, _, interval_2K = curves.reliability([Predictions(np.array([0, 1]), np.array([0.2, 0.9]))])
    assert mean_K.tolist() == [0.2, 0.9]
    assert np.isfinite(interval_2K).all()


@pytest.mark.parametrize("count", [1, 5, 6, 19])
def test_panels(count: int) -> None:
    figure, panels = panel_grid(count, 2, 2, 5, shared_axes=True)
    assert len(panels) == count
    assert sum(axes.axison for axes in figure.axes) == count


def test_figures_are_written_as_png_and_pdf(tmp_path: Path) -> None:
    rows = {name: [predictions(seed) for seed in (0, 1)] for name in ("supcon", "supmin")}
    bands = {name: curves.roc_and_pr(each, draws=20)[0] for name, each in rows.items()}
    curves.save_band_figure(tmp_path / "roc.png", bands, x_label="x", y_label="y", chance=None)
    curves.save_reliability_figure(tmp_path / "reliability.png", rows)
    training = {name: [([1.0, 2.0], [1.0, 0.5])] for name in rows}
    curves.save_training_figure(tmp_path / "training.png", training, "loss")
    with_a_gap = {**rows, "supproto": None}
    curves.save_reliability_figure(tmp_path / "gap.png", with_a_gap, columns=2)
    points = {(group, name): [(1.0, 2.0, 3.0), (2.0, 3.0, 4.0)] for group in ("99:1", "50:50") for name in rows}
    save_scatter_figure(tmp_path / "scatter.png", points, ("a", "b", "c"))
    generator = np.random.default_rng(0)
    run = (generator.normal(size=(2, 40, 6)), np.arange(40) % 2)
    for panel in ("circle", "pca", "tsne"):
        grid = [("99:1", [("supcon", *run, None), None]), ("50:50", [("supcon", *run, np.eye(6)[:2]), None])]
        save_grid_figure(tmp_path / f"{panel}.png", grid, ["a", "b"], panel=panel)
    for name in ("roc", "reliability", "gap", "training", "scatter", "circle", "pca", "tsne"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="at least one run"):
        save_grid_figure(tmp_path / "none.png", [("a", [None])], ["a", "b"], panel="circle")


def test_rows_of_several_ratios_make_a_grid(tmp_path: Path) -> None:
    members = [Member(tmp_path, group, row, 0) for group in ("99:1", "50:50") for row in ("supcon", "supmin")]
    found = {"supcon\n99:1": 1, "supmin\n99:1": 2, "supmin\n50:50": 3}
    expected = {"supcon\n99:1": 1, "supmin\n99:1": 2, "supcon\n50:50": None, "supmin\n50:50": 3}
    assert laid_out(members, found) == (expected, 2)
    assert list(laid_out(members, found)[0]) == list(expected)
    assert laid_out(members[:2], {"supcon": 1}) == ({"supcon": 1}, 5)
    many = [Member(tmp_path, group, f"method {number}", 0) for group in ("99:1", "50:50") for number in range(10)]
    grid, columns = laid_out(many, {f"{member.row}\n{member.group}": 0 for member in many})
    assert columns == 2
    assert list(grid)[:3] == ["method 0\n99:1", "method 0\n50:50", "method 1\n99:1"]


@pytest.mark.long
def test_a_grid_of_many_methods_is_turned_over(tmp_path: Path) -> None:
    run = (np.random.default_rng(0).normal(size=(2, 30, 4)), np.arange(30) % 2)
    grid = [(ratio, [(f"method {number}", *run, None) for number in range(12)]) for ratio in ("99:1", "50:50")]
    save_grid_figure(tmp_path / "grid.png", grid, ["a", "b"], panel="circle")
    width, height = Image.open(tmp_path / "grid.png").size
    assert height > 3 * width
