"""The folder of the losses is open: it works under another name, and takes a method of one's own in one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

LOSSES = ROOT / "ttc" / "losses"
SECTION = """
## decoupled

    t: as simclr;      d = 1 on rows of other images

Source: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, equation 6.

## ce
"""
BORROWED = """
import sys
sys.modules["ttc"] = None  # importing it is an error
import torch
from borrowed import METHODS, build_objective, reference

torch.manual_seed(0)
labels, ids = torch.tensor([0, 0, 1, 0, 1, 0]), torch.arange(6)
known = {"minority_class": 1, "class_counts": [4, 2], "schedule_steps": 8, "feature_dim": 5, "projection_dim": 4}
for name in METHODS:
    objective = build_objective(name, **known)
    z = torch.nn.functional.normalize(torch.randn(6, objective.views, 4), dim=-1).requires_grad_()
    features = torch.randn(6, objective.views, 5)
    if objective.wants_embeddings(10):
        objective.on_epoch(10, lambda: (z[:, 0].detach(), labels, ids))
    rows = features.requires_grad_() if objective.space == "features" else z
    objective(rows, labels, features=features, sample_ids=ids).backward()
    assert bool(rows.grad.abs().sum() > 0)
z = z.detach().expand(6, 2, 4) if z.shape[1] == 1 else z.detach()
torch.testing.assert_close(build_objective("supcon")(z, labels), reference.supcon(z, labels))
print(*METHODS)
"""


def python(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_folder_works_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(LOSSES, tmp_path / "borrowed", ignore=shutil.ignore_patterns("__pycache__"))
    done = python("-c", BORROWED, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("simclr supcon supmin ")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project to which a method was added: a file, an import, a section of the page."""
    folder = tmp_path_factory.mktemp("house")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("ttc", "tests", "benchmarks", "scripts", "docs/methods.md", "pyproject.toml"):
        (folder / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
        else:
            shutil.copy(ROOT / name, folder / name)
    assert len((Path(__file__).parent / "added" / "decoupled.py").read_text().splitlines()) <= 60
    shutil.copy(Path(__file__).parent / "added" / "decoupled.py", folder / "ttc" / "losses")
    replace(folder / "ttc" / "losses" / "__init__.py", ", subclass, ", ", subclass, decoupled, ")
    replace(folder / "docs" / "methods.md", "\n## ce\n", SECTION)
    return folder


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.long
def test_an_added_method_trains_and_the_plan_says_what_it_costs(house: Path) -> None:
    words = ("--method", "decoupled", "--epochs", 1, "--batch-size", 128, "--temperature", 0.2, "--output", "run")
    done = python("pretrain.py", *words, folder=house)
    assert done.returncode == 0, done.stderr
    assert "decoupled forms pair matrices: 256 x 256 rows, 0.25 MiB each" in done.stderr


@pytest.mark.slow
def test_every_test_over_the_methods_takes_an_added_method(house: Path) -> None:
    files = ("tests/losses", "tests/ranks", "tests/smoke/test_methods.py", "tests/training/test_no_waiting.py")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", "-k", "decoupled", *files, folder=house)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(done.stdout.rstrip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 20, done.stdout[-3000:]
    left_out = python("-m", "pytest", "-q", "--collect-only", "-k", "decoupled", "tests/losses", folder=house).stdout
    assert "test_no_pair_matrix" not in left_out
    assert "test_number_of_operators" not in left_out
