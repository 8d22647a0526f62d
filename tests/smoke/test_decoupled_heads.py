"""Decoupled heads wherever a head is used: linear_eval.py and what reads its files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.processes import Result, run
from ttc.evaluation.heads import load_heads
from ttc.models.pretrained import load_pretrained

HEADS = ("tau-norm", "logit-adjusted")
FAST = ("--bootstrap", 20, "--floor", "none", "--layers", "encoder", "--probe-seeds", 1)


def evaluate(checkpoint: Path, folder: Path, *words: object) -> Result:
    return run("linear_eval", "--checkpoint", checkpoint, *FAST, *words, folder=folder)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(rows: list[dict[str, str]], probe: str, column: str = "score") -> np.ndarray:
    return np.array([float(row[column]) for row in rows if row["probe"] == probe and row["split"] == "test"])


@pytest.fixture(scope="module")
def probed(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the run, evaluated with both heads beside the linear one."""
    folder = tmp_path_factory.mktemp("decoupled") / "run"
    shutil.copytree(pretrained_run, folder)
    words = ("--head", "linear", *HEADS, "--probes", "all", "minority")
    done = evaluate(folder / "checkpoints" / "last.pt", folder.parent, *words)
    assert done.code == 0, done.stderr
    assert "--head tau-norm changes no rank or decision of two classes" in done.stderr
    assert "logit-adjusted encoder all" in done.stderr
    assert max(len(line) for line in done.stderr.splitlines()) <= 110, "100 columns and the time"
    return folder


def result_of(probed: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((probed / "linear_eval" / "result.json").read_text())
    return found


def test_their_numbers_are_those_of_one_probe_on_the_natural_shares(probed: Path) -> None:
    found, rows = result_of(probed), table(probed / "linear_eval" / "predictions.csv")
    assert list(found["probes"]) == ["encoder", "tau-norm encoder", "logit-adjusted encoder"]
    tau, adjusted = (found["probes"][f"{head} encoder"] for head in HEADS)
    assert list(tau) == list(adjusted) == ["all"], "a balanced draw has no natural shares"
    assert (tau["all"]["tau"], adjusted["all"]["tau"]) == (0.0, 1.0)
    natural, shifted = (scores(rows, f"{head} all") for head in HEADS)
    trained = [row["label"] for row in table(probed / "split.csv") if row["split"] == "train"]
    odds = natural / (1 - natural) * trained.count("0") / trained.count("1")
    assert shifted == pytest.approx(odds / (1 + odds), abs=1e-9)
    rare = scores(rows, "tau-norm all", "label") == 1
    half = [((part >= 0.5)[rare].mean() + (part < 0.5)[~rare].mean()) / 2 for part in (natural, shifted)]
    assert half[1] > half[0], "digits with 3 % of a class: natural shares find few of them"
    assert adjusted["all"]["operating_points"]["half"]["balanced_accuracy"]["mean"] == pytest.approx(half[1], abs=1e-12)
    assert adjusted["all"]["auroc"] == tau["all"]["auroc"]
    # Calibrated probabilities are about the samples, not about the shares that a score stands for.
    calibrated = [scores(rows, f"{head} all", "probability") for head in HEADS]
    assert calibrated[0] == pytest.approx(calibrated[1], abs=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_new_images_get_the_probabilities_of_the_evaluation(head: str, probed: Path, tmp_path: Path) -> None:
    dataset = load_pretrained(str(probed / "checkpoints" / "last.pt"), None, 0, torch.device("cpu")).dataset
    rows = dataset.indices("test")
    ids = np.array([dataset.ids[row] for row in rows.tolist()])
    np.savez(tmp_path / "new.npz", images=dataset.images[rows][:, 0].numpy(), ids=ids)
    words = ("--checkpoint", probed, "--images", "new.npz", "--num-workers", 0, "--probe", f"{head} all")
    done = run("scripts.predict", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    kept = table(probed / "linear_eval" / "predictions.csv")
    expected = {row["id"]: row for row in kept if row["probe"] == f"{head} all" and row["split"] == "test"}
    found = table(tmp_path / "predictions.csv")
    assert [row["id"] for row in found] == ids.tolist()
    assert [float(row["score"]) for row in found] == pytest.approx(
        [float(expected[row["id"]]["score"]) for row in found], abs=1e-6
    )


def test_tables_comparison_report_and_card_have_them(probed: Path, tmp_path: Path) -> None:
    measured = result_of(probed)["measures"]
    for head in HEADS:
        assert measured[f"{head} encoder/all/auroc"]["low"] is not None
    words = ("--paper", "--output", tmp_path / "table", "--", probed)
    done = run("scripts.collect_results", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    text = (tmp_path / "table.md").read_text()
    auroc = 100 * measured["logit-adjusted encoder/all/auroc"]["value"]
    assert "tau-normalised probe" in text
    (part,) = [line for line in text.splitlines() if "logit-adjusted probe" in line][:1]
    assert part
    assert f"{auroc:.1f}" in text
    words = (probed / "linear_eval", probed / "linear_eval", "--probe", "minority", "logit-adjusted all")
    done = run("scripts.compare", *words, "--bootstrap", 100, folder=tmp_path)
    assert done.code == 0, done.stderr
    difference = measured["encoder/minority/auroc"]["value"] - measured["logit-adjusted encoder/all/auroc"]["value"]
    assert json.loads(done.stdout)["auroc"]["difference"] == pytest.approx(difference, abs=1e-12)
    words = ("--checkpoint", probed / "checkpoints" / "last.pt", "--output", "out", "--format", "card")
    assert run("scripts.export", *words, folder=tmp_path).code == 0
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert f"| logit-adjusted encoder/all/auroc | {auroc / 100:.3f} |" in card
    done = run("scripts.report", probed, "--output", tmp_path / "report.html", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "logit-adjusted all" in (tmp_path / "report.html").read_text()


def test_folds_keep_the_natural_shares(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--head", *HEADS, "--folds", 3, "--output", "out")
    done = evaluate(pretrained_run / "checkpoints" / "last.pt", tmp_path, *words)
    assert done.code == 0, done.stderr
    probes = json.loads(done.stdout)["probes"]
    assert list(probes) == [f"{head} encoder" for head in HEADS]
    assert all(list(part) == ["folds", "pooled"] for part in probes.values())
    assert load_heads(tmp_path / "out" / "heads.pt").heads == {}


def test_they_are_refused_without_all_training_images(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--head", "logit-adjusted", "--probes", "minority", "--output", "out")
    done = evaluate(pretrained_run / "checkpoints" / "last.pt", tmp_path, *words)
    assert done.code == 1
    assert done.stderr.splitlines()[-1].endswith(
        "--head logit-adjusted learns from all training images; add all to --probes"
    )
    assert "Traceback" not in done.stderr
