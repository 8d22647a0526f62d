"""finetune.py as a user calls it: what moves and what does not, resume, several processes, early stop, bad input."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.processes import HANGS, ROOT, Result, Running, free_port, run
from tests.smoke.runs import arguments, metrics, wait_for_lines
from ttc.models.pretrained import Pretrained, embed_shared, load_pretrained, own_classifier
from ttc.run import checkpoint
from ttc.training.finetuning import build_classifier, build_network

LONG = ("--epochs", 4, "--linear-epochs", 1, "--save-every-epochs", 1, "--warmup-epochs", 1)
FAST = ("--bootstrap", 20, "--log-every-steps", 1)


def finetune(pretrained: Path, folder: Path, *words: object) -> Result:
    words = ("--checkpoint", pretrained / "checkpoints" / "last.pt", "--output", folder / "out", *FAST, *words)
    return run("finetune", *words, folder=folder)


def weights(path: Path, kind: str = "finetune") -> dict[str, Tensor]:
    state = checkpoint.load(path, kind)
    objective = {f"objective.{name}": value for name, value in state["objective"].items()}
    return {**state["encoder"], **objective} if kind == "finetune" else dict(state["encoder"])


def moved(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    """Return the parameters and buffers of the encoder that differ."""
    return {name for name, value in first.items() if not torch.equal(value, second[name])}


def predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def start(pretrained_run: Path) -> dict[str, Tensor]:
    return weights(pretrained_run / "checkpoints" / "last.pt", "pretrain")


@pytest.fixture(scope="module")
def finetuned(pretrained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result folder of a linear epoch and three full ones, uninterrupted."""
    folder = tmp_path_factory.mktemp("finetuned")
    result = finetune(pretrained_run, folder, *LONG)
    assert result.code == 0, result.stderr
    (folder / "stdout").write_text(result.stdout)
    return folder / "out"


# A finished run.


def test_every_part_of_the_encoder_moves_after_the_linear_phase(finetuned: Path, start: dict[str, Tensor]) -> None:
    after_linear = weights(finetuned / "checkpoints" / "epoch_0001.pt")
    assert moved(start, after_linear) == set()
    assert moved(start, weights(finetuned / "checkpoints" / "last.pt")) == start.keys()
    rates = [line["train/lr"] for line in metrics(finetuned) if "train/lr" in line]
    assert rates[0] == rates[8] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.01)


def test_the_result_has_the_form_of_a_probe_and_matches_the_predictions(finetuned: Path, pretrained_run: Path) -> None:
    from sklearn.metrics import roc_auc_score

    result = json.loads((finetuned.parent / "stdout").read_text())
    assert json.loads((finetuned / "result.json").read_text()) == result
    assert (result["kind"], result["method"], result["loss"]) == ("finetune", "supproto", "weighted-ce")
    assert (result["epochs"], result["steps"], result["test_samples"]) == (4, 16, 500)
    found = result["probes"]["own"]["classifier"]
    assert found["train_samples"] == 597
    test = [row for row in predictions(finetuned) if row["split"] == "test"]
    auroc = roc_auc_score([int(row["label"]) for row in test], [float(row["score"]) for row in test])
    assert found["auroc"]["mean"] == pytest.approx(auroc, abs=1e-12)
    with (pretrained_run / "split.csv").open() as file:
        wanted = {row["id"]: row["label"] for row in csv.DictReader(file) if row["split"] in ("val", "test")}
    assert {row["id"]: row["label"] for row in predictions(finetuned)} == wanted
    assert len(predictions(finetuned)) == len(wanted)
    assert {path.name for path in finetuned.iterdir() if path.suffix not in (".png", ".pdf")} - {".lock"} == {
        *("args.json", "env.json", "log.txt", "metrics.jsonl", "tb", "checkpoints"),
        *("predictions.csv", "result.json", "report_card.md"),
    }


def test_validation_chose_the_epoch(finetuned: Path) -> None:
    result = json.loads((finetuned / "result.json").read_text())
    scores = [line["val/auroc"] for line in metrics(finetuned) if "val/auroc" in line]
    assert len(scores) == 4
    assert result["best_epoch"] == 1 + scores.index(max(scores))
    best = weights(finetuned / "checkpoints" / "best.pt")
    chosen = weights(finetuned / "checkpoints" / f"epoch_{result['best_epoch']:04d}.pt")
    assert moved(best, chosen) == set()


def test_the_best_checkpoint_predicts_the_same_again(finetuned: Path) -> None:
    loaded = load_pretrained(str(finetuned / "checkpoints" / "best.pt"), None, 0, torch.device("cpu"), kind="finetune")
    rows = loaded.dataset.indices("test")
    features, _ = embed_shared(loaded.network, loaded.dataset, loaded.views, rows, views=0)
    again = own_classifier(loaded)(features[:, 0])[:, 1]
    scores = {row["id"]: float(row["score"]) for row in predictions(finetuned)}
    assert [scores[loaded.dataset.ids[row]] for row in rows.tolist()] == pytest.approx(again.tolist(), abs=1e-6)


def test_a_finished_run_is_left_alone_and_another_one_refused(finetuned: Path, pretrained_run: Path) -> None:
    again = finetune(pretrained_run, finetuned.parent, *LONG)
    assert again.code == 0
    assert "nothing to do" in again.stderr
    assert json.loads(again.stdout)["kind"] == "finetune"
    other = finetune(pretrained_run, finetuned.parent, *LONG, "--lr", 0.5)
    assert other.code == 1
    assert "holds another run: --lr (0.1 there, 0.5 now)" in other.stderr


# What stands still.


def test_a_frozen_encoder_keeps_every_parameter_and_buffer(
    pretrained_run: Path, start: dict[str, Tensor], tmp_path: Path
) -> None:
    words = ("--freeze-encoder", "--epochs", 2, "--optimizer", "adamw", "--weight-decay", 0.5, "--lr", 0.01)
    result = finetune(pretrained_run, tmp_path, *words)
    assert result.code == 0, result.stderr
    after = weights(tmp_path / "out" / "checkpoints" / "last.pt")
    assert any("running_mean" in name for name in start)
    assert moved(start, after) == set()
    head, _ = build_classifier("weighted-ce", loaded(pretrained_run).description.class_counts, 32, None, 0)
    assert not torch.equal(head.state_dict()["head.weight"], after["objective.head.weight"])
    # In eval mode BatchNorm knows no batch: in micro-batches the head learns the same.
    (tmp_path / "pieces").mkdir()
    pieces = finetune(pretrained_run, tmp_path / "pieces", *words, "--micro-batch-size", 32)
    assert pieces.code == 0, pieces.stderr
    assert "micro-batches of 32" in pieces.stderr
    again = weights(tmp_path / "pieces" / "out" / "checkpoints" / "last.pt")
    torch.testing.assert_close(again["objective.head.weight"], after["objective.head.weight"], rtol=1e-5, atol=1e-6)


def test_layers_up_to_the_named_one_stand_still(pretrained_run: Path, start: dict[str, Tensor], tmp_path: Path) -> None:
    result = finetune(pretrained_run, tmp_path, "--freeze-until", "layers.4", "--epochs", 1)
    assert result.code == 0, result.stderr
    still = start.keys() - moved(start, weights(tmp_path / "out" / "checkpoints" / "last.pt"))
    assert still == {name for name in start if int(name.split(".")[1]) <= 4}


# Interruptions.


def test_a_killed_run_ends_as_an_uninterrupted_one(finetuned: Path, pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", *FAST, *LONG)
    for lines in (7, 16):
        running = Running("finetune", *words, folder=tmp_path)
        wait_for_lines(tmp_path / "out" / "metrics.jsonl", lines, running)
        running.process.kill()
        running.process.join()
    done = run("finetune", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    for name in ("last.pt", "best.pt"):
        expected, found = (weights(folder / "checkpoints" / name) for folder in (finetuned, tmp_path / "out"))
        assert moved(expected, found) == set()
    assert metrics(tmp_path / "out") == metrics(finetuned)
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()


def test_a_request_to_stop_saves_and_the_same_command_continues(
    finetuned: Path, pretrained_run: Path, tmp_path: Path
) -> None:
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", *FAST, *LONG)
    running = Running("finetune", *words, folder=tmp_path)
    wait_for_lines(tmp_path / "out" / "metrics.jsonl", 7, running)
    assert running.process.pid is not None
    os.kill(running.process.pid, signal.SIGTERM)
    stopped = running.wait()
    assert stopped.code == 75, stopped.stderr
    assert not (tmp_path / "out" / "result.json").exists()
    assert run("finetune", *words, folder=tmp_path).code == 0
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (finetuned / "predictions.csv").read_bytes()


# Several processes, early stop, the baseline.


@pytest.mark.slow  # in short: tests/ranks/test_flags.py
def test_two_processes_do_what_one_does(finetuned: Path, pretrained_run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--output", "out", *FAST, *LONG)
    done = subprocess.run(
        [*command, str(ROOT / "finetune.py"), *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    one, two = metrics(finetuned), metrics(tmp_path / "out")
    assert [line.keys() for line in one] == [line.keys() for line in two]
    assert two[0]["train/loss"] == pytest.approx(one[0]["train/loss"], abs=1e-6)
    expected, found = predictions(finetuned), predictions(tmp_path / "out")
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [float(row["score"]) for row in found] == pytest.approx([float(row["score"]) for row in expected], abs=1e-3)


def test_without_progress_the_patience_ends_the_run(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--epochs", 30, "--linear-epochs", 3, "--patience", 2, "--lr", 1e-12, "--batch-sampler", "balanced")
    result = finetune(pretrained_run, tmp_path, *words)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    # The scores never change, so that the first epoch stays the best; the patience counts after the linear phase.
    assert (found["best_epoch"], found["epochs"], found["loss"]) == (1, 5, "ce")
    assert arguments(tmp_path / "out")["loss"] == {"value": "ce", "source": "derived"}


def loaded(pretrained_run: Path) -> Pretrained:
    return load_pretrained(str(pretrained_run / "checkpoints" / "last.pt"), None, 0, torch.device("cpu"))


def test_from_scratch_differs_in_the_first_weights_only(pretrained_run: Path, tmp_path: Path) -> None:
    for name, words in (("a", ()), ("b", ("--from-scratch",))):
        (tmp_path / name).mkdir()
        done = finetune(pretrained_run, tmp_path / name, "--epochs", 2, "--encoder-lr", 0.02, *words)
        assert done.code == 0, done.stderr
    first, second = (metrics(tmp_path / name / "out") for name in "ab")
    assert [line.keys() for line in first] == [line.keys() for line in second]
    for key in ("step", "epoch", "images", "train/lr"):
        assert [line.get(key) for line in first] == [line.get(key) for line in second]
    given, other = (arguments(tmp_path / name / "out") for name in "ab")
    assert {flag for flag in given if given[flag] != other[flag]} == {"from_scratch", "output"}
    run = loaded(pretrained_run)
    networks = []
    for scratch in (False, True, True):
        torch.manual_seed(7)
        network = build_network(run, from_scratch=scratch, freeze_until=None, device=torch.device("cpu"))
        networks.append(network.state_dict())
        after = torch.rand(1)
    pretrained, *scratch_twice = networks
    assert torch.equal(scratch_twice[0]["encoder.layers.0.weight"], scratch_twice[1]["encoder.layers.0.weight"])
    assert not torch.equal(pretrained["encoder.layers.0.weight"], scratch_twice[0]["encoder.layers.0.weight"])
    torch.manual_seed(7)
    build_network(run, from_scratch=False, freeze_until=None, device=torch.device("cpu"))
    assert torch.equal(torch.rand(1), after)


def test_a_dry_run_writes_nothing(pretrained_run: Path, tmp_path: Path) -> None:
    result = finetune(pretrained_run, tmp_path, "--dry-run")
    assert result.code == 0
    assert "learning rates: head 0.1, encoder 0.01" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_variants_train(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--loss", "focal", "--class-weights", 1, 3, "--precision", "bf16", "--clip-gradient-norm", 1)
    more = ("--minority-cutmix", 0.4, "--augmentation", "medical", "--select-by", "loss", "--optimizer", "adam")
    result = finetune(pretrained_run, tmp_path, *words, *more, "--lr", 0.001, "--epochs", 1, "--micro-batch-size", 64)
    assert result.code == 0, result.stderr
    state = checkpoint.load(tmp_path / "out" / "checkpoints" / "best.pt", "finetune")
    assert state["objective"]["class_weights_K"].tolist() == [0.25, 0.75]
    assert state["description"]["augmentation"]["scale"] == (0.2, 1.0)


ERRORS = {
    "both freezes": (("--freeze-encoder", "--freeze-until", "layers.0"), 2, "--freeze-until has no effect"),
    "rate of a frozen encoder": (("--freeze-encoder", "--encoder-lr", 0.1), 2, "--encoder-lr has no effect"),
    "linear for ever": (("--epochs", 3, "--linear-epochs", 3), 2, "--linear-epochs 3 leaves no epoch of 3"),
    "weights without use": (("--loss", "ce", "--class-weights", 1, 2), 2, "--class-weights has no effect with --loss"),
    "three weights": (("--class-weights", 1, 2, 3), 1, "--class-weights has 3 values for 2 classes"),
    "no such layer": (("--freeze-until", "layer9"), 1, "--freeze-until layer9 is no layer with weights; choose one of"),
    "last layer": (("--freeze-until", "layers.13"), 1, "--freeze-until layers.13 freezes the whole encoder"),
    "batch above the data": (("--batch-size", 5000), 1, "--batch-size 5000"),
    "no such positive class": (("--positive-class", 7), 1, "--positive-class 7"),
    "no epochs": (("--epochs", 0), 2, "--epochs"),
    "unknown loss": (("--loss", "supcon"), 2, "--loss"),
    "checkpoint": (("--checkpoint", "/no/such.pt"), 1, "--checkpoint /no/such.pt"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_users_errors_are_one_line(name: str, pretrained_run: Path, tmp_path: Path) -> None:
    words, code, part = ERRORS[name]
    result = finetune(pretrained_run, tmp_path, *words)
    assert result.code == code, result.stderr
    assert part in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stdout == ""


def test_its_own_checkpoint_is_refused_as_a_start(finetuned: Path, tmp_path: Path) -> None:
    result = run("finetune", "--checkpoint", finetuned / "checkpoints" / "best.pt", "--output", "x", folder=tmp_path)
    assert result.code == 1
    assert "is of kind 'finetune', not 'pretrain'" in result.stderr
