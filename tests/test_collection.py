"""What the default command collects: no folder of tests can vanish from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT, environment_of_this_python
from tests.syntax import none


def test_the_default_command_collects_every_file_of_tests(tmp_path: Path) -> None:
    """Files with slow tests only count as well: they run with --all, which collects in the same way."""
    list_of_files = tmp_path / "collected"
    words = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "tests.collected_files"]
    environment = environment_of_this_python(tmp_path / "venv") | {"TTC_COLLECTED": str(list_of_files)}
    # This process may itself be a worker of pytest.
    environment = {name: value for name, value in environment.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        ["bash", "scripts/test.sh", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout[-2000:] + done.stderr
    collected = {Path(line) for line in list_of_files.read_text().splitlines()}
    files = set((ROOT / "tests").rglob("test_*.py"))
    assert files
    none(f"{path.relative_to(ROOT)} is not collected by scripts/test.sh" for path in sorted(files - collected))
