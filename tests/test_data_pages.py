"""The pages about data tell the truth: their commands run as they stand, on drawn images."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

import pretrain
from scripts import check_dataset
from tests.processes import ROOT, environment_of_this_python
from ttc.datasets import DATASETS

DATA, OWN = ((ROOT / "docs" / name).read_text() for name in ("data.md", "own-data.md"))
PARSERS = {"pretrain.py": pretrain.build_parser, "scripts/check_dataset.py": check_dataset.build_parser}


def blocks(page: str) -> list[str]:
    return re.findall(r"```\n(.*?)```", page, re.DOTALL)


def follow(folder: Path, *commands: str) -> None:
    """Run commands as in a clone of the project, one after the other, and stop at the first that fails."""
    for name in ("scripts", *(path.name for pattern in ("*.py", "requirements*.txt") for path in ROOT.glob(pattern))):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    environment = environment_of_this_python(folder / "venv")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env={**environment, "PATH": path, "XDG_CACHE_HOME": str(folder / "xdg"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_all_commands_are_understood() -> None:
    seen = 0
    for line in re.findall(r"^`?(python [^`\n]+)`?$", DATA + OWN, re.MULTILINE):
        words = shlex.split(line)
        if words[1] in PARSERS and not any(word.startswith(("@", "$")) for word in words):
            PARSERS[words[1]]().parse(words[2:])
            seen += 1
    assert seen >= 8


def test_every_data_set_has_its_place() -> None:
    for name in DATASETS:
        assert f"`{name}`" in DATA or (name.endswith("mnist") and "other 2-D MedMNIST sets" in DATA), name


@pytest.mark.slow
def test_a_data_set_can_be_tried_without_its_data(tmp_path: Path) -> None:
    follow(tmp_path, *blocks(DATA)[:1])


SHORT = "--steps 3 --image-size 16 --encoder convnet-w8 --seeds 1 --skip-finetuning --num-workers 0"


@pytest.mark.slow
def test_ones_own_images_become_a_table_and_a_model(tmp_path: Path) -> None:
    """Every command of the page, the first one shortened; what it writes shortens the others."""
    (sample,) = re.findall(r"`(python scripts/make_sample_data.py [^`]+)`", OWN)
    commands = [line for block in blocks(OWN) for line in block.splitlines() if line.startswith(("python", "bash"))]
    assert [shlex.split(line)[1] for line in commands] == [
        *("scripts/from_table.sh", "scripts/check_dataset.py", "pretrain.py", "pretrain.py", "linear_eval.py"),
        *("finetune.py", "compute_metrics.py", "scripts/make_manifest.py", "scripts/run_manifest.sh"),
        *("scripts/collect_results.py", "scripts/report.py", "scripts/predict.py", "scripts/evaluate.py"),
    ]
    short = {
        "scripts/from_table.sh": lambda line: f"{line} {SHORT}",
        "finetune.py": lambda line: f"{line} --epochs 1",
        # The recipe is looked for in the project, which is elsewhere here.
        "scripts/make_manifest.py": lambda line: line.replace("--recipes ", '--recipes "$PWD"/').replace(
            "supmin supproto", "supmin"
        ),
    }
    commands = [short.get(shlex.split(line)[1], str)(line) for line in commands]
    follow(tmp_path, sample.replace("--per-class 200", "--per-class 40"), *commands)
    for name in ("mine/report.html", "mine/model/checkpoints/last.pt", "more/report.html", "new.csv"):
        assert (tmp_path / "runs" / name).is_file(), name
    table = (tmp_path / "runs" / "mine" / "table.md").read_text()
    assert "| joint-balanced |" in table
    assert "supmin balanced" in (tmp_path / "runs" / "more" / "table.md").read_text()


def test_what_choosing_says_of_other_images_is_in_the_ledger() -> None:
    """The table of its section, in the order of the ledger's groups: ultrasound, X-rays, blood cells."""
    page = (ROOT / "docs" / "choosing.md").read_text()
    lines = pandas.read_csv(ROOT / "docs" / "results" / "own-sets-ledger.csv")
    for words, group, metric in (
        ("breast ultrasound", "breastmnist", "auroc"),
        ("chest X-rays, by patient", "hannover/table.csv, 5 folds", "auroc_mean_of_folds"),
        ("blood cells, by picture", "data/bccd_cells32.npz, 5 folds", "auroc_mean_of_folds"),
    ):
        (row,) = re.findall(rf"^\| {words}.*\|$", page, re.MULTILINE)
        of_group = lines[lines["group"] == group]
        means = of_group.groupby(["run", "metric"])["value"].mean().mul(100).round(1)
        rows = ("joint-balanced", "weighted-ce balanced", "untrained")
        expected = [*(means[name, f"encoder/all/{metric}"] for name in rows), means["untrained", f"floor/all/{metric}"]]
        assert [float(cell) for cell in row.split("|")[2:6]] == expected
