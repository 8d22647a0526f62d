"""scripts/quickstart.sh itself, on this interpreter: its table and its figure."""

from __future__ import annotations

import csv
import json
import subprocess
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


@pytest.mark.parametrize(
    "rows", [pytest.param(("supproto-balanced",), id="one row"), pytest.param((), id="all", marks=pytest.mark.slow)]
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
    assert len(table) == len(names)
    for row in table:
        assert [line for line in done.stdout.splitlines() if line.startswith(f"{row['run']}  ")], done.stdout
    assert {name.removesuffix("-balanced") for name in names} == {row["run"].split()[0] for row in table}


@pytest.mark.slow
def test_a_row_that_fails_is_named(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "supmin", flags="--epochs none")
    assert done.returncode == 1
    assert "failed: supmin" in done.stderr
    assert "'none' is not a whole number" in done.stderr
