"""scripts/compare.py RUN ... --against RUN ...: runs matched by seed and fold, refused where they do not match."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sklearn import metrics as sk

from tests.processes import run
from tests.results.test_collect_folds import make_fold, predictions_of
from ttc.evaluation.predictions import DecisionRule
from ttc.results.clinic.matched import Predictions, load_predictions, match, pair_of

RULE = DecisionRule("youden", None, "any")


def loaded(*folders: Path) -> list[Predictions]:
    return [load_predictions(str(folder), "minority", RULE, None) for folder in folders]


def test_two_methods_are_compared_over_seeds_and_folds(tmp_path: Path) -> None:
    sides = {
        method: [
            make_fold(tmp_path / method, fold, seed=seed, method=method, draw=draw)
            for seed in (0, 1)
            for fold in (1, 2, 3)
        ]
        for draw, method in enumerate(("supmin", "supcon"))
    }
    words = ["--against", *sides["supcon"][::-1], "--probe", "minority", "--bootstrap", 100]
    done = run("scripts.compare", *sides["supmin"], *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["seeds"], found["pairs"], found["units"]) == (2, 6, 60)
    assert found["matched"][4] == {"seed": 1, "fold": "2/3"}
    assert [Path(path).parts[-3] for path in found["against"]] == [path.name for path in sides["supcon"]]
    tables = {method: predictions_of(folders, "minority") for method, folders in sides.items()}
    parts = {method: [table[20 * k : 20 * k + 20] for k in range(6)] for method, table in tables.items()}
    areas = {
        method: [sk.roc_auc_score(part["label"], part["score"]) for part in each] for method, each in parts.items()
    }
    expected = sum(areas["supmin"]) / 6 - sum(areas["supcon"]) / 6
    assert found["auroc"]["difference"] == pytest.approx(expected, abs=1e-12)
    assert found["auroc"]["both"]["test"] == "seeds and images"
    text = done.stderr
    assert max(map(len, text.splitlines()[2:])) <= 100
    for part in ("p both", "p images", "p seeds", "pairs of runs: 6, seeds: 2, images: 60", "take at least six"):
        assert part in " ".join(text.split()), part
    assert run("scripts.compare", *sides["supmin"], folder=tmp_path).code == 2


def test_a_run_that_was_fine_tuned_too_is_asked_where_the_probe_is(tmp_path: Path) -> None:
    probed = make_fold(tmp_path, 1)
    folder = next(path.parent for path in probed.rglob("predictions.csv"))
    shutil.copytree(folder, folder.with_name("finetune"))
    table = folder.with_name("finetune") / "predictions.csv"
    table.write_text(table.read_text().replace("minority", "own"))
    assert loaded(probed)[0].path == folder / "predictions.csv"
    assert load_predictions(str(probed), "own", RULE, None).path == table
    with pytest.raises(ValueError, match=r"has several predictions\.csv; name the evaluation folder, such as"):
        load_predictions(str(probed), None, RULE, None)


def test_what_does_not_match_is_refused_in_one_line(tmp_path: Path) -> None:
    first = [make_fold(tmp_path / "a", fold) for fold in (1, 2, 3)]
    second = [make_fold(tmp_path / "b", fold, method="supcon", draw=1) for fold in (1, 2, 3)]
    matched = match(loaded(*first), loaded(*second[::-1]))
    assert [(place.seed, place.fold) for place, _, _ in matched] == [(0, "1/3"), (0, "2/3"), (0, "3/3")]
    pair = pair_of(*matched[1], RULE)
    assert pair.units == [f"im/{k:02d}" for k in range(1, 60, 3)]
    again = make_fold(tmp_path / "c", 1)
    other_rate = make_fold(tmp_path / "d", 2, lr=0.5)
    alone = tmp_path / "alone.csv"
    alone.write_text((first[0] / "linear_eval" / "predictions.csv").read_text())
    for left, right, message in (
        (first, second[:2], r"r0-fold3of3 \(seed 0, fold 3/3\) has no partner on the other side"),
        (first[:2], second, r"r0-fold3of3 \(seed 0, fold 3/3\) has no partner on the other side"),
        ([first[0], again], second, "are both seed 0, fold 1/3 of one side"),
        ([first[0], first[0]], second, "is named twice on one side"),
        ([first[0], other_rate], second, "differ in more than seed and fold"),
        ([alone], second, "lies in no run folder"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            match(loaded(*left), loaded(*right))
        assert "\n" not in str(caught.value)
