"""scripts/predict.py, scripts/export.py and hubconf.py as a user calls them, against the evaluation's own numbers."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import ROOT, run
from ttc.evaluation.export import read_safetensors, write_safetensors
from ttc.metrics.thresholds import RULES
from ttc.models.pretrained import load_pretrained
from ttc.run import checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def probed(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the run with a linear probe on all training samples."""
    folder = tmp_path_factory.mktemp("probed")
    shutil.copytree(pretrained_run, folder / "run")
    words = ("--checkpoint", "run/checkpoints/last.pt", "--probes", "all", "--layers", "encoder", "--bootstrap", 20)
    words += ("--floor", "none")
    result = run("linear_eval", *words, folder=folder)
    assert result.code == 0, result.stderr
    return folder / "run"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_test_images(probed: Path, path: Path) -> list[str]:
    """Write the run's test images as an npz file and return their ids."""
    dataset = load_pretrained(str(probed / "checkpoints" / "last.pt"), None, 0, CPU).dataset
    rows = dataset.indices("test")
    ids = [dataset.ids[row] for row in rows.tolist()]
    np.savez(path, images=dataset.images[rows][:, 0].numpy(), ids=np.array(ids))
    return ids


def predict(probed: Path, folder: Path, *words: object) -> list[dict[str, str]]:
    fixed = ("--checkpoint", probed / "checkpoints" / "last.pt", "--num-workers", 0)
    result = run("scripts.predict", *fixed, *words, folder=folder)
    assert result.code == 0, result.stderr
    return table(folder / "predictions.csv")


def test_predictions_are_those_of_the_evaluation(probed: Path, tmp_path: Path) -> None:
    ids = write_test_images(probed, tmp_path / "new.npz")
    found = predict(probed, tmp_path, "--images", "new.npz")
    expected = {row["id"]: row for row in table(probed / "linear_eval" / "predictions.csv") if row["split"] == "test"}
    assert [row["id"] for row in found] == ids
    for row in found:
        score = float(expected[row["id"]]["score"])
        assert float(row["score"]) == pytest.approx(score, abs=1e-6)
        assert row["prediction"] == str(int(score >= 0.5))
        assert (
            row["class"]
            == json.loads((probed / "linear_eval" / "result.json").read_text())["class_names"][int(row["prediction"])]
        )


def test_threshold_of_a_rule_is_that_of_the_evaluation(probed: Path, tmp_path: Path) -> None:
    write_test_images(probed, tmp_path / "new.npz")
    result = json.loads((probed / "linear_eval" / "result.json").read_text())
    limit = result["probes"]["encoder"]["all"]["details"]["thresholds"]["sensitivity_90"]
    found = predict(probed, tmp_path, "--images", "new.npz", "--threshold", "sensitivity_90")
    assert [row["prediction"] for row in found] == [str(int(float(row["score"]) >= limit)) for row in found]
    assert len({row["prediction"] for row in found}) == 2


def test_folder_and_table_of_files(probed: Path, tmp_path: Path) -> None:
    from PIL import Image

    write_test_images(probed, tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        images = file["images"][:6]
    for number, pixels in enumerate(images):
        path = tmp_path / "images" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "images" / "1" / "broken.png").write_bytes(b"no image")
    refused = run("scripts.predict", "--checkpoint", probed, "--images", "images", folder=tmp_path)
    assert refused.stderr.rstrip().endswith("repair or remove it, or pass --on-bad-image skip")
    expected = [row["score"] for row in predict(probed, tmp_path, "--images", "new.npz")][:6]
    found = {
        row["id"]: row["score"] for row in predict(probed, tmp_path, "--images", "images", "--on-bad-image", "skip")
    }
    assert found.pop("1/broken.png") == ""
    assert [float(found[f"{n % 2}/{n}.png"]) for n in range(6)] == pytest.approx([float(e) for e in expected], abs=1e-6)
    (tmp_path / "t.csv").write_text("id,path\nb,images/1/1.png\na,images/0/0.png\n")
    rows = predict(probed, tmp_path, "--images", "t.csv")
    assert [row["id"] for row in rows] == ["b", "a"]
    # Another batch rounds its products in another order.
    assert float(rows[1]["score"]) == pytest.approx(float(found["0/0.png"]), rel=1e-6)


def test_a_foreign_head_is_refused(probed: Path, tmp_path: Path) -> None:
    words = ("--method", "simclr", "--epochs", 0, "--seed", 3, "--output", "other")
    assert run("pretrain", *words, folder=tmp_path).code == 0
    np.savez(tmp_path / "new.npz", images=np.zeros((1, 8, 8), np.uint8))
    words = ("--checkpoint", "other/checkpoints/last.pt", "--images", "new.npz")
    missing = run("scripts.predict", *words, folder=tmp_path)
    foreign = run("scripts.predict", *words, "--head", probed / "linear_eval" / "heads.pt", folder=tmp_path)
    for result, text in ((missing, "linear_eval.py"), (foreign, "another encoder")):
        assert result.code == 1
        assert "--head" in result.stderr
        assert text in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_the_classifier_in_the_checkpoint(probed: Path, tmp_path: Path) -> None:
    """Of a method that trains one; a checkpoint of finetune.py has the same form and another kind."""
    assert run("pretrain", "--method", "ce", "--epochs", 1, "--output", "ce", folder=tmp_path).code == 0
    path = tmp_path / "ce" / "checkpoints" / "last.pt"
    words = ("--head", "own", "--bootstrap", 0, "--floor", "none", "--output", "own")
    assert run("linear_eval", "--checkpoint", path, *words, folder=tmp_path).code == 0
    state = checkpoint.load(path, "pretrain")
    checkpoint.save(tmp_path / "tuned.pt", "finetune", {k: v for k, v in state.items() if k not in ("format", "kind")})
    write_test_images(tmp_path / "ce", tmp_path / "new.npz")
    expected = {row["id"]: float(row["score"]) for row in table(tmp_path / "own" / "predictions.csv")}
    for each in (path, tmp_path / "tuned.pt"):
        words = ("--checkpoint", each, "--head", "own", "--images", "new.npz")
        result = run("scripts.predict", *words, folder=tmp_path)
        assert result.code == 0, result.stderr
        found = table(tmp_path / "predictions.csv")
        assert [float(row["score"]) for row in found] == pytest.approx([expected[row["id"]] for row in found], abs=1e-6)


@pytest.mark.parametrize("text", ["yuoden", "1.5"])
def test_a_threshold_that_is_none_is_refused_with_all_rules(text: str, tmp_path: Path) -> None:
    words = ("--checkpoint", "x.pt", "--images", "x", "--threshold", text)
    result = run("scripts.predict", *words, folder=tmp_path)
    assert result.code == 2
    assert text in result.stderr
    assert f"give a number, or a rule of {', '.join(RULES)}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"pixels": np.zeros((2, 8, 8), np.uint8)}, "'images'"),
        ({"images": np.zeros((2, 8, 8))}, "uint8"),
        ({"images": np.zeros((2, 8, 9), np.uint8)}, "squares"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "3 channels"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "ids": np.array(["a"])}, "1 ids and 2 images"),
    ],
)
def test_bad_arrays(arrays: dict[str, object], text: str, probed: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    words = ("--checkpoint", probed / "checkpoints" / "last.pt", "--images", "bad.npz")
    result = run("scripts.predict", *words, folder=tmp_path)
    assert result.code == 1
    message = result.stderr.strip().splitlines()[-1]  # after what the log tells of the head
    assert message.startswith("error: --images bad.npz")
    assert text in message
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "predictions.csv").exists()


def test_exports_agree_with_the_network(probed: Path, tmp_path: Path) -> None:
    path = str(probed / "checkpoints" / "last.pt")
    words = ("--format", "features", "torchscript", "safetensors", "card")
    result = run("scripts.export", "--checkpoint", path, "--output", "out", *words, folder=tmp_path)
    assert result.code == 0, result.stderr

    loaded = load_pretrained(path, None, 0, CPU)
    rows = torch.arange(40)
    images = loaded.dataset.images[rows]
    with torch.no_grad():
        expected, _ = loaded.network(loaded.views.plain(images))
        scripted = torch.jit.load(tmp_path / "out" / "encoder.torchscript.pt")(images.float() / 255)
        hub = torch.hub.load(str(ROOT), "encoder", source="local", checkpoint=path)
        torch.testing.assert_close(scripted, expected)
        torch.testing.assert_close(hub(images.float() / 255), expected)
    assert (hub.image_size, hub.feature_dim) == (8, expected.shape[1])
    with np.load(tmp_path / "out" / "features.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["features"][:40], expected, rtol=1e-4, atol=1e-6)
        assert file["ids"].tolist() == loaded.dataset.ids
        assert file["labels"].tolist() == loaded.dataset.labels.tolist()
    weights = read_safetensors(tmp_path / "out" / "encoder.safetensors")
    for name, tensor in loaded.network.encoder.state_dict().items():
        assert torch.equal(weights[f"encoder.{name}"], tensor)


def test_the_card_holds_the_numbers_of_the_run(probed: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", probed / "checkpoints" / "last.pt", "--output", "out", "--format", "card")
    assert run("scripts.export", *words, folder=tmp_path).code == 0
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    found = json.loads((probed / "linear_eval" / "result.json").read_text())["measures"]["encoder/all/auroc"]
    interval = f"{found['low']:.3f} to {found['high']:.3f}"
    assert f"| encoder/all/auroc | {found['value']:.3f} | {interval} | test | {found['n']} |" in card
    rows = table(probed / "split.csv")
    for label in "01":
        counts = [
            sum(row["label"] == label and row["split"] == split for row in rows) for split in ("train", "val", "test")
        ]
        assert " | ".join(map(str, counts)) in card
    assert "not measured (compute_metrics.py)" in card
    assert str(probed.parent) not in card


def test_onnx_says_what_it_needs_or_agrees(probed: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", probed / "checkpoints" / "last.pt", "--output", "out", "--format", "onnx")
    result = run("scripts.export", *words, folder=tmp_path)
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        assert result.code == 0, result.stderr
        assert "largest difference" in result.stderr
    else:
        assert result.code == 1
        assert "onnxruntime" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_safetensors_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn(3, 4, generator=generator), "b": torch.tensor(7), "empty": torch.zeros(0, 2),
        "half": torch.randn(5, generator=generator).half(), "strided": torch.randn(4, 3, generator=generator).T,
    }  # fmt: skip
    write_safetensors(tmp_path / "t.safetensors", tensors, {"note": "x"})
    found = read_safetensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    if importlib.util.find_spec("safetensors"):
        from safetensors.torch import load_file

        for name, tensor in load_file(tmp_path / "t.safetensors").items():
            assert torch.equal(tensor, tensors[name])
