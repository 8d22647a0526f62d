"""scripts/quickstart.sh itself, on this interpreter: its table and its figure."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, environment_of_this_python

ROWS = ("supcon", "supmin", "supproto", "simclr", "weighted-ce", "supproto-balanced", "untrained")


def quickstart(folder: Path, *rows: str, flags: str) -> subprocess.CompletedProcess[str]:
    environment = environment_of_this_python(folder / "venv") | {"TTC_QUICKSTART_FLAGS": flags}
    return subprocess.run(
        ["bash", "scripts/quickstart.sh", str(folder / "runs"), *rows],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


RECORDER = """#!/bin/sh
case "$1" in
    -c) exec "{python}" "$@" ;;
    *) printf '%s\\n' "$*" >> "{calls}" ;;
esac
"""
"""An interpreter that runs short texts, and notes which scripts it would run."""


def test_quickstart_calls_every_step_of_a_row_with_words_that_it_takes(tmp_path: Path) -> None:
    environment = environment_of_this_python(tmp_path / "venv") | {"TTC_QUICKSTART_FLAGS": "--epochs 2"}
    recorder = RECORDER.format(python=sys.executable, calls=tmp_path / "calls")
    (tmp_path / "venv" / "bin" / "python").write_text(recorder)
    words = ["bash", "scripts/quickstart.sh", str(tmp_path / "runs")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    runs = [str(tmp_path / "runs" / name) for name in ROWS]
    for run in runs:  # rows run side by side, the steps of one after another
        steps = [call for call in calls[:-2] if call[-1] == run or f"{run}/checkpoints/last.pt" in call]
        assert [call[0] for call in steps] == ["pretrain.py", "linear_eval.py", "compute_metrics.py"]
    assert [call[0] for call in calls[-2:]] == ["scripts/plot_embeddings.py", "scripts/collect_results.py"]
    assert [call[-len(runs) :] for call in calls[-2:]] == [runs, runs]
    assert len(calls) == 3 * len(runs) + 2
    for script, *flags in calls:
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        module.build_parser().parse(flags)  # ends this process at a flag that is not there


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", [pytest.param(("supproto-balanced",), id="one_row"), pytest.param((), id="seven_rows")]
)
def test_quickstart_trains_evaluates_and_prints_its_table(rows: tuple[str, ...], tmp_path: Path) -> None:
    done = quickstart(tmp_path, *rows, flags="--epochs 2")
    assert done.returncode == 0, done.stderr
    names, folder = rows or ROWS, tmp_path / "runs"
    assert (folder / "embeddings.png").read_bytes().startswith(b"\x89PNG")
    arguments = {name: json.loads((folder / name / "args.json").read_text()) for name in names}
    epochs = {name: values["epochs"]["value"] for name, values in arguments.items()}
    assert epochs == {name: 0 if name == "untrained" else 2 for name in names}
    with (folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(names) + 1  # the floor of raw pixels
    for row in table:
        assert [line for line in done.stdout.splitlines() if line.startswith(f"{row['run']}  ")], done.stdout
    assert {"floor", *(name.removesuffix("-balanced") for name in names)} == {row["run"].split()[0] for row in table}


@pytest.mark.slow
def test_a_row_that_fails_is_named(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "supmin", flags="--epochs none")
    assert done.returncode == 1
    assert "failed: supmin" in done.stderr
    assert "'none' is not a whole number" in done.stderr
