"""linear_eval.py: other heads, folds, clinical metrics, several processes; scripts/compare.py on what it wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tests.processes import Result, run, run_ranks
from ttc.evaluation.heads import train_paper_probe
from ttc.evaluation.probe import module_digest
from ttc.models.pretrained import embed_shared, load_pretrained

FAST = ("--probe-fraction", 0.1, "--probe-seeds", 1, "--bootstrap", 20, "--floor", "none")


def probe(checkpoint: Path, folder: Path, *words: object) -> Result:
    return run("linear_eval", "--checkpoint", checkpoint, "--output", folder / "out", *FAST, *words, folder=folder)


def predictions(folder: Path, name: str, split: str = "test") -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["probe"] == name and row["split"] == split]


def columns(rows: list[dict[str, str]], positive: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return np.array([int(row["label"]) == positive for row in rows]), np.array([float(row["score"]) for row in rows])


@pytest.fixture(scope="module")
def all_heads(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder of an evaluation with every head that supproto has, and how it ended."""
    folder = tmp_path_factory.mktemp("heads")
    words = ("--head", "linear", "knn", "prototype", "--neighbours", 7, "--probes", "all", "minority")
    result = probe(pretrained_run / "checkpoints" / "last.pt", folder, *words, "--deploy-prevalence", 0.01, 0.3)
    assert result.code == 0, result.stderr
    return folder / "out", result


def test_every_head_is_measured_from_its_predictions(all_heads: tuple[Path, Result]) -> None:
    folder, result = all_heads
    probes = json.loads(result.stdout)["probes"]
    assert set(probes) == {"encoder", "projection", "knn encoder", "knn projection", "prototype"}
    named = {
        "minority": ("encoder", "minority"),
        "knn all": ("knn encoder", "all"),
        "prototype": ("prototype", "classifier"),
    }
    for name, (section, inner) in named.items():
        labels, scores = columns(predictions(folder, name))
        found = probes[section][inner]
        assert len(labels) == found["n"] == 500
        assert found["auroc"]["mean"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12), name
        threshold = found["details"]["thresholds"]["youden"]
        at_threshold = balanced_accuracy_score(labels, scores >= threshold)
        assert found["operating_points"]["youden"]["balanced_accuracy"]["mean"] == pytest.approx(
            at_threshold, abs=1e-12
        )
        assert set(found["deployment"]) == {"0.01", "0.3"}
        assert found["deployment"]["0.01"]["auprc"]["mean"] < found["deployment"]["0.3"]["auprc"]["mean"]


def test_the_printed_table_is_narrow_and_complete(all_heads: tuple[Path, Result]) -> None:
    _, result = all_heads
    lines = [line.split(" ", 2)[-1] if line[:2].isdigit() else line for line in result.stderr.splitlines()]
    assert max(len(line) for line in result.stderr.splitlines()) <= 110, "100 columns and the time"
    text = "\n".join(lines)
    named = ("bal. acc.", "AUROC", "sens@90", "Brier", "ECE", "intercept", "slope", "Youden", "PPV")
    for part in (*named, "where 1 % are positive"):
        assert part in text, part
    # Two probes: two tables, calibration before and after, Youden's threshold, and two tables at two prevalences.
    assert sum("knn projection" in line for line in lines) == 2 * (2 + 2 + 1 + 2 * 2)


def test_prototypes_need_a_method_that_has_them(tmp_path: Path) -> None:
    words = ("--method", "simclr", "--epochs", 1, "--metrics-every-epochs", 0, "--output", tmp_path / "run")
    assert run("pretrain", *words, folder=tmp_path).code == 0
    result = probe(tmp_path / "run" / "checkpoints" / "last.pt", tmp_path, "--head", "prototype")
    assert result.code == 1
    assert "--head prototype: --method simclr has no prototypes" in result.stderr
    assert "Traceback" not in result.stderr


def test_too_many_neighbours_are_one_line(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--head", "knn", "--neighbours", 40, "--probes", "minority")
    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, *words)
    assert result.code == 1
    assert "--neighbours 40 is more than the 34 samples" in result.stderr.splitlines()[-1]


SICK = 0  # the first class name of the alphabet


def grouped_table(folder: Path, patients: int = 48) -> Path:
    """Write 3 small images per patient and a table of them; a third of the patients are positive."""
    generator, lines = np.random.default_rng(0), ["path,label,group,id"]
    for patient in range(patients):
        for number in range(3):
            name, label = f"p{patient:02d}-{number}.png", "sick" if patient % 3 == 0 else "well"
            pixels = generator.integers(0, 120, (16, 16)) + (100 if label == "sick" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            lines.append(f"{name},{label},patient{patient:02d},{name[:-4]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def grouped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a run on images of patients."""
    folder = tmp_path_factory.mktemp("grouped")
    words = ("--dataset", "csv", "--data-root", grouped_table(folder), "--image-size", 16, "--epochs", 1)
    words += ("--method", "supcon", "--batch-size", 32, "--metrics-every-epochs", 0, "--output", folder / "run")
    result = run("pretrain", *words, folder=folder)
    assert result.code == 0, result.stderr
    return folder / "run" / "checkpoints" / "last.pt"


def test_folds_test_every_unseen_sample_once(grouped_run: Path, tmp_path: Path) -> None:
    result = probe(grouped_run, tmp_path, "--folds", 3, "--head", "linear", "knn", "--neighbours", 5)
    assert result.code == 0, result.stderr
    with (grouped_run.parent.parent / "split.csv").open() as file:
        split = {row["id"]: row for row in csv.DictReader(file)}
    rows = predictions(tmp_path / "out", "folds")
    assert sorted(row["id"] for row in rows) == sorted(name for name, row in split.items() if row["split"] != "train")
    fold_of: dict[str, set[str]] = {}
    for row in rows:
        fold_of.setdefault(split[row["id"]]["group"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert set().union(*fold_of.values()) == {"0", "1", "2"}
    probes = json.loads(result.stdout)["probes"]["encoder"]
    areas = []
    for fold in "012":
        labels, scores = columns([row for row in rows if row["fold"] == fold], positive=SICK)
        areas.append(roc_auc_score(labels, scores))
    assert probes["folds"]["auroc"]["values"] == pytest.approx(areas, abs=1e-12)
    assert probes["folds"]["auroc"]["mean"] == pytest.approx(np.mean(areas), abs=1e-12)
    labels, scores = columns(rows, positive=SICK)
    assert json.loads(result.stdout)["positive_class"] == SICK
    assert probes["pooled"]["auroc"]["mean"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert probes["pooled"]["n"] == len(rows) == json.loads(result.stdout)["test_samples"]
    assert len(probes["folds"]["details"]) == 3


def test_groups_are_reported(grouped_run: Path, tmp_path: Path) -> None:
    result = probe(grouped_run, tmp_path, "--probes", "all", "--layers", "encoder")
    assert result.code == 0, result.stderr
    rows = predictions(tmp_path / "out", "all")
    groups = json.loads(result.stdout)["probes"]["encoder"]["all"]["details"]["groups"]
    assert sum(group["n"] for group in groups) == len(rows)
    assert {group["group"] for group in groups} == {row["group"] for row in rows}
    assert "median [quartiles] %" in result.stderr  # the groups are no sites: too few images of each class
    units = len({row["group"] for row in rows})
    found = json.loads(result.stdout)["probes"]["encoder"]["all"]
    assert {"draws": 20, "resampled": "groups", "units": units}.items() <= found["intervals"].items()
    positives = [row["group"] for row in rows if row["label"] == str(SICK)]
    assert found["intervals"]["rests_on"].startswith(f"{len(positives)} positives of {len(set(positives))} ")
    assert f"[95 % interval over {units} groups" in result.stderr
    compared = run("scripts.compare", tmp_path / "out", tmp_path / "out", "--bootstrap", 100, folder=tmp_path)
    assert compared.code == 0, compared.stderr
    assert json.loads(compared.stdout)["groups"] == units
    assert f"the {units} groups (patients, sites) as independent" in compared.stderr


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--folds", 2), 2, "2 is below 3"),
        (("--folds", 5, "--probes", "all"), 2, "leave out --probes"),
        (("--folds", 5, "--head", "own"), 2, "--head own has nothing to learn"),
        (("--neighbours", 3), 2, "--neighbours has no effect without --head knn"),
        (("--folds", 400), 1, "--folds 400: class"),
        (("--deploy-prevalence", 0), 2, "--deploy-prevalence"),
    ],
)
def test_wrong_usage(words: tuple[object, ...], code: int, part: str, pretrained_run: Path, tmp_path: Path) -> None:
    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, *words)
    assert result.code == code
    assert part in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def on_ranks(size: int, checkpoint: Path, folder: Path) -> tuple[bytes, str]:
    """Evaluate on several processes; return predictions.csv and the result."""
    folder.mkdir()
    words = ("--checkpoint", checkpoint, "--output", folder / "out", *FAST, "--head", "linear", "knn", "prototype")
    ended = run_ranks(size, "linear_eval", *words, folder=folder)
    return (folder / "out" / "predictions.csv").read_bytes(), ended[0].stdout


@pytest.mark.long
def test_one_two_and_three_processes_give_the_same_files(pretrained_run: Path, tmp_path: Path) -> None:
    path = pretrained_run / "checkpoints" / "last.pt"
    alone = on_ranks(1, path, tmp_path / "1")
    for size in (2, 3):
        assert on_ranks(size, path, tmp_path / str(size)) == alone
    ids = [row.split(b",")[0] for row in alone[0].splitlines() if row.endswith(b"prototype") and b",test," in row]
    assert len(ids) == len(set(ids)) == 500


def test_a_probe_leaves_every_parameter_and_buffer_alone(
    pretrained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder has BatchNorm, whose statistics a forward pass in training mode moves: the control at the end."""
    path = pretrained_run / "checkpoints" / "last.pt"
    loaded = load_pretrained(str(path), None, 0, torch.device("cpu"))
    network, train = loaded.network, loaded.dataset.indices("train")[:64]
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()) >= 3
    before, digest = {name: value.clone() for name, value in network.state_dict().items()}, module_digest(network)
    network.train()  # as a careless caller would leave it
    monkeypatch.setattr("ttc.evaluation.heads.PAPER_EPOCHS", 3)
    train_paper_probe(loaded, train, None, layer="encoder", seed=0, num_workers=0)
    embed_shared(network, loaded.dataset, loaded.views, train, views=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert module_digest(network) == digest
    result = probe(path, tmp_path, "--head", "linear", "knn", "--neighbours", 3, "--probes", "minority")
    assert json.loads(result.stdout)["encoder_sha256"] == digest
    network(loaded.views.plain(loaded.dataset.images[train]))
    assert module_digest(network) != digest


# scripts/compare.py


def test_two_probes_are_compared(all_heads: tuple[Path, Result], tmp_path: Path) -> None:
    folder, _ = all_heads
    words = ("--probe", "minority", "prototype", "--threshold", "youden", "--output", tmp_path / "c.json")
    result = run("scripts.compare", folder, folder.parent / "out", *words, "--bootstrap", 200, folder=tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "c.json").read_text())
    (labels, first), (_, second) = (columns(predictions(folder, name)) for name in ("minority", "prototype"))
    assert (found["n"], found["positives"], found["negatives"]) == (500, labels.sum(), (~labels).sum())
    expected = roc_auc_score(labels, first) - roc_auc_score(labels, second)
    assert found["auroc"]["difference"] == pytest.approx(expected, abs=1e-12)
    assert found["auroc"]["delong"]["low"] <= expected <= found["auroc"]["delong"]["high"]
    stored = json.loads((folder / "result.json").read_text())["probes"]["prototype"]["classifier"]
    assert found["thresholds"][1] == pytest.approx(stored["details"]["thresholds"]["youden"], abs=1e-12)
    assert max(map(len, result.stderr.splitlines()[2:])) <= 100
    assert "another seed may turn it round; give the runs of several seeds" in " ".join(result.stderr.split())
    for part in ("positive", "AUROC, delong", "AUROC, bootstrap", "balanced accuracy, bootstrap"):
        assert part in result.stderr


def changed(source: Path, folder: Path, change: str) -> Path:
    """Write predictions.csv anew with one change."""
    with (source / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["probe"] == "minority"]
    tests = [row for row in rows if row["split"] == "test"]
    if change == "missing":
        rows.remove(tests[0])
    elif change == "twice":
        rows.append(tests[0])
    elif change == "label":
        tests[0]["label"] = str(1 - int(tests[0]["label"]))
    elif change == "column":
        rows = [{name: value for name, value in row.items() if name != "score"} for row in rows]
    with (folder / "predictions.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("missing", "were tested on different samples (1 are in one only"),
        ("twice", "must hold every test sample once"),
        ("label", "give a sample different labels"),
        ("column", "lacks the column score"),
        ("probes", "holds several probes; choose one with --probe"),
        ("positive", "--positive-class 0: the scores in"),
        ("folder", "has no predictions.csv"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    change: str, part: str, all_heads: tuple[Path, Result], tmp_path: Path
) -> None:
    source, _ = all_heads
    words: tuple[object, ...] = (source, changed(source, tmp_path, change), "--probe", "minority")
    if change == "probes":
        words = (source, source)
    elif change == "positive":
        words = (source, source, "--probe", "minority", "--positive-class", 0)
    elif change == "folder":
        words = (source, tmp_path / "none", "--probe", "minority")
    result = run("scripts.compare", *words, folder=tmp_path)
    assert result.code == 1
    assert part in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
