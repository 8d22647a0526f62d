"""Every method on real images, on one and two processes: trained, killed, continued, probed; its terms logged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from tests.datasets.readers.test_fashion import REAL as FASHION_ROOT
from tests.processes import run, run_ranks, start_ranks
from tests.smoke.runs import assert_same_weights, metrics
from ttc.losses import METHODS, settings_of

DATA: dict[str, tuple[object, ...]] = {
    "digits": (),
    "fashion": (
        *("--dataset", "fashion", "--data-root", FASHION_ROOT, "--image-size", 20, "--train-samples", 640),
        *("--classes", "0,1,2,5,9", "3,4,6,7,8", "--class-ratios", 0.97, 0.03),
    ),
}
TERMS = {"objective": 0.75, "instance": 0.25, "cross_entropy": 0.5, "prototype": 2.0}
SHORT = ("--epochs", 2, "--batch-size", 64, "--log-every-steps", 1, "--metrics-every-epochs", 0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_trained_killed_continued_and_probed(method: str, data: str, processes: int, tmp_path: Path) -> None:
    if data == "fashion" and not FASHION_ROOT.is_dir():
        pytest.skip("Fashion-MNIST is not here: install dataset-fashion-mnist or set TTC_FASHION_ROOT")
    words = ("--method", method, *DATA[data], *SHORT)
    if "warmup_epochs" in settings_of(method):  # so that the second epoch has the sub-classes
        words = (*words, "--method-settings", "warmup_epochs=1", "every=1")
    run_ranks(processes, "pretrain", *words, "--output", "whole", folder=tmp_path)
    step = 1 + int(torch.randint(15, (), generator=torch.Generator().manual_seed(list(METHODS).index(method))))
    running = start_ranks(processes, "pretrain", *words, "--output", "killed", folder=tmp_path)
    log = tmp_path / "killed" / "metrics.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < step:
        assert running[0].process.exitcode is None, f"ended before step {step}"
        time.sleep(0.002)
    for each in running:
        each.process.kill()
        each.process.join()
    run_ranks(processes, "pretrain", *words, "--output", "killed", folder=tmp_path)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert [line["step"] for line in metrics(tmp_path / "killed")] == [
        line["step"] for line in metrics(tmp_path / "whole")
    ]
    probes = ("--probes", "minority", "--layers", "encoder", "--probe-seeds", 1, "--bootstrap", 50)
    probed = run("linear_eval", "--checkpoint", "killed/checkpoints/last.pt", *probes, folder=tmp_path)
    assert probed.code == 0, probed.stderr
    assert 0 <= json.loads(probed.stdout)["probes"]["encoder"]["minority"]["auroc"]["mean"] <= 1


def test_terms_weights_and_gradients_are_logged_apart(tmp_path: Path) -> None:
    words = ("--method", "supmin", "--ce-weight", 0.5, "--instance-weight", 0.25, "--prototype-weight", 2)
    (told,) = run_ranks(1, "pretrain", *words, *SHORT, "--epochs", 1, "--output", "run", folder=tmp_path)
    assert "loss = 0.75 objective + 0.25 instance + 0.5 cross_entropy + 2 prototype" in told.stderr
    for line in metrics(tmp_path / "run"):
        parts = [weight * line[f"train/{name}"] for name, weight in TERMS.items()]
        assert line["train/loss"] == pytest.approx(sum(parts), rel=1e-5)
        # Where every row has its margin, the prototypes pull nothing.
        assert all(line[f"train/gradient_{name}"] > 0 for name in TERMS if name != "prototype" or line["step"] == 1)


def test_one_class_against_the_rest(tmp_path: Path) -> None:
    words = ("--one-vs-rest", 8, "--epochs", 1, "--batch-size", 64, "--metrics-every-epochs", 0, "--output", "run")
    run_ranks(1, "pretrain", *words, folder=tmp_path)
    rows = [line.split(",") for line in (tmp_path / "run" / "split.csv").read_text().splitlines()]
    assert {row[rows[0].index("label")] for row in rows[1:]} == {"0", "1"}
    refused = run("pretrain", "--one-vs-rest", 11, "--output", "other", folder=tmp_path)
    assert refused.code == 1
    assert "11" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_supmin_takes_several_minority_classes(tmp_path: Path) -> None:
    words = ("--classes", "0,1,2,3", "4,5", "6,7", "--class-ratios", 0.8, 0.1, 0.1, "--minority-class", 1, 2)
    short = ("--epochs", 1, "--batch-size", 64)
    run_ranks(1, "pretrain", *words, *short, "--method", "supmin", "--output", "run", folder=tmp_path)
    refused = run("pretrain", *words[:-1], 0, "--method", "supmin", "--output", "other", folder=tmp_path)
    assert refused.code == 1
    assert "--minority-class 0 is the largest class" in refused.stderr
