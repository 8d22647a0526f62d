"""What a report and a model card say to those who act on a result: other data, patients, subgroups, probabilities."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.results.test_collect import write
from tests.results.test_markup import NAMES, SCRIPT, Tags
from ttc.results import ledger_lines
from ttc.results.clinic.model_card import _sections
from ttc.results.clinic.summary import sections, step_results
from ttc.results.html_report import html_report
from ttc.results.tables import build_table

FEW, MANY = "11 positives of 9 patients: rough", "60 positives"


def estimate(value: float | None, width: float = 0.1) -> dict[str, float | None]:
    if value is None:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": value, "low": value - width, "high": value + width}


def metrics(value: float, rests_on: str, part: str = "f", column: str = "sex") -> dict[str, object]:
    shares = {name: estimate(value) for name in ("sensitivity", "specificity")}
    calibration = {name: estimate(value) for name in ("brier", "log_loss", "intercept", "slope")}
    before = {name: estimate(2 * value) for name in ("brier", "log_loss", "intercept", "slope")}
    row = {"value": part, "n": 30, "positives": 4, "intervals": {"rests_on": "4 positives: rough"}}
    row |= {"auroc": estimate(value), **shares, "intercept": estimate(None)}
    gap = {"value": 0.25, "highest": part, "lowest": "m"}
    base: dict[str, object] = {
        "n": 99,
        "class_counts": [88, 11],
        "positive_class": 1,
        "intervals": {"rests_on": rests_on},
        "auroc": estimate(value),
        "operating_points": {"youden": shares},
        "calibration": {"before": before, "after": calibration},
    }
    return {
        **base,
        "net_benefit": {"own": {"0.1": {"model": estimate(0.05, 0.01), "treat_all": 0.02}}},
        "details": {"subgroups": {column: {"rows": [row], "gaps": {"auroc": gap, "sensitivity": None}}}},
        "per_group": {**base, "pool": "mean", "group_label": "any", "intervals": {"rests_on": FEW}},
    }


def make_results(run: Path, head: str = "all", name: str = "hannover", part: str = "f", column: str = "sex") -> None:
    external = {
        "external": {head: metrics(0.7, FEW, part, column)},
        "internal": {head: metrics(0.9, MANY)},
        "difference": {head: {"auroc": estimate(-0.2)}},
    }
    write(run / "external" / name / "result.json", {"kind": "external", "probes": external})
    (run / "external" / name / "report_card.md").write_text("# card\n")
    probes = {"encoder": {head: metrics(0.8, MANY)}, "projection": {head: metrics(0.1, MANY)}}
    write(run / "linear_eval" / "result.json", {"kind": "linear_eval", "probes": probes})


def test_sections_hold_what_results_hold(tmp_path: Path) -> None:
    make_results(tmp_path / "a")
    made = {section.title: section for section in sections([("a", tmp_path / "a", step_results(tmp_path / "a"))])}
    assert list(made) == ["Other data", "Patients", "Subgroups", "Calibration", "Net benefit", "Report cards"]
    rows = {row[2]: row[3:] for row in made["Other data"].rows}
    assert rows["AUROC %"] == ["90.0 [80.0, 100.0]", "70.0 [60.0, 80.0]~", "-20.0 [-30.0, -10.0]~"]
    assert rows["specificity % (Youden)"] == ["90.0 [80.0, 100.0]", "70.0 [60.0, 80.0]", "-"]
    assert made["Other data"].notes == [f"~ external intervals rest on {FEW} (a, hannover: all)"]
    assert [row[1:6] for row in made["Patients"].rows] == [
        [name, "mean, positive if any", "99", "11", number]
        for name, number in (("probe all", "80.0 [70.0, 90.0]~"), ("hannover: all", "70.0 [60.0, 80.0]~"))
    ]
    subgroup, gap = made["Subgroups"].rows[2:]
    assert subgroup[2:] == ["sex = f", "30", "4", "70.0 [60.0, 80.0]~", "70.0 [60.0, 80.0]~", "70.0 [60.0, 80.0]", "-"]
    assert gap[2:] == ["sex: largest gap", "", "", "25.0 (f - m)", "-", "-", "-"]
    before, after = made["Calibration"].rows[:2]
    assert (before[2:4], after[2:4]) == (["before", "1.600 [1.500, 1.700]"], ["after", "0.800 [0.700, 0.900]"])
    assert made["Net benefit"].rows[0][1:] == ["probe all", "own", "0.1", "0.050 [0.040, 0.060]", "0.020"]


def test_a_run_of_an_earlier_version_has_no_sections(tmp_path: Path) -> None:
    old = {"balanced_accuracy": {"mean": 0.8, "low": None, "high": None}, "n": 40}
    write(tmp_path / "linear_eval" / "result.json", {"kind": "linear_eval", "probes": {"encoder": {"minority": old}}})
    assert sections([("a", tmp_path, step_results(tmp_path))]) == []
    assert list(_sections(tmp_path)) == []


def test_names_stay_names_and_links_lead_to_the_cards(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a ' b"
    # A folder's name has no slash.
    make_results(run, head=SCRIPT, name="x<img src=y onerror=z>|y", part=NAMES[1], column=SCRIPT)
    made = sections([(SCRIPT, run, step_results(run))])
    table = build_table(ledger_lines.from_rows([]))
    text = html_report("t", {"Results": table}, [], {}, {}, sections=made, folder=tmp_path / "pages")
    page = Tags()
    page.feed(text)
    page.close()
    assert not page.tags & {"script", "img", "iframe"}
    assert page.attributes <= {"class", "lang", "charset", "name", "content", "colspan", "href"}
    (target,) = re.findall(r"href='([^']*)'", text)
    assert target.startswith("../runs/a%20%27%20b/external/")
    assert not re.search(r"[<>\"' ]", target)
    card = "\n".join(_sections(run))
    assert "<" not in card
    tables = [[line for line in block.splitlines() if line.startswith("|")] for block in card.split("\n## ")]
    assert all(len({line.count("|") for line in lines}) <= 1 for lines in tables)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("calibration", "after", "brier", "value"), "x"),
        (("details", "subgroups", "sex"), []),
        (("per_group", "n"), None),
        (("net_benefit", "own", "0.1"), {"model": {"value": 0.1, "low": None, "high": None}}),
    ],
)
def test_a_damaged_result_is_refused_by_name(place: tuple[str, ...], value: object, tmp_path: Path) -> None:
    make_results(tmp_path)
    results = step_results(tmp_path)
    part: dict = results["linear_eval"]["probes"]["encoder"]["all"]  # type: ignore[type-arg,index]
    for name in place[:-1]:
        part = part[name]
    if value is None:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    with pytest.raises(ValueError, match=r"linear_eval/result.json is damaged"):
        sections([("a", tmp_path, results)])
