"""docs/reliability.md is what the script writes from the counts beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.reliability.figures import record


def test_the_page_shows_the_counts_of_the_tests() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import write_reliability_page
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    entries = json.loads((ROOT / "docs" / "reliability.json").read_text())
    assert (ROOT / "docs" / "reliability.md").read_text() == write_reliability_page.render(entries)
    kinds = {name.partition(": ")[0] for name in entries}
    assert kinds <= write_reliability_page.SECTIONS.keys()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "scripts" / "write_reliability_page.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds no figures" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_figures_are_written_only_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTC_FIGURES", raising=False)
    record("x: y", "command", {"a": 1})
    monkeypatch.setenv("TTC_FIGURES", f"{tmp_path}/figures")
    record("x: y", "command", {"a": 1})
    assert json.loads((tmp_path / "figures" / "x: y.json").read_text())["x: y"]["figures"] == {"a": 1}
