"""linear_eval.py and compute_metrics.py as a user calls them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import ROOT, Result, run, run_ranks
from ttc.metrics.representation import representation_metrics
from ttc.models.pretrained import embed_shared, load_pretrained

sys.path.insert(0, str(ROOT))
FAST = ("--probe-fraction", 0.1, "--probe-seeds", 2, "--bootstrap", 50, "--floor", "none")


def probe(checkpoint: Path, folder: Path, *words: object) -> Result:
    return run("linear_eval", "--checkpoint", checkpoint, "--output", folder / "out", *FAST, *words, folder=folder)


def test_checkpoint_alone_is_enough(pretrained_run: Path, tmp_path: Path) -> None:
    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "out" / "result.json").read_text())
    for layer in ("encoder", "projection"):
        assert found["probes"][layer]["all"]["train_samples"] == 597
        assert found["probes"][layer]["minority"]["train_samples"] == 2 * 17
        assert found["probes"][layer]["fraction"]["train_samples"] == 2 * 60
        for metrics in found["probes"][layer].values():
            for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1"):
                assert 0 <= metrics[name]["low"] <= metrics[name]["mean"] <= metrics[name]["high"] <= 1


def test_predictions_name_every_test_sample_once(pretrained_run: Path, tmp_path: Path) -> None:
    assert probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, "--probes", "minority").code == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (pretrained_run / "split.csv").open() as file:
        wanted = {row["id"]: row["label"] for row in csv.DictReader(file) if row["split"] == "test"}
    assert {row["id"]: row["label"] for row in rows if row["split"] == "test"} == wanted
    assert len(rows) == len({row["id"] for row in rows})


def test_predictions_give_the_reported_auroc(pretrained_run: Path, tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, "--probes", "minority")
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    auroc = roc_auc_score([int(row["label"]) for row in rows], [float(row["score"]) for row in rows])
    first = json.loads(result.stdout)["probes"]["encoder"]["minority"]["auroc"]["values"][0]
    assert auroc == pytest.approx(first, abs=1e-12)


def test_evaluation_leaves_the_checkpoint_alone_and_is_repeatable(pretrained_run: Path, tmp_path: Path) -> None:
    path = pretrained_run / "checkpoints" / "last.pt"
    before = path.read_bytes()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = probe(path, tmp_path / "a"), probe(path, tmp_path / "b")
    assert first.stdout == second.stdout
    assert path.read_bytes() == before
    again = probe(path, tmp_path / "a")
    assert again.code == 0
    assert "nothing to do" in again.stderr
    assert again.stdout.strip() == (tmp_path / "a" / "out" / "result.json").read_text().strip()


def test_paper_protocol(pretrained_run: Path, tmp_path: Path) -> None:
    path = pretrained_run / "checkpoints" / "last.pt"
    result = probe(path, tmp_path, "--protocol", "paper", "--layers", "encoder", "--class-balance", "balanced")
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found["probes"]["encoder"]) == ["fraction"]
    assert found["test_samples"] == 2 * 249


@pytest.mark.parametrize("method", ["weighted-ce", "bcl", "paco", "ldam-drw", "proco"])
def test_own_head(method: str, tmp_path: Path) -> None:
    words = ("--method", method, "--epochs", 1, "--output", tmp_path / "run")
    assert run("pretrain", *words, folder=tmp_path).code == 0
    result = probe(tmp_path / "run" / "checkpoints" / "last.pt", tmp_path, "--head", "own")
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["probes"]["own"]["classifier"]["n"] == 500


def test_own_head_of_a_method_without_one(pretrained_run: Path, tmp_path: Path) -> None:
    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, "--head", "own")
    assert result.code == 1
    assert "--head own" in result.stderr
    assert "Traceback" not in result.stderr


def test_metrics_of_a_checkpoint(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", tmp_path / "out", "--projector")
    result = run("compute_metrics", *words, "--max-samples", 100, "--peu-draws", 1, "--scatter", "pca", folder=tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    with np.load(tmp_path / "out" / "embeddings.npz", allow_pickle=False) as file:
        values, labels = torch.from_numpy(file["embeddings"]), torch.from_numpy(file["labels"])
        assert file["prototypes"].shape == (2, 128)
    assert values.shape == (5, 100, 128)
    again = representation_metrics(values, labels, peu_draws=1)
    assert json.loads(json.dumps(again)) == found["projection"]
    for name in ("projection.png", "encoder.png", "projection.pdf", "metrics.json"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    assert list((tmp_path / "out" / "tb").glob("**/sprite.png"))


def test_metrics_of_any_embeddings(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    embeddings, labels = generator.normal(size=(2, 30, 8)), np.arange(30) % 2
    np.savez(tmp_path / "e.npz", embeddings=embeddings, labels=labels)
    result = run("compute_metrics", "--embeddings", tmp_path / "e.npz", folder=tmp_path)
    assert result.code == 0, result.stderr
    expected = json.loads(json.dumps(representation_metrics(embeddings, labels)))
    assert json.loads(result.stdout)["embeddings"] == expected


@pytest.mark.parametrize("source", ["checkpoint", pytest.param("embeddings", marks=pytest.mark.slow)])
def test_metrics_of_two_processes_are_those_of_one(source: str, pretrained_run: Path, tmp_path: Path) -> None:
    words: tuple[object, ...] = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--max-samples", 120)
    if source == "embeddings":
        values = torch.randn(3, 700, 24, generator=torch.Generator().manual_seed(0)).numpy()
        values[:, 300:400] = values[:1, 300:301]  # ties
        # More rows than one block of either metric holds.
        words = ("--embeddings", write_npz(tmp_path / "e.npz", embeddings=values, labels=np.arange(700) % 2))
    told = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        first, *others = run_ranks(size, "compute_metrics", *words, "--output", "out", folder=folder)
        assert all(not each.stdout for each in others)
        told += [first.stdout, (folder / "out" / "metrics.json").read_text()]
    assert told[2:] == told[:2]


def test_a_dead_network_is_a_result(tmp_path: Path) -> None:
    """Outputs that are all zero have no direction: null, never a number and never an end of the sweep."""
    words = ("--embeddings", write_npz(tmp_path / "e.npz", embeddings=np.zeros((2, 6, 3)), labels=np.arange(6) % 2))
    result = run("compute_metrics", *words, "--output", tmp_path / "out", folder=tmp_path)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["dead_samples"] == {"embeddings": 6}
    alive = representation_metrics(np.eye(6, 7).reshape(2, 3, 7), np.array([0, 1, 0]))
    assert set(found["embeddings"]) == set(alive)
    assert found["embeddings"]["SAA"] == {"per_class": [None, None], "macro": None, "all": None}
    assert found["embeddings"]["mean_cosine"].keys() == alive["mean_cosine"].keys()
    assert "6 samples are left out" in result.stderr


@pytest.mark.parametrize("script", ["linear_eval", "compute_metrics"])
def test_a_finished_result_is_printed_once(script: str, pretrained_run: Path, tmp_path: Path) -> None:
    words: tuple[object, ...] = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out")
    fast = ("--max-samples", 40, "--peu-draws", 0, "--scatter", "none")
    words += (*FAST, "--probes", "minority") if script == "linear_eval" else fast
    alone = run(script, *words, folder=tmp_path)
    first, second = run_ranks(2, script, *words, folder=tmp_path)
    assert json.loads(first.stdout) == json.loads(alone.stdout)
    assert second.stdout == ""


@pytest.mark.parametrize("script", ["linear_eval", "compute_metrics", "finetune"])
def test_a_run_folder_stands_for_its_checkpoint(script: str, pretrained_run: Path, tmp_path: Path) -> None:
    more = {
        "linear_eval": (*FAST, "--probes", "minority"),
        "compute_metrics": ("--max-samples", 40, "--peu-draws", 0, "--scatter", "none"),
        "finetune": ("--epochs", 1, "--freeze-encoder", "--bootstrap", 0),
    }
    for path in (pretrained_run, pretrained_run / "checkpoints", pretrained_run / "checkpoints" / "last.pt"):
        result = run(script, "--checkpoint", path, "--output", "out", *more[script], folder=tmp_path)
        assert result.code == 0, result.stderr
        assert ("nothing to do" in result.stderr) == (path != pretrained_run)


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.zeros(4, int)},
        {"embeddings": np.full((2, 4, 3), np.nan), "labels": np.array([0, 1, 0, 1])},
        {"embeddings": np.ones((1, 4, 3)), "labels": np.array([0, 1, 0, 1])},
        {"embeddings": np.ones((2, 4, 3)), "labels": np.array([0.5, 1, 0, 1])},
        {"embeddings": np.ones((2, 4, 3)), "labels": np.array([0, -1, 0, 1])},
        {"embeddings": np.ones((2, 5, 3)), "labels": np.array([0, 1, 0, 1])},
        {"embeddings": np.array([{"hostile": 1}]), "labels": np.array([0])},
    ],
    ids=["missing", "nan", "one-view", "float-labels", "negative-label", "shapes", "objects"],
)
def test_bad_embeddings(arrays: dict[str, object], tmp_path: Path) -> None:
    result = run("compute_metrics", "--embeddings", write_npz(tmp_path / "e.npz", **arrays), folder=tmp_path)
    assert result.code == 1
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 truncated"])
def test_broken_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.npz").write_bytes(content)
    result = run("compute_metrics", "--embeddings", tmp_path / "e.npz", folder=tmp_path)
    assert result.code == 1
    assert "--embeddings" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("script", ["linear_eval", "compute_metrics"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "kind"])
def test_bad_checkpoint(script: str, damage: str, pretrained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    if damage == "truncated":
        path.write_bytes((pretrained_run / "checkpoints" / "last.pt").read_bytes()[:5000])
    elif damage == "foreign":
        torch.save({"weight": torch.zeros(2)}, path)
    elif damage == "kind":
        torch.save({"format": "ttc-checkpoint-1", "kind": "finetune"}, path)
    result = run(script, "--checkpoint", path, "--output", tmp_path / "out", folder=tmp_path)
    assert result.code == 1
    assert str(path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "args.json").exists()


def test_positive_class_out_of_range(pretrained_run: Path, tmp_path: Path) -> None:
    result = probe(pretrained_run / "checkpoints" / "last.pt", tmp_path, "--positive-class", 5)
    assert result.code == 1
    assert "--positive-class 5" in result.stderr


def test_neither_checkpoint_nor_embeddings(tmp_path: Path) -> None:
    assert run("compute_metrics", folder=tmp_path).code == 2


def test_features_do_not_depend_on_the_rows_beside_them(pretrained_run: Path) -> None:
    """So that linear_eval.py may embed what it needs, and no more."""
    run = load_pretrained(str(pretrained_run / "checkpoints" / "last.pt"), None, 0, torch.device("cpu"))
    rows = torch.arange(len(run.dataset.ids))
    everything = embed_shared(run.network, run.dataset, run.views, rows, views=0)
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    for count in (1, 2, 257, 600):
        some = embed_shared(run.network, run.dataset, run.views, shuffled[:count], views=0)
        for found, expected in zip(some, everything, strict=True):
            assert torch.equal(found, expected[shuffled[:count]]), count
