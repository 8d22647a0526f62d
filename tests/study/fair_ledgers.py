"""Ledgers of the fair study that nobody trained: every planned run, with values drawn around those of its row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas

from study.fair import ledger
from study.fair.grid import TASKS, Run
from study.fair.state import STAGES, planned

GAINS = {"untrained": -0.08, "supcon": -0.05, "supmin-balanced": 0.02, "joint-balanced": 0.03, "joint-average": 0.05}
"""Of rows, in AUROC; all others are equal but for noise."""


def line(run: Run, random: np.random.Generator) -> dict[str, object]:
    level = 0.8 + GAINS.get(run.row, 0) - 0.02 * abs(np.log(run.rate / 0.03)) * (run.row != "untrained")
    values: dict[str, object] = {"run": run.name, "commit": "0123456789abcdef"}
    for probe in ledger.PROBES:
        for metric in ledger.OF_PROBES:
            values[f"val/{probe}/{metric}"] = level + random.normal(0, 0.01)
    if run.reported:
        heads = [*ledger.PROBES, *ledger.HEADS]
        values |= {f"test/{head}/{m}": level + random.normal(0, 0.01) for head in heads for m in ledger.OF_PROBES}
        values |= {column: 100 * random.random() for column in ledger.OF_EMBEDDINGS}
        collapsed = run.row in ("untrained", "supcon") and "-9" in run.task
        values |= {
            "projection/mean_cosine/all": 0.999 if collapsed else 0.5,
            "positives": 40 + run.seed * bool(run.fold),
        }
        if run.row == "untrained":
            values |= {f"floor/{probe}/{m}": 0.6 for probe in ledger.PROBES for m in ledger.OF_PROBES}
    return values


def write(path: Path, kept: Callable[[Run], bool] = lambda run: True, seed: int = 0) -> pandas.DataFrame:
    """Write the ledger of the runs that are kept, stage by stage as the study runs, and return it as it is read."""
    random = np.random.default_rng(seed)
    lines: dict[str, dict[str, object]] = {}
    for stage in STAGES:
        known = ledger.read(path)
        for run in planned(stage, known, list(TASKS)):
            if kept(run):
                lines.setdefault(run.name, line(run, random))
        pandas.DataFrame(list(lines.values())).to_csv(path, index=False)
    return ledger.read(path)
