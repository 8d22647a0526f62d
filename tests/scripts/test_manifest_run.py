"""A manifest that really runs: killed, started again, finished; and dry runs of the lines of the paper's tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from tests.smoke.runs import metrics
from ttc.run import manifest

PATIENCE = 900.0
"""Seconds after which something that is waited for will not come, on a machine with much else to do."""
FASHION = Path("/usr/share/datasets/fashion-mnist")
# Fashion-MNIST where it is installed; long enough to be looked at, refused and killed before it ends.
WORDS, EPOCHS, STEPS_PER_EPOCH = (
    ("@scripts/recipes/fashion-mix5-99.args --train-samples 640 --batch-size 64 --encoder convnet-w8", 100, 9)
    if FASHION.is_dir()
    else ("@scripts/recipes/digits-lowhigh.args", 300, 4)
)
SWEEP = f"""\
# a good line and one that asks for a class that is not there
name,folder,pretrain,linear_eval
good,runs/good,{WORDS} --method ce --epochs {EPOCHS} --log-every-steps 1 --metrics-every-epochs 0,\
--probes minority --probe-seeds 1 --bootstrap 0 --layers encoder
bad,runs/bad,--classes 3 11,
"""
TABLES = {
    "table1": [f"{name}-{share}" for name in ("plants", "insects", "mammals") for share in (50, 95, 99)],
    "table2": ["breastmnist", "pneumoniamnist", "fracatlas", "infarction"],
}
METHODS = ("untrained", "simclr", "supcon", "supmin", "supproto", "kcl", "tsc", "bcl", "paco", "sbc", "weighted-ce")
ROOTS = {
    "table1": ["inat21"],
    "table2": [
        *("breastmnist=medmnist", "pneumoniamnist=medmnist", "fracatlas=fracatlas/FracAtlas", "infarction=ukbb"),
    ],
}


def start(path: Path, results: Path, *words: str) -> subprocess.Popen[str]:
    """Start the runner as the leader of a process group."""
    command = [sys.executable, "scripts/run_cells.py", str(path), "--output", str(results), *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def show(path: Path, results: Path) -> str:
    return run("scripts.manifest_status", path, "--output", results, folder=ROOT).stdout


@pytest.mark.slow
def test_a_killed_sweep_finishes_when_it_is_started_again(tmp_path: Path) -> None:
    path, results = tmp_path / "sweep.csv", tmp_path / "results"
    path.write_text(SWEEP)
    assert show(path, results).splitlines()[-1] == "done 0  running 0  stopped 0  failed 0  missing 2  of 2"

    running, lines = start(path, results), results / "runs" / "good" / "metrics.jsonl"
    give_up = time.monotonic() + PATIENCE
    while not lines.exists() or len(lines.read_text().splitlines()) < 20:
        assert running.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert "good  running  pretrain" in show(path, results)
    twice = run("scripts.run_cells", path, "--output", results, "--only", "good", folder=ROOT)
    assert twice.code == 1
    assert "another process is at it" in twice.stderr
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    while "running" in (shown := show(path, results)).partition("done")[0]:  # a killed step takes a moment to let go
        assert time.monotonic() < give_up
    step = metrics(results / "runs" / "good")[-1]["step"]
    assert "good  stopped  pretrain" in shown

    saved = (results / "runs" / "good" / "checkpoints" / "last.pt").exists()
    assert saved or step <= STEPS_PER_EPOCH
    again = start(path, results)
    stderr = again.communicate(timeout=PATIENCE)[1]
    assert again.returncode == 1, stderr
    assert "not done: 1 of 2" in stderr
    assert "--classes" in stderr.splitlines()[-1]
    assert ("continuing from" in (results / "cells" / "good.log").read_text()) == saved
    assert [line["step"] for line in metrics(results / "runs" / "good")] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert json.loads((results / "runs" / "good" / "linear_eval" / "result.json").read_text())["method"] == "ce"
    table = show(path, results)
    assert "bad   failed  pretrain" in table
    assert table.splitlines()[-1] == "done 1  running 0  stopped 0  failed 1  missing 0  of 2"

    log = (results / "cells" / "good.log").read_text()
    finished = run("scripts.run_cells", path, "--output", results, "--only", "g*", folder=ROOT)
    assert finished.code == 0, finished.stderr
    assert (results / "cells" / "good.log").read_text() == log, "a finished line starts nothing"
    shutil.rmtree(results / "runs" / "good" / "linear_eval")
    left = run("scripts.manifest_status", path, "--output", results, "--open-lines", folder=ROOT)
    assert left.stdout.split() == ["0", "1"]


@pytest.mark.long
def test_a_request_to_stop_reaches_the_step(tmp_path: Path) -> None:
    path, results = tmp_path / "sweep.csv", tmp_path / "results"
    path.write_text(SWEEP.replace(f"--epochs {EPOCHS}", "--epochs 2000"))
    running = start(path, results)
    lines = results / "runs" / "good" / "metrics.jsonl"
    give_up = time.monotonic() + PATIENCE
    while not lines.exists() or not lines.read_text():
        assert running.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    running.terminate()
    stderr = running.communicate(timeout=PATIENCE)[1]
    assert running.returncode == 75, stderr
    assert "stopped by SIGTERM" in (results / "cells" / "good.log").read_text()
    assert "bad: stopped" in stderr
    assert (results / "runs" / "good" / "checkpoints" / "last.pt").is_file()


@pytest.mark.slow
def test_a_dry_run_names_the_bad_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sweep.csv").write_text(SWEEP)
    ended = run("scripts.run_cells", "sweep.csv", "--output", "results", "--dry-run", folder=tmp_path)
    assert ended.code == 1
    assert "good: done" in ended.stderr
    assert "bad: failed pretrain error: --classes" in ended.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


@pytest.mark.slow
def test_a_dry_run_stops_on_request(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(["name,folder,pretrain", *(f"run{n},run{n},--seed {n}" for n in range(500))]) + "\n")
    running = start(path, tmp_path / "results", "--dry-run")
    assert running.stderr is not None
    assert running.stderr.readline().startswith("[1/500] run0: done")
    running.terminate()
    stderr = running.communicate(timeout=PATIENCE)[1]
    assert running.returncode == 75, stderr
    assert "run499: stopped  not started" in stderr
    assert "failed" not in stderr


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small trees in the official layouts."""
    folder = tmp_path_factory.mktemp("samples")
    layouts = ["--layouts", "inat21", "medmnist", "fracatlas", "ukbb"]
    made = run("scripts.make_sample_data", folder, *layouts, "--pixels", 16, "--per-class", 240, folder=ROOT)
    assert made.code == 0, made.stderr
    return folder


def plan(table: str, samples: Path, tmp_path: Path, *only: str) -> None:
    """Write the manifest of a table for the sample trees and plan lines of it."""
    places = [
        f"{name}{equals}{samples / place}" for name, equals, place in (each.rpartition("=") for each in ROOTS[table])
    ]
    small = "pretrain=--encoder convnet-w8 --image-size 16 --batch-size 8 --num-workers 0"
    words = ["--recipes", *TABLES[table], "--methods", *METHODS, "--samplers", "shuffle", "balanced", "--steps", small]
    skip = ["--skip", "*-50-supmin-*"] if table == "table1" else []
    made = run(
        *("scripts.make_manifest", *words, *skip, "--data-root", *places, "--output", tmp_path / "m.csv"), folder=ROOT
    )
    assert made.code == 0, made.stderr
    cells = manifest.read_manifest(tmp_path / "m.csv")
    per_recipe = len(METHODS) + len(METHODS) - 1
    assert len(cells) == 3 * (per_recipe * len(TABLES[table]) - (2 * 3 if skip else 0))
    for cell in manifest.choose(cells, only):
        planned = run("pretrain", *cell.steps["pretrain"], "--dry-run", folder=ROOT)
        assert planned.code == 0, f"{cell.name}: {planned.stderr}"


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_a_line_of_every_recipe_plans(table: str, samples: Path, tmp_path: Path) -> None:
    plan(table, samples, tmp_path, *(f"{recipe}-supproto-seed0" for recipe in TABLES[table]))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_all_lines_plan(table: str, samples: Path, tmp_path: Path) -> None:
    plan(table, samples, tmp_path)
