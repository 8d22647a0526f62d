"""scripts/compare.py on more than two classes: one against the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tests.processes import run
from tests.smoke.test_evaluation_heads import predictions, probe


def test_one_of_three_classes_is_compared_with_the_rest(tmp_path: Path) -> None:
    words = ("--classes", "0,1,2", "3,4,5", "6,7,8,9", "--class-ratios", 0.5, 0.4, 0.1, "--epochs", 1)
    assert run("pretrain", *words, "--output", tmp_path / "run", folder=tmp_path).code == 0
    words = ("--probes", "all", "minority", "--layers", "encoder")
    assert probe(tmp_path / "run" / "checkpoints" / "last.pt", tmp_path, *words).code == 0
    scores = {}
    for name in ("all", "minority"):
        rows = predictions(tmp_path / "out", name)
        labels = np.array([int(row["label"]) for row in rows])
        scores[name] = np.array([[float(row[f"score_{label}"]) for label in range(3)] for row in rows])
    both = ("scripts.compare", tmp_path / "out", tmp_path / "out", "--probe", "all", "minority", "--bootstrap", 100)
    for positive, more in ((2, ()), (0, ("--positive-class", 0))):
        result = run(*both, *more, folder=tmp_path)
        assert result.code == 0, result.stderr
        found = json.loads(result.stdout)
        assert (found["classes"], found["positive_class"]) == (3, positive)
        assert (found["test_samples"], found["positives"]) == ([500, 500], (labels == positive).sum())
        for name, key in (("all", "first"), ("minority", "second")):
            own = scores[name][:, positive]
            assert found["auroc"][key] == pytest.approx(roc_auc_score(labels == positive, own), abs=1e-12)
            expected = balanced_accuracy_score(labels == positive, own >= 0.5)
            assert found["balanced_accuracy"][key] == pytest.approx(expected, abs=1e-12)
        assert f"class {positive} is positive, the other 2 classes are negative" in result.stderr
    wrong = run(*both, "--positive-class", 3, folder=tmp_path)
    assert wrong.code == 1
    assert "--positive-class 3 is not in" in wrong.stderr
