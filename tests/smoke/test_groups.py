"""One score per patient, and subgroups, in every script that applies a head; against pandas and scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import run

GROUPS = ("--per-group", "mean", "--subgroup-columns", "sex")
FAST = ("--bootstrap", 20)


def write_images(path: Path, seed: int, groups: int, **arrays: object) -> None:
    """Write three images of each patient; ill ones are brighter, and of some patients not every image shows it."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), 3)
    label = ((group % 3 == 0) & (generator.random(3 * groups) < 0.9)).astype(int)
    pixels = generator.normal(90 + 40 * label[:, None, None], 60, (3 * groups, 8, 8))
    usual = {"images": np.clip(pixels, 0, 255).astype(np.uint8), "label": label, "group": group + 1000 * seed}
    np.savez(path, **{**usual, "sex": np.where(group % 2, "f", "m"), **arrays})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, its fine-tuned network, and images of another place."""
    folder = tmp_path_factory.mktemp("patients")
    write_images(folder / "here.npz", 0, 120)
    write_images(folder / "there.npz", 1, 30)
    words = ("--dataset", "arrays", "--data-root", "here.npz", "--group-column", "group", "--encoder", "convnet-w4")
    result = run("pretrain", *words, "--epochs", 0, "--output", "run", folder=folder)
    assert result.code == 0, result.stderr
    words = ("--checkpoint", "run/checkpoints/last.pt", "--epochs", 2, "--freeze-encoder", *GROUPS, *FAST)
    result = run("finetune", *words, folder=folder)
    assert result.code == 0, result.stderr
    (folder / "told").write_text(result.stderr)
    return folder


def pooled(table: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return label and score of each patient."""
    patients = table.groupby("group")
    return patients["label"].max().to_numpy(), patients["score"].mean().to_numpy()


def youden(labels: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    return float((scores[labels == 1] >= threshold).mean() - (scores[labels == 0] >= threshold).mean())


def test_finetuning_measures_patients_and_subgroups(place: Path) -> None:
    folder = place / "run" / "finetune"
    found = json.loads((folder / "result.json").read_text())["probes"]["own"]["classifier"]
    table = pandas.read_csv(folder / "predictions.csv")
    val, test = (table[table["split"] == split] for split in ("val", "test"))
    (labels, scores), patients = pooled(test), found["per_group"]
    assert (found["n"], patients["n"]) == (len(test), len(labels)) == (3 * len(labels), len(labels))
    assert patients["auroc"]["mean"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["auroc"]["mean"] == pytest.approx(roc_auc_score(test["label"], test["score"]), abs=1e-12)
    threshold = patients["details"]["thresholds"]["youden"]
    known, known_scores = pooled(val)
    assert youden(known, known_scores, threshold) == max(youden(known, known_scores, t) for t in known_scores)
    called = scores >= threshold
    point = patients["operating_points"]["youden"]
    assert point["sensitivity"]["mean"] == pytest.approx(called[labels == 1].mean(), abs=1e-12)
    assert threshold != found["details"]["thresholds"]["youden"]
    assert patients["calibrator"]["kind"] in ("platt", "prior")
    rows = found["details"]["subgroups"]["sex"]["rows"]
    assert {row["value"] for row in rows} == {"f", "m"}
    assert sum(row["n"] for row in rows) == len(test)


def test_finetuning_leaves_what_a_probe_leaves(place: Path) -> None:
    """The same metrics, figures and pages."""
    words = ("--checkpoint", "run/checkpoints/last.pt", "--probes", "all", "--layers", "encoder", *GROUPS, *FAST)
    result = run("linear_eval", *words, folder=place)
    assert result.code == 0, result.stderr
    tuned, probed = (place / "run" / name for name in ("finetune", "linear_eval"))
    entry = json.loads((tuned / "result.json").read_text())["probes"]["own"]["classifier"]
    assert paths(entry) == paths(json.loads(result.stdout)["probes"]["encoder"]["all"])
    names = [{path.name for path in folder.iterdir()} for folder in (tuned, probed)]
    figures = {name.removeprefix("all-") for name in names[1] if name.endswith((".png", ".pdf"))}
    assert {name.removeprefix("classifier-") for name in names[0] if name.endswith((".png", ".pdf"))} == figures
    assert {name.split(".")[0] for name in figures} == {"reliability", "decision_curve", "subgroups"}
    assert "| 23a | per patient | AUROC" in (tuned / "report_card.md").read_text()
    told = EventAccumulator(str(tuned / "tb"))
    told.Reload()
    assert {f"calibration/own/classifier/brier_{when}" for when in ("before", "after")} <= set(told.Tags()["scalars"])
    assert "per group (mean of its images, positive if any is)" in (place / "told").read_text()


def paths(entry: object, path: str = "") -> set[str]:
    """Return the names of all entries of a result, but those that depend on the values."""
    if not isinstance(entry, dict):
        return {path}
    return {name for key, inner in entry.items() for name in paths(inner, f"{path}/{key}")}


@pytest.mark.parametrize("script", ["finetune", "linear_eval"])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--per-group", "mean"), "--per-group needs groups"),
        (("--subgroup-columns", "age"), "--subgroup-columns is for tables"),
    ],
)
def test_data_without_groups_are_refused_before_the_training(
    script: str, words: tuple[str, ...], text: str, pretrained_run: Path, tmp_path: Path
) -> None:
    checkpoint = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", tmp_path / "out")
    result = run(script, *checkpoint, *words, folder=tmp_path)
    assert result.code == 1
    assert text in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "result.json").exists()
