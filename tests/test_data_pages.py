"""The pages about data tell the truth: their commands run as they stand, on drawn images."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pretrain
from scripts import check_dataset
from tests.processes import ROOT
from ttc.datasets import DATASETS

DATA, OWN = ((ROOT / "docs" / name).read_text() for name in ("data.md", "own-data.md"))
PARSERS = {"pretrain.py": pretrain.build_parser, "scripts/check_dataset.py": check_dataset.build_parser}


def blocks(page: str) -> list[str]:
    return re.findall(r"```\n(.*?)```", page, re.DOTALL)


def follow(folder: Path, *commands: str) -> None:
    """Run commands as in a clone of the project, one after the other, and stop at the first that fails."""
    for name in ("scripts", *(path.name for path in ROOT.glob("*.py"))):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env={**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder / "xdg"), "OMP_NUM_THREADS": "1"},
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


@pytest.mark.slow
def test_ones_own_images_become_a_table(tmp_path: Path) -> None:
    (recipe,) = (block for block in blocks(OWN) if block.startswith("--dataset"))
    (tmp_path / "mine.args").write_text(recipe)
    (sample,) = re.findall(r"`(python scripts/make_sample_data.py [^`]+)`", OWN)
    commands = [block for block in blocks(OWN) if block.startswith(("python", "for"))]
    assert len(commands) == 4
    # The loop of many runs, shortened: two methods, one seed, one epoch.
    commands[-1] = (
        commands[-1].replace("0 1 2", "7").replace("supproto simclr weighted-ce", "").replace("@mine", "@short")
    )
    (tmp_path / "short.args").write_text(recipe.replace("--epochs 20", "--epochs 1"))
    follow(tmp_path, sample, *commands[:2])
    follow(tmp_path, commands[2].replace("@mine.args", "@short.args"))
    follow(tmp_path, commands[3].replace("runs/mine/*-seed*", "runs/mine/*-seed7"))
    table = (tmp_path / "runs" / "mine" / "table.md").read_text()
    assert "| supcon balanced |" in table
    assert "| supmin balanced |" in table
