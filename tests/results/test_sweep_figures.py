"""Figures of a sweep: what is drawn of which classifier, with which numbers and sizes in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.results.test_collect import make_run
from tests.results.test_paper import probed
from ttc.results import collect, curve_figures, figure_style
from ttc.results.figures import classifiers, panels
from ttc.results.figures.members import members_of
from ttc.results.scatter_figure import save_scatter_figure
from ttc.results.table_parts import paper


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures that were saved, which are looked at in the place of their pixels."""
    figures: list[Figure] = []
    for module in (panels, curve_figures, figure_style):
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
    import ttc.results.scatter_figure as scatter

    monkeypatch.setattr(scatter, "save", lambda figure, path: figures.append(figure))
    return figures


def titles_of(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def with_predictions(folder: Path, value: float, *, tuned: bool = True) -> Path:
    """Add 40 predictions, 9 positive, of a probe and perhaps of a fine-tuned network to a run."""
    probed(folder, value, tuned=tuned)
    for step, name in (("linear_eval", "all"), ("finetune", "own")):
        if (path := folder / step / "result.json").is_file():
            rows = [f"{number},{int(number < 9)},{(number * 7 % 40) / 40},test,{name}" for number in range(40)]
            (folder / step / "predictions.csv").write_text("\n".join(["id,label,score,split,probe", *rows, ""]))
            result = json.loads(path.read_text())
            result |= {"positive_class": 1, "class_names": ["healthy", "sick"]}
            for section in result["probes"].values():
                for summary in section.values():
                    summary["details"] = {"confusion": {"youden": {"tn": 20, "fp": 11, "fn": 2, "tp": 7}}}
            path.write_text(json.dumps(result))
    return folder


def planned(kind: str, *folders: Path) -> classifiers.Planned:
    runs = [collect.read_run(folder)[0] for folder in folders]
    lines = collect.lines_of(runs, [], also=paper.ledger_metrics())
    plan = getattr(classifiers, kind)(members_of(runs), lines, folders[0], "all")
    for _, save in plan:
        save()
    return plan


def test_curves_of_all_methods_share_a_panel_with_their_areas(tmp_path: Path, drawn: list[Figure]) -> None:
    figures = drawn
    runs = [
        with_predictions(make_run(tmp_path / "a", method="supcon"), 0.6, tuned=False),
        with_predictions(make_run(tmp_path / "b", method="supmin"), 0.8),
    ]
    plan = planned("discrimination", *runs)
    assert [figure.path.name for figure, _ in plan] == ["roc.png", "pr.png"]
    assert plan[0][0].title == "ROC: probe all, fine-tuned"
    roc, pr = figures
    assert (
        titles_of(roc)
        == titles_of(pr)
        == [f"digits 97:3: {name}\ntest n = 40, 9 positive; learned from 400" for name in ("probe all", "fine-tuned")]
    )
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in roc.axes]
    assert legends == [
        ["supcon  60.0 [55.0, 65.0]", "supmin  80.0 [75.0, 85.0]"], ["supmin  85.0 [80.0, 90.0]"],
    ]  # fmt: skip
    assert [axes.get_legend().get_title().get_text() for axes in pr.axes] == ["AUPRC, % [95 % interval]"] * 2
    probe, tuned = (axes.get_lines() for axes in roc.axes)
    assert probe[2].get_color() == tuned[1].get_color() != probe[1].get_color(), "a row has one colour"


def test_reliability_and_confusion_of_probes_and_networks(tmp_path: Path, drawn: list[Figure]) -> None:
    figures = drawn
    run = with_predictions(make_run(tmp_path / "a"), 0.6)
    plan = planned("reliability", run)
    assert [figure.path.name for figure, _ in plan] == ["reliability.png", "reliability_finetune.png"]
    assert titles_of(figures[0]) == ["supmin\nn = 40, 2 bins"], "40 images, 9 positive: too few for more"
    plan = planned("confusion", run)
    assert titles_of(figures[2]) == [f"supmin\n{name}, n = 40, 9 positive" for name in ("probe all", "fine-tuned")]
    cells = [text.get_text() for text in figures[2].axes[0].texts]
    assert cells == ["20\n65 %", "11\n35 %", "2\n22 %", "7\n78 %"]


@pytest.mark.parametrize(
    ("samples", "positives", "bins"), [(500, 249, 10), (500, 24, 4), (100, 50, 3), (40, 9, 2), (10_000, 5, 2)]
)
def test_bins_hold_enough(samples: int, positives: int, bins: int) -> None:
    assert curve_figures.bins_for(np.arange(samples) < positives) == bins


def test_seeds_that_test_the_same_images_do_not_narrow_an_interval() -> None:
    generator = np.random.default_rng(0)
    from ttc.evaluation.predictions import Predictions

    one = Predictions((generator.random(200) < 0.3).astype(int), generator.random(200))
    alone, twice = (curve_figures.reliability([one] * seeds, 4)[2] for seeds in (1, 2))
    np.testing.assert_allclose(alone, twice)


def test_a_correlation_says_of_how_many_methods_and_splits(drawn: list[Figure], tmp_path: Path) -> None:
    figures = drawn
    rows = {("g", "a"): [(1.0, 2.0, 3.0), (2.0, 3.0, 4.0)], ("g", "b"): [(3.0, 4.0, 5.0)]}
    save_scatter_figure(tmp_path / "x.png", rows, ("x", "y", "z"), 1)
    assert titles_of(figures[0])[0] == "rank correlation 1.00: 3 runs of 2 methods, 1 split"
