"""Keep the figures of the reliability tests, for docs/reliability.md (scripts/write_reliability_page.py).

A test that counted something calls `record`; with TTC_FIGURES set, a folder, the counts are written there.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.processes import ROOT

# Read when the tests start: the code that they run is that of this moment.
COMMIT = subprocess.run(
    ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
).stdout.strip()


def record(name: str, command: str, figures: Mapping[str, int | float | str]) -> None:
    """Write `NAME.json` with the counts, the command that gave them, the day and the commit."""
    folder = os.environ.get("TTC_FIGURES")
    if not folder:
        return
    entry = {"command": command, "day": time.strftime("%Y-%m-%d"), "commit": COMMIT, "figures": dict(figures)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{name}.json").write_text(json.dumps({name: entry}, indent=1) + "\n")
