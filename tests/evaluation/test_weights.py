"""Predictions of a fine-tuned run are those that it reports, or refused: new runs and runs of earlier versions."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import run
from ttc.evaluation.elsewhere.heads import heads_of_checkpoint
from ttc.evaluation.elsewhere.weights import checkpoint_of, digest_of, reported_state
from ttc.evaluation.new_images import encode
from ttc.models.pretrained import load_network, load_pretrained
from ttc.run import checkpoint

CPU = torch.device("cpu")
EARLIER = Path(__file__).parents[1] / "upgrade" / "93a57da" / "finished" / "finetune"


def scores_of(path: Path) -> dict[str, float]:
    """Return the scores of the test images as predict.py makes them."""
    network, description, state = load_network(str(path), CPU)
    (head,) = heads_of_checkpoint(str(path), None, None, network, description, state)
    dataset = load_pretrained(str(path), None, 0, CPU, checkpoint.FINETUNE).dataset
    rows = dataset.indices("test")
    features, _ = encode(network, description, dataset.images[rows], 0)
    return dict(
        zip([dataset.ids[row] for row in rows.tolist()], head.scores(features)[:, head.positive_class], strict=True)
    )


def reported(folder: Path) -> dict[str, float]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["id"]: float(row["score"]) for row in csv.DictReader(file) if row["split"] == "test"}


def named(folder: Path) -> Path:
    """Return a fine-tuned run whose result names its weights, as a run of today does."""
    shutil.copytree(EARLIER, folder)
    path = folder / "result.json"
    state = checkpoint.load(folder / "checkpoints" / "best.pt", checkpoint.FINETUNE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": digest_of(state)}))
    return folder


def earlier(folder: Path) -> Path:
    shutil.copytree(EARLIER, folder)
    return folder


@pytest.mark.parametrize("make", [named, earlier])
def test_predictions_are_those_reported_or_refused(
    make: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(tmp_path / "finetune")
    best, last = (folder / "checkpoints" / name for name in ("best.pt", "last.pt"))
    with caplog.at_level(logging.WARNING, "ttc"):
        found = scores_of(best)
    assert sum("does not name its weights" in message for message in caplog.messages) == (make is earlier)
    expected = reported(folder)
    assert found.keys() == expected.keys()
    assert [found[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-6)
    # The last epoch is another one than the best.
    state = checkpoint.load(last, checkpoint.FINETUNE)
    state["objective"] = {name: value + 0.5 for name, value in state["objective"].items()}
    checkpoint.save(
        last, checkpoint.FINETUNE, {key: value for key, value in state.items() if key not in ("format", "kind")}
    )
    with pytest.raises(ValueError, match=r"holds other weights than those that validation chose.*; use .*best.pt"):
        scores_of(last)
    # A last epoch that is the best one predicts as reported, with best.pt's calibrator.
    for name in ("", ".sha256"):
        shutil.copyfile(f"{best}{name}", f"{last}{name}")
    (folder / "checkpoints" / "last.pt.sha256").write_text(
        best.with_name("best.pt.sha256").read_text().replace("best", "last")
    )
    assert scores_of(last) == found


def test_the_weights_that_a_result_names_count(tmp_path: Path) -> None:
    """best.pt of another run in the place of a run's own is refused too."""
    folder = named(tmp_path / "finetune")
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": "0" * 64}))
    best = folder / "checkpoints" / "best.pt"
    with pytest.raises(ValueError, match=r"holds other weights .*; fine-tune again in a new folder"):
        reported_state(str(best), checkpoint.load(best, checkpoint.FINETUNE))


def test_a_run_folder_stands_for_its_best_weights(tmp_path: Path) -> None:
    assert checkpoint_of(str(EARLIER)) == str(EARLIER / "checkpoints" / "best.pt")
    assert checkpoint_of(str(EARLIER / "checkpoints")) == str(EARLIER / "checkpoints" / "best.pt")
    assert checkpoint_of(str(EARLIER.parent)) == str(EARLIER.parent / "checkpoints" / "last.pt")
    assert checkpoint_of("x/last.pt") == "x/last.pt"
    with pytest.raises(ValueError, match=r"holds no checkpoints/last.pt"):
        checkpoint_of(str(tmp_path))


def test_predict_takes_a_run_folder(tmp_path: Path) -> None:
    dataset = load_pretrained(str(EARLIER / "checkpoints" / "best.pt"), None, 0, CPU, checkpoint.FINETUNE).dataset
    rows = dataset.indices("test")[:5]
    np.savez(
        tmp_path / "new.npz", images=dataset.images[rows][:, 0].numpy(), ids=[dataset.ids[row] for row in rows.tolist()]
    )
    done = run(
        "scripts.predict", "--checkpoint", EARLIER, "--images", "new.npz", "--threshold", "youden", folder=tmp_path
    )
    assert done.code == 0, done.stderr
    with (tmp_path / "predictions.csv").open(newline="") as file:
        found = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert found == pytest.approx({name: reported(EARLIER)[name] for name in found}, abs=1e-6)
