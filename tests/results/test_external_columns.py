"""What the ledger and the tables say of external sets, of patients and of calibration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.results.test_collect import arguments, collected, lines_of, make_run, write
from ttc.results import ledger_lines
from ttc.results.clinic.further_columns import all_columns
from ttc.results.tables import build_table
from ttc.run import ledger

ROUGH = "11 positives of 9 patients: rough"


def metrics(value: float, rests_on: str = "60 positives") -> dict[str, object]:
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"auroc": estimate, "balanced_accuracy": estimate, "n": 99, "intervals": {"rests_on": rests_on}}


def add_external(run: Path, name: str = "hannover", samples: int = 99, **changed: object) -> None:
    """Write what scripts/evaluate.py writes, as far as the ledger looks at it."""
    patients = {"per_group": metrics(0.5, ROUGH)}
    slope = {"calibration": {"after": {"slope": {"value": 0.8, "low": 0.5, "high": 1.1}}}}
    values: dict[str, object] = {"checkpoint": ["last.pt"], "head": [f"{run}/heads.pt"], "bootstrap": 20, **changed}
    heads = ["all"] if len(values["checkpoint"]) == 1 else [f"{run.name} all", "other all"]  # type: ignore[arg-type]
    probes = {
        "external": {head: {**metrics(0.7), **slope, **patients} for head in heads},
        "internal": {head: metrics(0.9, ROUGH) for head in heads},
        "difference": {head: {"auroc": {"value": -0.2, "low": -0.4, "high": 0.0}} for head in heads},
    }
    result = {"kind": "external", "seed": 0, "split": None, "test_samples": samples, "probes": probes}
    write(run / "external" / name / "args.json", arguments(values))
    write(run / "external" / name / "result.json", ledger.complete(result, values))


def test_external_sets_are_in_the_ledger_and_in_columns_of_their_names(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs" / f"s{seed}", seed=seed) for seed in (0, 1)]
    for run in runs:
        add_external(run)
    add_external(runs[0], "a | b")
    result = collected(tmp_path, *runs, "--output", "t")
    assert result.code == 0, result.stderr
    lines = ledger_lines.from_csv(tmp_path / "t-ledger.csv")
    by_metric = lines[lines["seed"] == 0].set_index("metric")
    assert by_metric.loc["external/hannover/all/auroc", ["value", "low", "rests_on"]].tolist() == [
        0.7, pytest.approx(0.6), "60 positives"
    ]  # fmt: skip
    difference = by_metric.loc["external/hannover/difference/all/auroc"]
    assert (difference["value"], difference["rests_on"]) == (-0.2, ROUGH), "of the rougher of both sides"
    assert by_metric.loc["external/hannover/all/per_group/auroc", "rests_on"] == ROUGH
    header = (tmp_path / "t.csv").read_text().splitlines()[0]
    titles = [column.title for column in all_columns(list(lines["metric"].unique()))]
    assert [title for title in titles if title.startswith("hannover")] == [
        f"hannover all {part}" for part in ("acc", "AUC", "diff", "slope", "group acc", "group AUC")
    ]
    assert "hannover all AUC mean" in header
    assert "a | b all AUC mean" in header
    shown = collected(tmp_path, *runs, "--columns", "hannover all AUC", "hannover all group AUC", "--output", "v")
    assert shown.code == 0, shown.stderr
    row = next(line for line in shown.stdout.splitlines() if line.startswith("supmin"))
    assert re.findall(r"\](~?)", row) == ["", "~"], "of 60 positives, and of 9 patients"
    assert f"intervals rest on {ROUGH}" in " ".join(shown.stdout.split())
    long = "the-hospital-of-a-town-with-a-long-name | in 2024"
    add_external(runs[0], long)
    wide = collected(tmp_path, *runs, "--columns", f"{long} all", "--output", "w")
    assert wide.code == 0, wide.stderr
    assert max(map(len, wide.stdout.splitlines())) <= 100
    table = [line for line in (tmp_path / "w.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    again = collected(tmp_path, "--from-csv", "t-ledger.csv", "--output", "u")
    assert again.code == 0, again.stderr
    assert (tmp_path / "u.csv").read_text() == (tmp_path / "t.csv").read_text()


def test_of_several_runs_tested_together_a_run_has_its_own_head(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    add_external(run, checkpoint=["a.pt", "b.pt"])
    names = {name for name in lines_of(run)["metric"] if name.startswith("external/")}
    assert "external/hannover/all/auroc" in names
    assert not [name for name in names if "other" in name]


@pytest.mark.parametrize(
    ("samples", "changed", "text"),
    [
        (98, {}, "has 99 samples, "),
        (99, {"bootstrap": 30}, "differ in --bootstrap of external/hannover"),
    ],
)
def test_other_sets_of_one_name_are_refused(
    samples: int, changed: dict[str, object], text: str, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    add_external(runs[0])
    add_external(runs[1], samples=samples, **changed)
    with pytest.raises(ValueError, match=text):
        lines_of(*runs)


def test_a_result_that_is_none_of_an_external_set_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    add_external(run)
    write(run / "external" / "hannover" / "result.json", {"kind": "linear_eval"})
    with pytest.raises(ValueError, match=r"hannover/result.json is no result of scripts/evaluate.py"):
        lines_of(run)


def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    lines = lines_of(make_run(tmp_path / "a"))
    old = lines.drop(columns="rests_on")
    (tmp_path / "old.csv").write_text(old.to_csv(index=False, lineterminator="\n"))
    found = ledger_lines.from_csv(tmp_path / "old.csv")
    assert set(found["rests_on"]) == {""}
    assert build_table(found).cells().equals(build_table(lines).cells())
