"""Every data set, in its official layout, from pretraining to metrics, with one and two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from scripts.make_sample_data import WRITERS, Artist
from tests.processes import ROOT, Result, free_port, run
from tests.smoke.runs import assert_same_weights, metrics
from ttc.datasets import DATASETS

SHORT = ("--epochs", 1, "--batch-size", 16, "--projection-dim", 16, "--encoder", "convnet-w8", "--num-workers", 0)
PROBE = ("--probes", "all", "--bootstrap", 0, "--layers", "encoder", "--floor", "none", "--num-workers", 0)
METRICS = ("--views", 2, "--peu-draws", 0, "--num-workers", 0)
# One of each reader in every test run, the others in the slow ones.
USUAL = ("inat21-insects", "fracatlas", "ukbb-cardiac", "octmnist", "chestmnist", "csv")
CHOICE = [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in DATASETS]
Trees = Mapping[str, tuple[object, ...]]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Write all layouts; return the flags that read each data set."""
    root = tmp_path_factory.mktemp("trees")
    found: dict[str, tuple[object, ...]] = {"digits": ("--dataset", "digits")}
    for layout, write in WRITERS.items():
        for flags in write(root / layout, Artist(24, 0), 40):
            words: list[object] = []
            for flag, value in flags.items():
                words += [flag, *value] if isinstance(value, list) else [flag, value]
            found[str(flags["--dataset"])] = tuple(words)
    return found


def image_size(name: str) -> tuple[object, ...]:
    return () if name in ("digits", "ukbb-cardiac") else ("--image-size", 20)


def two_processes(script: str, *words: object, folder: Path) -> Result:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "xdg"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(ROOT / f"{script}.py"), *map(str, words)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def train_probe_measure(words: tuple[object, ...], folder: Path, run_script: object = None) -> None:
    def call(script: str, *more: object) -> None:
        if run_script is None:
            done = run(script, *more, folder=folder, env={"XDG_CACHE_HOME": str(folder / "xdg")})
        else:
            done = two_processes(script, *more, folder=folder)
        assert done.code == 0, done.stderr

    call("pretrain", *words, *SHORT, "--output", "run")
    checkpoint = folder / "run" / "checkpoints" / "last.pt"
    call("linear_eval", "--checkpoint", checkpoint, *PROBE)
    call("compute_metrics", "--checkpoint", checkpoint, *METRICS)
    assert metrics(folder / "run")[-1]["train/loss"] > 0
    probed = json.loads((folder / "run" / "linear_eval" / "result.json").read_text())
    assert probed["test_samples"] > 0
    assert json.loads((folder / "run" / "metrics" / "metrics.json").read_text())["kind"] == "metrics"


@pytest.mark.parametrize("name", CHOICE)
def test_one_process(name: str, trees: Trees, tmp_path: Path) -> None:
    train_probe_measure((*trees[name], *image_size(name)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_two_processes(name: str, trees: Trees, tmp_path: Path) -> None:
    train_probe_measure((*trees[name], *image_size(name)), tmp_path, two_processes)


def test_the_cache_changes_nothing_but_the_time(trees: Trees, tmp_path: Path) -> None:
    words = (*trees["imagefolder"], "--image-size", 20, *SHORT)
    for mode in ("off", "ram", "disk"):
        done = run("pretrain", *words, "--cache", mode, "--cache-folder", "kept", "--output", mode, folder=tmp_path)
        assert done.code == 0, done.stderr
        assert_same_weights(tmp_path / "off", tmp_path / mode)
    # Where the images come from is not part of what a run is.
    again = run("pretrain", *words, "--output", "disk", folder=tmp_path)
    assert "holds the finished run of this command" in again.stderr


@pytest.mark.slow
def test_two_processes_share_what_one_of_them_did(trees: Trees, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(str(trees["imagefolder"][3]), root)
    (root / "common" / "0001.png").write_bytes(b"")
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 20, *SHORT, "--on-bad-image", "skip")
    for mode in ("off", "disk", "ram"):
        done = two_processes("pretrain", *words, "--cache", mode, "--output", mode, folder=tmp_path)
        assert done.code == 0, done.stderr
        assert done.stderr.count("left out image") == 1, done.stderr
        assert_same_weights(tmp_path / "off", tmp_path / mode)
    stopped = two_processes("pretrain", *words[:-2], "--cache", "disk", "--output", "stopped", folder=tmp_path)
    assert stopped.code == 1
    assert len([line for line in stopped.stderr.splitlines() if "cannot read image" in line]) == 1


ERRORS = {
    "wrong root": (("--dataset", "inat21-plants", "--data-root", "nowhere"), "has neither train nor train_mini"),
    "wrong archive": (("--dataset", "fracatlas", "--data-root", "nowhere"), "pass the folder FracAtlas"),
    "no participants": (("--dataset", "ukbb-cardiac", "--data-root", "nowhere"), "nowhere is no folder"),
    "missing species": (("--dataset", "inat21-plants", "--classes", "Fungi", "Plantae"), "has no species of Fungi"),
    "missing column": (("--dataset", "csv", "--label-column", "outcome"), "no column 'outcome'"),
    "shared patient": (("--dataset", "csv", "--data-root", "shared.csv"), "group 'p' is in two splits"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(name: str, trees: Trees, tmp_path: Path) -> None:
    words, part = ERRORS[name]
    if "--data-root" not in words:
        words = (*words, "--data-root", trees[str(words[1])][3])
    rows = [f"{number}.png,{number % 2},{('train', 'val', 'test')[number % 3]},p" for number in range(12)]
    (tmp_path / "shared.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    for number in range(1, 12):
        (tmp_path / f"{number}.png").symlink_to("0.png")
    done = run("pretrain", *words, folder=tmp_path, env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.code == 1
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
