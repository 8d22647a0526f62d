"""`pip install .`: the package without the scripts, with what it needs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT


@pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None,
    reason="pip and setuptools build the package",
)
@pytest.mark.long
def test_the_installed_package_is_imported_from_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools writes where it builds
    source.mkdir()
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "pretrain.py"):
        shutil.copy(ROOT / name, source)
    for name in ("ttc", "scripts", "tests/flags"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    build = [sys.executable, "-m", "pip", "wheel", *words, "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("ttc-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        needs = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: ")]
        archive.extractall(tmp_path / "site")
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ttc").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == modules
    listed = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line.removeprefix("Requires-Dist: ") for line in needs] == listed
    code = "import ttc, ttc.losses; print(ttc.__file__, ttc.losses.build_objective.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "ttc" / "__init__.py"), "build_objective"], done.stderr
