"""What the rules for budgets rest on: pairs of runs one change apart, and the page that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas
import pytest

from study import budget as study
from tests.processes import ROOT
from ttc.results.ledger_lines import COLUMNS, from_rows
from ttc.training import budget as rules

LEDGER = ROOT / "docs" / "results" / "study-budget-ledger.csv"


def lines(folder: str, test: float, validation: float) -> list[dict[str, object]]:
    shared = {**dict.fromkeys(COLUMNS, ""), "folder": folder, "run": folder, "seed": 0, "low": None, "high": None}
    return [
        {**shared, "metric": study.TEST, "value": test, "n": 156, "rests_on": "11 positives of 9 patients: rough"},
        {**shared, "metric": study.VALIDATION, "value": validation, "n": 78},
        {**shared, "metric": "train/loss", "value": None, "n": None},
    ]


@pytest.fixture
def runs(tmp_path: Path) -> pandas.DataFrame:
    values = {
        "xray/supmin-shuffle-crop0.2-epochs50-seed0": (0.5, 0.5),
        "xray/supmin-shuffle-crop0.2-epochs200-seed0": (0.6, 0.55),
        "xray/supmin-shuffle-crop0.6-epochs200-seed0": (0.7, 0.5),
        "xray/supmin-shuffle-crop0.2-epochs750-seed0": (0.65, 0.7),
        "xray/supmin-balanced-crop0.2-epochs200-seed0": (0.62, 0.56),
        "xray/weighted-ce-shuffle-crop0.2-epochs50-seed0": (0.8, 0.8),
        "xray/weighted-ce-shuffle-crop0.2-epochs200-seed0": (0.84, 0.7),
        "xray/weighted-ce-shuffle-crop0.6-epochs50-seed0": (0.9, 0.9),
    }
    ledger = from_rows([line for folder, pair in values.items() for line in lines(folder, *pair)])
    ledger.to_csv(tmp_path / "ledger.csv", index=False)
    return study.read(tmp_path / "ledger.csv")


@pytest.mark.parametrize(
    ("change", "test", "validation", "pairs"),
    [
        (("steps", "100", "400"), (10 + 4) / 2, (5 - 10) / 2, 2),
        (("steps", "400", "1500"), 5, 15, 1),
        (("crop", "0.2", "0.6"), 10, -5, 1),  # not the pair of 100 steps
        (("sampler", "shuffle", "balanced"), 2, 1, 1),
    ],
)
def test_a_change_is_the_mean_over_pairs_that_differ_in_nothing_else(
    runs: pandas.DataFrame, change: study.Change, test: float, validation: float, pairs: int
) -> None:
    differences = study.changes(runs, change, "xray")
    assert len(differences) == pairs
    assert differences.mean().tolist() == pytest.approx([test, validation])
    assert study.changes(runs, change, "cells").empty


def test_rows_and_positives(runs: pandas.DataFrame) -> None:
    table = study.rows(runs, "xray").splitlines()
    assert table[0] == "156 test images, 11 positives of 9 patients:"
    assert table[4] == "| 100 | shuffle | 80.0 (80.0) | 90.0 (90.0) | 50.0 (50.0) | - |"
    assert table[5] == "| 400 | shuffle | 84.0 (70.0) | - | 60.0 (55.0) | 70.0 (50.0) |"
    assert table[6] == "| 400 | balanced | - | - | 62.0 (56.0) | - |"
    assert study.rows(runs, "cells") == "Not measured yet.\n"


def test_the_page_is_what_its_ledger_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "budget.md").read_text()
    (tmp_path / "budget.md").write_text(page)
    monkeypatch.setattr(sys, "argv", ["study/budget.py", "--page", str(tmp_path / "budget.md")])
    assert study.main() == 0
    assert (tmp_path / "budget.md").read_text() == page, "stale; run python study/budget.py"
    low, high = (f"{100 * share:g}" for share in rules.CROPS)
    for rule in (f"{rules.STEPS:,} steps", f"{rules.MOST_EPOCHS} epochs", f"{low} to {high} % of the area"):
        assert rule in page
    chosen = rules.budget(train=546, side=64, gray=True, gpu=False, cores=2)
    for name, reason in chosen.reasons.items():
        assert f"--{name.replace('_', '-')} " in page
        assert f": {reason}\n" in page


def test_what_warnings_and_reasons_say_was_measured() -> None:
    measured = study.read(LEDGER)
    for gain, (few, many) in zip(rules.GAINS, (("100", "400"), ("400", str(rules.STEPS))), strict=True):
        assert round(study.changes(measured, ("steps", few, many), "breast").mean()[study.TEST]) == gain
    lost = study.changes(measured, ("steps", "400", str(rules.STEPS)), "xray").mean()
    assert round(-lost[study.TEST]) == rules.LOSS
    for task in ("breast", "xray"):  # on which milder crops do not win on validation images, nor clearly on test
        assert study.changes(measured, ("crop", "0.2", "0.6"), task).mean()[study.VALIDATION] < 0


def test_every_line_of_the_ledger_is_planned() -> None:
    measured = study.read(LEDGER)
    assert not measured.duplicated(["task", "method", "sampler", "crop", "steps"]).any()
    names = study.ledger_lines.from_csv(LEDGER)["folder"]
    assert set(names) <= set(study.planned())
