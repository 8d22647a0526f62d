"""Images whose true probability is known, through the scripts: what is called a probability is one.

An image shows two numbers as the brightness of two stripes, and noise; given its class they are normal, so that Bayes'
rule gives the probability of the class. Training draws natural or balanced batches; the probabilities of probes, of a
method's own classifier and of a fine-tuned network must be right at 2, 5 and 20 % all the same, in predictions.csv and
on new images.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from tests.processes import run
from ttc.metrics.calibration import calibration_statistics

SHIFT = np.array([1.4, 0.9])
"""By how much the numbers of the positive class are larger, in standard deviations."""

SIZES = {"train": 4000, "val": 8000, "test": 8000}


def draw(seed: int, n: int, prevalence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images [N, 8, 8], labels and true probabilities; brightness is rounded to 1/25 of a deviation."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) < round(prevalence * n)).astype(np.int64)
    shown = np.round(128 + 25 * (generator.normal(labels[:, None] * SHIFT, 1.0) - SHIFT / 2))
    numbers = (np.clip(shown, 0, 255) - 128) / 25 + SHIFT / 2
    stripes = np.repeat(np.clip(shown, 0, 255), 3, axis=1)[:, :, None].repeat(8, axis=2)
    noise = np.clip(generator.normal(128, 25, (n, 2, 8)), 0, 255)
    images = np.concatenate([stripes, noise], axis=1).astype(np.uint8)
    return images, labels, expit(numbers @ SHIFT - SHIFT @ SHIFT / 2 + logit(prevalence))


def check(table: pandas.DataFrame, labels: np.ndarray, truth: np.ndarray, name: str) -> None:
    """Hold the probabilities of labelled samples against labels and truth."""
    made, scores = table["probability"].to_numpy(), table["score"].to_numpy()
    both = np.stack([1 - made, made], axis=1)
    error = float(calibration_statistics(labels, both)(np.ones((1, len(labels))))["ece"][0])
    assert error <= 0.02, (name, error)
    assert abs(made.mean() - labels.mean()) <= 0.01, (name, made.mean())
    # The same without the noise of the labels: the true probabilities in each tenth of the scale average to those made.
    tenths = np.minimum((made * 10).astype(int), 9)
    assert np.abs(np.bincount(tenths, made - truth)).sum() / len(made) <= 0.02, name
    assert roc_auc_score(labels, made) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9), name
    assert (np.diff(made[np.argsort(scores)]) >= 0).all(), name


@pytest.mark.slow
@pytest.mark.parametrize("prevalence", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_probabilities_are_right_end_to_end(prevalence: float, sampler: str, tmp_path: Path) -> None:
    parts = {split: draw(seed, n, prevalence) for seed, (split, n) in enumerate(SIZES.items())}
    images, labels, truth = (np.concatenate([part[place] for part in parts.values()]) for place in range(3))
    np.savez(tmp_path / "d.npz", images=images, label=labels, split=np.repeat(list(SIZES), list(SIZES.values())))
    known = pandas.DataFrame({"label": labels, "truth": truth}, index=[f"arrays/{row:06d}" for row in range(20000)])
    new_images, new_labels, new_truth = draw(9, 12000, prevalence)
    np.savez(tmp_path / "new.npz", images=new_images)
    common = ("--batch-sampler", sampler, "--batch-size", 128, "--epochs", 4, "--augmentation", "none")
    data = ("--dataset", "arrays", "--data-root", "d.npz", "--encoder", "convnet-w4", "--method", "ce")
    pretrained, tuned = "run/checkpoints/last.pt", "run/finetune/checkpoints/best.pt"
    for script, *words in (
        ("pretrain", *data, *common, "--output", "run"),
        ("linear_eval", "--checkpoint", pretrained, "--head", "linear", "own", "--probes", "all", "minority",
         "--layers", "encoder", "--probe-seeds", 1, "--bootstrap", 20),
        ("finetune", "--checkpoint", pretrained, *common, "--bootstrap", 20),
    ):  # fmt: skip
        result = run(script, *words, folder=tmp_path)
        assert result.code == 0, result.stderr
    for folder, probes in (("linear_eval", ("all", "minority", "own")), ("finetune", ("own",))):
        predictions = pandas.read_csv(tmp_path / "run" / folder / "predictions.csv").query("split == 'test'")
        measured = json.loads((tmp_path / "run" / folder / "result.json").read_text())["probes"]
        for probe in probes:
            table = predictions[predictions["probe"] == probe]
            rows = known.loc[table["id"]]
            assert (rows["label"].to_numpy() == table["label"].to_numpy()).all()
            check(table, rows["label"].to_numpy(), rows["truth"].to_numpy(), f"{folder} {probe}")
            entry = measured["own"]["classifier"] if probe == "own" else measured["encoder"][probe]
            assert entry["calibrator"]["kind"] == "platt"
            assert entry["calibration"]["after"]["ece"]["mean"] <= 0.02
    for checkpoint, words in ((pretrained, ("--probe", "all")), (pretrained, ("--probe", "minority")),
                              (pretrained, ("--head", "own")), (tuned, ("--head", "own"))):  # fmt: skip
        words = ("--checkpoint", checkpoint, *words, "--images", "new.npz", "--output", "-")
        result = run("scripts.predict", *words, folder=tmp_path)
        assert result.code == 0, result.stderr
        table = pandas.read_csv(io.StringIO(result.stdout))
        assert table["prevalence"][0] == pytest.approx(prevalence, abs=1e-12)
        check(table, new_labels, new_truth, f"new images {words}")
