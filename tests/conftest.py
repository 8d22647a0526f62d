"""Runs that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

import ttc.flags  # noqa: F401  # declares the roles by which runs are compared
from tests.processes import run


@pytest.fixture(scope="session")
def pretrained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run: supproto on digits, two epochs."""
    folder = tmp_path_factory.mktemp("pretrained")
    result = run("pretrain", "--method", "supproto", "--epochs", 2, "--output", folder / "run", folder=folder)
    assert result.code == 0, result.stderr
    return folder / "run"
