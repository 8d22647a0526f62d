"""One score per patient, and subgroups, in every script that applies a head; against pandas and scikit-learn."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import run
from ttc.evaluation.elsewhere.heads import heads_of_checkpoint
from ttc.models.pretrained import load_network

GROUPS = ("--per-group", "mean", "--subgroup-columns", "sex")
FAST = ("--bootstrap", 20)
PROBE = ("--probes", "all", "--layers", "encoder", "--floor", "none", *GROUPS, *FAST)


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
    result = run("finetune", *words, "--figures", "all", folder=folder)
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


@pytest.fixture(scope="module")
def probed(place: Path) -> Path:
    """Return the folder of a probe of the same run, measured by patient too."""
    # Only images have a floor of raw pixels.
    words = ("--checkpoint", "run/checkpoints/last.pt", *PROBE, "--floor", "none", "--figures", "all")
    result = run("linear_eval", *words, folder=place)
    assert result.code == 0, result.stderr
    return place / "run" / "linear_eval"


def test_finetuning_leaves_what_a_probe_leaves(place: Path, probed: Path) -> None:
    """The same metrics, figures and pages."""
    tuned = place / "run" / "finetune"
    entry = json.loads((tuned / "result.json").read_text())["probes"]["own"]["classifier"]
    assert paths(entry) == paths(json.loads((probed / "result.json").read_text())["probes"]["encoder"]["all"])
    names = [{path.name for path in folder.iterdir()} for folder in (tuned, probed)]
    tuned_figures, figures = ({name for name in inside if name.endswith((".png", ".pdf"))} for inside in names)
    assert tuned_figures == figures
    assert {name.split(".")[0] for name in figures} == {"reliability", "decision_curve", "subgroups"}
    assert "| 23a | per group (patient) |" in (tuned / "report_card.md").read_text()
    told = EventAccumulator(str(tuned / "tb"))
    told.Reload()
    assert {f"calibration/own/classifier/brier_{when}" for when in ("before", "after")} <= set(told.Tags()["scalars"])
    assert "one score per group (mean of its images, positive if any is), 24 groups" in (place / "told").read_text()


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


def test_new_images_are_decided_by_patient(place: Path) -> None:
    """A second table with one line per patient; threshold and calibrator are those of validation's patients."""
    words = ("--checkpoint", "run/finetune/checkpoints/best.pt", "--head", "own", "--images", "there.npz", *GROUPS)
    result = run("scripts.predict", *words, "--threshold", "youden", folder=place)
    assert result.code == 0, result.stderr
    images, patients = (pandas.read_csv(place / f"predictions{name}.csv") for name in ("", "_groups"))
    found = json.loads((place / "run" / "finetune" / "result.json").read_text())["probes"]["own"]["classifier"]
    assert list(images.columns) == ["id", "score", "probability", "prevalence", "prediction", "class", "group", "sex"]
    expected = images.groupby("group", sort=False)
    assert patients["group"].tolist() == list(expected.groups)
    assert patients["score"].to_numpy() == pytest.approx(expected["score"].mean().to_numpy(), abs=1e-12)
    assert patients["images"].tolist() == [3] * 30
    assert patients["sex"].tolist() == expected["sex"].first().tolist()
    for table, entry in ((images, found), (patients, found["per_group"])):
        limit = entry["details"]["thresholds"]["youden"]
        assert table["prediction"].tolist() == (table["score"] >= limit).astype(int).tolist()
    # Of validation's patients 1/3 are ill, but only 0.9 of their images show it.
    val = pandas.read_csv(place / "run" / "finetune" / "predictions.csv").query("split == 'val'")
    assert patients["prevalence"][0] == pytest.approx(pooled(val)[0].mean(), abs=1e-12)
    assert images["prevalence"][0] == pytest.approx(np.load(place / "here.npz")["label"].mean(), abs=1e-12)
    assert "sex = m: 45 samples" in result.stderr


def test_a_finetuned_head_keeps_its_positive_class(place: Path) -> None:
    """Scores in predictions.csv are those of the class that was asked for, not of the minority."""
    path = str(place / "run" / "finetune" / "checkpoints" / "best.pt")
    network, description, state = load_network(path, torch.device("cpu"))
    (minority,) = heads_of_checkpoint(path, "own", None, network, description, state)
    other = {**state, "args": {**state["args"], "positive_class": 0}}
    (majority,) = heads_of_checkpoint(path, "own", None, network, description, other)
    assert (minority.positive_class, majority.positive_class) == (1, 0)
    scores = [head.kept["val"].scores_NK for head in (minority, majority)]
    assert (scores[0] == scores[1][:, ::-1]).all()


@pytest.fixture(scope="module")
def features(place: Path, probed: Path) -> Path:
    """Return the features of the run in a file, and beside it what linear_eval.py makes of them."""
    words = ("--checkpoint", "run/checkpoints/last.pt", "--features", "--output", "features")
    assert run("scripts.export", *words, folder=place).code == 0
    with np.load(place / "features" / "features.npz") as file, np.load(place / "here.npz") as images:
        np.savez(place / "f.npz", **file, sex=images["sex"])
    result = run("linear_eval", "--embeddings", "f.npz", *PROBE, folder=place)
    assert result.code == 0, result.stderr
    return place / "f" / "linear_eval"


def test_features_in_a_file_give_the_result_of_the_checkpoint(features: Path, probed: Path) -> None:
    """With patients and subgroups, to the last byte."""
    for name in ("result.json", "predictions.csv", "heads.pt"):
        assert (features / name).read_bytes() == (probed / name).read_bytes(), name
    assert "images of 8 px, 1 channel," in (probed / "report_card.md").read_text()
    assert " px," not in (features / "report_card.md").read_text()


def test_features_without_labels_are_classified(place: Path, features: Path) -> None:
    with np.load(place / "f.npz") as file:
        kept, labels = {name: file[name] for name in ("features", "ids", "groups", "sex")}, file["labels"]
    np.savez(place / "new.npz", **kept)
    words = ("--head", features / "heads.pt", "--embeddings", "new.npz", *GROUPS, "--threshold", "f1")
    result = run("scripts.predict", *words, "--output", "new.csv", folder=place)
    assert result.code == 0, result.stderr
    found, patients = (pandas.read_csv(place / name) for name in ("new.csv", "new_groups.csv"))
    expected = pandas.read_csv(features / "predictions.csv").set_index("id")["score"]
    assert found.set_index("id")["score"][expected.index].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert found["prevalence"][0] == pytest.approx(labels.mean(), abs=1e-12)
    assert len(patients) == 120
    measured = json.loads((features / "result.json").read_text())["probes"]["encoder"]["all"]["per_group"]
    limit = measured["details"]["thresholds"]["f1"]
    assert patients["prediction"].tolist() == (patients["score"] >= limit).astype(int).tolist()
    moved = run("scripts.predict", *words[:4], "--deploy-prevalence", 0.5, "--output", "-", folder=place)
    odds = [np.log(table["probability"] / (1 - table["probability"])) for table in (found, read(moved.stdout))]
    shift = -np.log(labels.mean() / (1 - labels.mean()))
    assert (odds[1] - odds[0]).to_numpy() == pytest.approx(shift, abs=1e-9)


def read(text: str) -> pandas.DataFrame:
    return pandas.read_csv(io.StringIO(text))


@pytest.mark.parametrize(
    ("arrays", "words", "code", "text"),
    [
        ({"features": np.ones((4, 3))}, (), 1, "new.npz has 3 features, --head"),
        ({"labels": np.ones(4, int)}, (), 1, "has no array 'features' or 'embeddings'"),
        ({"features": np.ones((4, 16))}, GROUPS[:2], 1, "has no array groups"),
        ({"features": np.ones((4, 16))}, GROUPS[2:], 1, "no array 'sex'"),
        ({}, ("--checkpoint", "run/checkpoints/last.pt"), 2, "takes no --checkpoint"),
        ({}, ("--images", "here.npz"), 2, "either --images"),
        ({}, ("--group-column", "g"), 2, "--group-column has no effect"),
        ({}, ("--id-column", "g"), 2, "--id-column is for images"),
    ],
)
def test_features_that_do_not_fit_are_one_line(
    arrays: dict[str, object], words: tuple[object, ...], code: int, text: str, features: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "new.npz", **arrays)  # type: ignore[arg-type]
    words = ("--head", features / "heads.pt", "--embeddings", "new.npz", *words)
    result = run("scripts.predict", *words, folder=tmp_path)
    assert result.code == code
    assert text in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
