"""Every command of docs/evaluation.md runs: on real images where they lie beside the project, else on drawn ones."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from tests.processes import ROOT, run

REAL = ROOT.parent / "shared" / "data" / "hannover" / "table.csv"


def tables(folder: Path) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return the tables of two hospitals that share no patient."""
    if REAL.is_file():
        table = pandas.read_csv(REAL).rename(columns={"icu_ever": "label", "patient_id": "group"})
        table["path"] = [str(REAL.parent / path) for path in table["path"]]
    else:
        generator, rows = np.random.default_rng(0), []
        for image in range(160):
            group, path = image // 2, folder / f"{image}.png"
            label = int(group % 3 == 0)
            pixels = generator.integers(0, 120, (32, 32)) + 80 * label
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            rows.append({"path": str(path), "label": label, "group": f"p{group}", "sex": "mf"[group % 2]})
        table = pandas.DataFrame(rows)
    here = table["group"].isin(sorted(table["group"].unique())[::2])
    return table[here], table[~here]


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, table in zip("ab", tables(tmp_path), strict=True):
        table[["path", "label", "group", "sex"]].to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    labels = np.arange(40) % 2
    scores = pandas.DataFrame({"id": np.arange(40), "label": labels, "score": np.linspace(0, 1, 40)})
    scores.to_csv(tmp_path / "scores.csv", index=False)
    commands = [
        line for line in (ROOT / "docs" / "evaluation.md").read_text().splitlines() if line.startswith("python ")
    ]
    assert len(commands) == 11
    for command in commands:
        _, script, *words = shlex.split(command)
        if words[-1] == "runs/study/*/":
            shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "study" / "a")
            words[-1] = "runs/study/a"
        fast = ("--bootstrap", 20) if script in ("linear_eval.py", "finetune.py", "scripts/evaluate.py") else ()
        result = run(script.removesuffix(".py").replace("/", "."), *words, *fast, folder=tmp_path)
        assert result.code == 0, f"{command}\n{result.stderr}"
        rows = [line for line in result.stderr.splitlines() if "  " in line and str(tmp_path) not in line]
        long = [line for line in rows if len(line) > 100]
        assert not long, long
