"""Runs that several tests look at, the order of files, and the inputs that hypothesis tries."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import ROOT, run

# Not among the imports: tests.processes must say how many threads there are before anything imports torch.
importlib.import_module("ttc.flags")  # declares the roles by which runs are compared

# The same inputs in every run; tests/reliability/fuzzing.py tries thousands with --all.
settings.register_profile("bounded", derandomize=True, database=None, max_examples=100, deadline=None)
settings.load_profile("bounded")

LONG = (
    "scripts/test_manifest_run.py",
    "scripts/test_warm.py",
    "scripts/test_quickstart.py",
    "reliability/test_stopping.py",
    "ranks/test_flags.py",
    "test_repository.py",
    "smoke/test_pretrain.py",
    "reliability/test_ranks.py",
    "smoke/test_evaluation.py",
    "smoke/test_sample_trees.py",
    "test_readme.py",
    "reliability/test_log_steps.py",
    "reliability/test_chaos.py",
    "reliability/test_exactness.py",
    "smoke/test_finetune.py",
)
"""Files that take more than ten seconds of a processor, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that no process is left alone with one at the end."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def pretrained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run: supproto on digits, two epochs."""
    folder = tmp_path_factory.mktemp("pretrained")
    result = run("pretrain", "--method", "supproto", "--epochs", 2, "--output", folder / "run", folder=folder)
    assert result.code == 0, result.stderr
    return folder / "run"
