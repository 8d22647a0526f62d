"""pretrain.py as a process: run files, several ranks, methods, variants, image files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import HANGS, ROOT, free_port, run
from tests.smoke.runs import arguments, assert_same_weights, metrics, weights
from ttc.losses import METHODS

SHORT = ("--metrics-every-epochs", 0, "--batch-size", 64)


# A finished run.


def test_the_defaults_train_and_write_the_run_files(tmp_path: Path) -> None:
    """The command as users type it, in an interpreter of its own."""
    words = [sys.executable, str(ROOT / "pretrain.py"), "--epochs", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Warning" not in done.stderr
    folder = tmp_path / "runs" / "digits-supmin-seed0"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        "args.json",
        "env.json",
        "split.csv",
        "log.txt",
        "metrics.jsonl",
        "tb",
        "checkpoints",
        "result.json",
    }
    assert arguments(folder)["method"] == {"value": "supmin", "source": "default"}
    assert arguments(folder)["epochs"] == {"value": 1, "source": "command line"}
    assert arguments(folder)["encoder"] == {"value": "convnet-w8", "source": "derived"}


def test_a_finished_run_tells_what_it_did(pretrained_run: Path) -> None:
    result = json.loads((pretrained_run / "result.json").read_text())
    assert (result["kind"], result["method"], result["steps"], result["epochs"]) == ("pretrain", "supproto", 8, 2)
    lines = metrics(pretrained_run)
    assert [line["step"] for line in lines] == [1, 4, 8]
    assert all({"step", "epoch", "images", "train/loss", "train/lr"} <= line.keys() for line in lines)
    assert lines[-1]["images"] == 8 * 128
    assert len((pretrained_run / "split.csv").read_text().splitlines()) == 1 + 1797
    state = torch.load(pretrained_run / "checkpoints" / "last.pt", weights_only=True)
    assert {"encoder", "projection", "objective", "optimizer", "scaler", "step", "epoch", "rng", "args"} <= state.keys()
    assert (state["step"], state["epoch"]) == (8, 2)
    assert (pretrained_run / "checkpoints" / "epoch_0002.pt").is_file()


def test_a_finished_run_is_left_alone(pretrained_run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pretrained_run.rglob("*") if path.name not in (".lock", "tb")}
    again = run("pretrain", "--method", "supproto", "--epochs", 2, "--output", pretrained_run, folder=tmp_path)
    assert again.code == 0
    assert "nothing to do" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--method", "supproto", "--epochs", 3), "holds another run: --epochs (2 there, 3 now)"),
        (("--method", "supcon", "--epochs", 2), "holds another run: --method (supproto there, supcon now)"),
        (("--method", "supproto", "--epochs", 2, "--resume", "never"), "holds a run and --resume is never"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    words: tuple[object, ...], part: str, pretrained_run: Path, tmp_path: Path
) -> None:
    refused = run("pretrain", *words, "--output", pretrained_run, folder=tmp_path)
    assert refused.code == 1
    assert part in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_where_and_how_often_make_no_other_run(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--num-workers", 0, "--device", "cpu", "--log-every-steps", 3)
    again = run("pretrain", "--method", "supproto", "--epochs", 2, *words, "--output", pretrained_run, folder=tmp_path)
    assert again.code == 0


def test_without_epochs_the_untrained_encoder_is_saved(tmp_path: Path) -> None:
    done = run("pretrain", "--epochs", 0, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"last.pt", "epoch_0000.pt"}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run("pretrain", "--dry-run", "--output", "run", folder=tmp_path)
    assert done.code == 0
    assert "30 epochs of 4 steps" in done.stderr
    assert "rare images per batch" in done.stderr
    assert "warm-up" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# Variants.


@pytest.mark.slow  # in short: tests/ranks/test_flags.py
def test_two_processes_see_the_same_global_batch(tmp_path: Path) -> None:
    words = ["--epochs", "2", "--batch-size", "64", "--method", "supmin", "--metrics-every-epochs", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    done = subprocess.run(
        [*command, str(ROOT / "pretrain.py"), *words, "--output", "two"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    assert run("pretrain", *words, "--output", "one", folder=tmp_path).code == 0
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert two[0]["train/loss"] == pytest.approx(one[0]["train/loss"], abs=1e-5)
    assert two[-1].keys() == one[-1].keys()
    assert (tmp_path / "one" / "split.csv").read_bytes() == (tmp_path / "two" / "split.csv").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_saved(method: str, tmp_path: Path) -> None:
    done = run("pretrain", "--method", method, "--epochs", 1, *SHORT, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["method"] == method
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


VARIANTS = {
    "bf16": ("--precision", "bf16"),
    "clipped": ("--clip-gradient-norm", 0.1),
    "balanced": ("--batch-sampler", "balanced"),
    "stratified with a minimum": ("--batch-sampler", "stratified", "--min-minority-per-batch", 9),
    "adamw": ("--optimizer", "adamw", "--lr", 0.001),
    "adam without warm-up": ("--optimizer", "adam", "--lr", 0.001, "--warmup-epochs", 0),
    "three classes": ("--classes", "0,1", "2,3", "4,5,6", "--class-ratios", 0.6, 0.3, 0.1),
    "strong colours": ("--augmentation", "natural", "--jitter-strength", 2, "--crop-scale", 1, 1),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train(name: str, tmp_path: Path) -> None:
    done = run("pretrain", *VARIANTS[name], "--epochs", 1, *SHORT, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert metrics(tmp_path / "run")[-1]["train/loss"] > 0


def test_a_warm_up_without_end_is_told(tmp_path: Path) -> None:
    done = run("pretrain", "--dry-run", "--epochs", 3, "--warmup-epochs", 3, folder=tmp_path)
    assert done.code == 0
    assert "warm-up of 3 epochs: the learning rate never reaches --lr" in done.stderr


def test_a_recipe_gives_its_values_and_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.args").write_text("# a trial\n--epochs 5 --method simclr\n--lr 0.1\n")
    done = run("pretrain", "@a.args", "--epochs", 0, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    found = arguments(tmp_path / "run")
    assert found["method"] == {"value": "simclr", "source": "a.args:2"}
    assert found["lr"] == {"value": 0.1, "source": "a.args:3"}
    assert found["epochs"] == {"value": 0, "source": "command line"}


def test_a_loss_that_is_no_number_stops_the_run_with_its_batch(tmp_path: Path) -> None:
    done = run("pretrain", "--lr", 1e30, "--epochs", 3, *SHORT, "--output", "run", folder=tmp_path)
    assert done.code == 1
    assert "is not a finite number" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    report = json.loads((tmp_path / "run" / "bad_step.json").read_text())
    assert len(report["sample_ids"]) == 64
    assert len(report["feature_norms"]) == 128
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


# Image files.


def write_images(root: Path, size: int = 20) -> None:
    """Write two classes of small PNG files: 24 dark squares and 12 bright ones."""
    from PIL import Image

    made = torch.Generator().manual_seed(0)
    for name, low, count in (("dark", 0, 24), ("bright", 100, 12)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = torch.randint(low, low + 150, (size, size), generator=made, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / name / f"{index:02d}.png")


FILES = ("--dataset", "imagefolder", "--image-size", 16, "--batch-size", 8, "--epochs", 2)


def test_image_files_give_the_same_weights_for_any_number_of_workers(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for workers in (0, 2):
        words = ("--data-root", "images", "--num-workers", workers, "--output", f"run{workers}")
        done = run("pretrain", *FILES, *words, folder=tmp_path)
        assert done.code == 0, done.stderr
    assert_same_weights(tmp_path / "run0", tmp_path / "run2")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named(workers: int, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for index in range(8):  # some of them are in the training split
        broken = tmp_path / "images" / "dark" / f"{index:02d}.png"
        broken.write_bytes(broken.read_bytes()[:60])
    words = (*FILES, "--data-root", "images", "--num-workers", workers)
    stopped = run("pretrain", *words, "--output", "run", folder=tmp_path)
    assert stopped.code == 1
    assert "images/dark/0" in stopped.stderr.splitlines()[-1]
    assert "Traceback" not in stopped.stderr
    skipped = run("pretrain", *words, "--on-bad-image", "skip", "--output", "run2", folder=tmp_path)
    assert skipped.code == 0, skipped.stderr
    assert all(f"{index:02d}.png" in skipped.stderr for index in range(8))
