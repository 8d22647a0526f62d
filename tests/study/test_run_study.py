"""scripts/run_study.sh in a copy of the project: which runs it asks for, where it goes on, and what ends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, environment_of_this_python
from tests.study import fair_ledgers

FIRST = "platelets/untrained-lr0.25-e0-seed0"
RECORDER = """#!/bin/sh
case "$1" in
    scripts/run_cells.py) echo "$2 $(grep -c '^[^#]' "$2")" >> "{calls}" ;;
    *) exec "{python}" "$@" ;;
esac
"""
"""An interpreter that plans and collects, but trains nothing: it notes the manifest and how many lines it has."""


@pytest.mark.long
def test_each_stage_asks_for_what_the_ledger_lacks(tmp_path: Path) -> None:
    """The rates are there but for one row's, of which nothing can follow, and one run that is reported."""
    code = tmp_path / "code"
    for name in ("study", "ttc", "scripts"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("requirements*.txt"):
        shutil.copy(path, code)
    for name in ("results", "images"):
        (code / "docs" / name).mkdir(parents=True)
    for name in ("study.md", "study-tables.md"):
        shutil.copy(ROOT / "docs" / name, code / "docs")
    ledger = code / "docs" / "results" / "fair.csv"
    known = fair_ledgers.write(
        ledger, lambda run: run.task == "platelets" and run.row != "supmin" and (run.reported <= (run.name == FIRST))
    )
    environment = environment_of_this_python(tmp_path / "venv")
    recorder = RECORDER.format(python=sys.executable, calls=tmp_path / "calls")
    (tmp_path / "venv" / "bin" / "python").write_text(recorder)
    words = ["bash", "scripts/run_study.sh", "2", "platelets"]
    done = subprocess.run(words, cwd=code, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    # Rates of supmin; then nothing of it; all reported runs but the first; a line more for the columns.
    assert asked == [["runs/fair/left.csv", "5"], ["runs/fair/left.csv", str(60 - 1 + 1)]]
    assert "lengths: nothing is left to do" in done.stdout
    assert len(ledger.read_text().splitlines()) == len(known) + 1
    assert "**Not complete:**" in (code / "docs" / "study.md").read_text()
    # A manifest that cannot run ends all of it: the stages after it would have nothing to choose from.
    grid = code / "study" / "fair" / "grid.py"
    grid.write_text(grid.read_text().replace('f"{self.task}/', 'f"cells/{self.task}/'))
    refused = subprocess.run(words, cwd=code, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "must lie in the folder of the results, outside of its cells" in refused.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == len(asked)
