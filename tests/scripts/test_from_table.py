"""scripts/from_table.py: one command from a table to a report and a model, killed on its way, and what it refuses."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pandas
import pytest

from tests.processes import ROOT, Result, Running, run

FAST = ("--steps", 4, "--image-size", 16, "--encoder", "convnet-w8", "--folds", 2, "--jobs", 2, "--num-workers", 0)

PATIENCE = 1800.0
"""Seconds after which something that is waited for will not come, on a machine with much else to do."""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("missing.csv", "out"), 1, "DATA missing.csv is missing; name"),
        (("notes.txt", "out"), 1, "DATA notes.txt is no table (.csv), folder or arrays (.npz); name"),
        (("-", "out"), 2, "needs --dataset NAME"),
        ((".", "out", "--dataset", "digits"), 2, "go with - in the place of DATA"),
        (("-", "out", "--dataset", "digits", "--seed", 3), 2, "use --seeds N"),
        (("-", "out", "--dataset", "digits", "--folds", 2, "--seeds", 2), 2, "leave out --folds or --seeds"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    words: tuple[object, ...], code: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("")
    done = run("scripts.from_table", *words, folder=tmp_path)
    assert done.code == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def sample(folder: Path) -> Path:
    """Draw images of 40 groups of two; return their table."""
    done = run("scripts.make_sample_data", "samples", "--layouts", "csv", "--per-class", 40, folder=folder)
    assert done.code == 0, done.stderr
    path = folder / "samples" / "csv" / "table.csv"
    table = pandas.read_csv(path)
    table["patient"] = [f"p{row // 2}" for row in range(len(table))]
    table.to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_killed_half_way_it_goes_on_and_its_commands_work(tmp_path: Path) -> None:
    table, out = sample(tmp_path), tmp_path / "mine"
    words = (table, out, *FAST, "--group-column", "patient")
    killed = Running("scripts.from_table", *words, folder=tmp_path)
    give_up = time.monotonic() + PATIENCE
    while not list(out.glob("runs/*/metrics.jsonl")):  # the first run is at it
        assert killed.process.is_alive()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    killed.process.terminate()
    assert killed.wait(timeout=PATIENCE).code == 75
    assert not (out / "report.html").exists()

    done = run_long(*words, folder=tmp_path)
    assert done.code == 0, done.stderr
    for name in ("table.md", "table.tex", "table.csv", "report.html", "choices.md", "recipe.args", "manifest.csv"):
        assert (out / name).stat().st_size > 0, name
    assert "over 2 folds" in (out / "choices.md").read_text()
    for line in (out / "table.md").read_text().splitlines()[4:7]:
        assert "| 52 |" in line, line  # every image is tested once
    commands = [line for line in done.stdout.splitlines() if line.startswith("python ")]
    assert [shlex.split(line)[1] for line in commands] == ["scripts/predict.py", "scripts/evaluate.py"]
    for command in commands:
        _, script, *rest = shlex.split(command)
        pasted = run(script.removesuffix(".py").replace("/", "."), *rest, folder=ROOT)
        assert pasted.code == 0, pasted.stderr

    again = run_long(*words, folder=tmp_path)
    assert again.code == 0, again.stderr
    assert again.stdout.splitlines()[-5:] == done.stdout.splitlines()[-5:]
    other = pandas.read_csv(table)
    other["label"] = other["label"].iloc[::-1].to_numpy()
    other.to_csv(table, index=False)
    refused = run("scripts.from_table", *words, folder=tmp_path)
    assert refused.code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "choose another folder" in refused.stderr


def run_long(*words: object, folder: Path) -> Result:
    return Running("scripts.from_table", *words, folder=folder).wait(timeout=PATIENCE)
