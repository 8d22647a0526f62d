"""The pages of the fair study against plain pandas and scipy, on ledgers that are whole, partial, the study's own."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy import stats

from study.fair import figures, ledger, page_tables, write_page
from study.fair.effects import SETS
from study.fair.grid import ROWS, TASKS
from study.fair.state import STAGES, State, expected
from tests.processes import ROOT, run
from tests.study import fair_ledgers

DOCS = ROOT / "docs"
LEDGER = DOCS / "results" / "fair.csv"
DATA_SETS = {"mix5-99": "mix5", "mix5-95": "mix5", "shirt-99": "shirt", "shirt-95": "shirt",
             "pneumonia-99": "pneumonia", "pneumonia-95": "pneumonia"}  # fmt: skip

ALL = 240 + 2 * 2 + 8 * 4 + 4 * (3 * 30 + 7 * 22 + 4 * 4)
"""Differences on the page of tables: thirty pairs by sets, outcomes and probes; heads; starts; by task, those of rows
that it has."""


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.strip().splitlines()[2:]]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]\d+\.\d", text)]


def reported(path: Path) -> pandas.DataFrame:
    """Return the runs of a ledger that are reported, with task, row and seed from their names."""
    runs = pandas.read_csv(path)
    parts = runs["run"].str.extract(r"^(?P<task>.+)/(?P<row>.+)-lr[\d.]+-e\d+-seed(?P<seed>[0-4])(-fold\d)?$")
    return runs.join(parts[["task", "row", "seed"]]).dropna(subset="task")  # other seeds choose


def gaps(runs: pandas.DataFrame, difference: str, probe: str, outcome: str, tasks: tuple[str, ...]) -> pandas.DataFrame:
    """Return 100 (a - b), a line per task and a column per seed, of rows "NAME[ from START][, HEAD]"."""
    rows = []
    for row in difference.split(" - "):
        row, _, head = row.partition(", ")
        row, _, start = row.partition(" from ")
        of = {"adjusted": "logit-adjusted", "balanced": "balanced-all"}.get(head, probe)
        kept = [f"{task}-from-{start}" if start else task for task in tasks]
        values = runs[(runs["row"] == row) & runs["task"].isin(kept)].set_index(["task", "seed"])
        rows.append(values[f"test/{of}/{outcome.lower().replace(' ', '_')}"])
    return (100 * (rows[0] - rows[1])).dropna().unstack("seed")


def recompute(path: Path, page: str) -> int:
    """Compare every difference, interval and decision that a page prints with those of its ledger; return how many."""
    runs, compared = reported(path), 0
    sets = {**{f"{name} tasks": tasks for name, tasks in SETS.items()},
            "breast and pneumonia-99": ("breast", "pneumonia-99")}  # fmt: skip
    for tasks, outcome, table in re.findall(r"### [A-H]\. .*\(([\w -]+), ([\w ]+)\)\n\n((?:\|.*\n)+)", page):
        family = pandas.DataFrame(
            cells(table), columns=["pair", "probe", "points", "above", "tasks", "p", "holm", "word"]
        )
        for probe, lines in family.groupby("probe"):
            p_values, words = {}, {}
            for _, line in lines.iterrows():
                gap = gaps(runs, line["pair"], str(probe), outcome, sets[tasks])
                units = (gap / gap.size).groupby(lambda task: DATA_SETS.get(task, task)).sum()
                parts_of_variance = units.shape[1] * units.var(axis=1)
                freedom = parts_of_variance.sum() ** 2 / (parts_of_variance**2 / (units.shape[1] - 1)).sum()
                t = stats.t(freedom, gap.to_numpy().mean(), np.sqrt(parts_of_variance.sum()))
                assert numbers(line["points"]) == pytest.approx([t.mean(), *t.interval(0.95)], abs=0.0501)
                assert line["above"] == f"{(gap > 0).to_numpy().sum()} of {gap.size}"
                level = max(map(abs, t.interval(0.9))) < 1
                sums = np.zeros(1)
                for unit in units.to_numpy().ravel():
                    sums = np.concatenate((sums + unit, sums - unit))
                p_values[line["pair"]] = np.mean(np.abs(sums) >= abs(t.mean()) - 1e-9) if len(gap) > 1 else np.nan
                words[line["pair"]] = ("better" if t.mean() > 0 else "worse", level)
            ordered = pandas.Series(p_values).dropna().sort_values()
            corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
            for pair, line in lines.set_index("pair").iterrows():
                direction, level = words[pair]
                if pair not in corrected:
                    assert line[["p", "holm", "word"]].tolist() == ["-", "-", "no test"]
                elif corrected[pair] < 0.05:
                    assert line["word"] == direction + (", by less than a point" if level else "")
                else:
                    assert line["word"] == ("level" if level else "unclear")
                    assert float(line["holm"]) == pytest.approx(corrected[pair], abs=0.00051)
                compared += 1
    by_task = page.split("<!-- fair-by-task: begin -->")[1].split("<!-- fair-by-task: end -->")[0]
    for task, table in re.findall(r"### (\S+)\n\n((?:\|.*\n)+)", by_task):
        for difference, *printed in cells(table):
            asked = [(probe, outcome) for outcome in ("AUROC", "balanced accuracy") for probe in ("i", "ii")]
            for (probe, outcome), text in zip(asked, printed, strict=True):
                gap = gaps(runs, difference, probe, outcome, (task,)).to_numpy().ravel()
                low, high = stats.ttest_1samp(gap, 0).confidence_interval()
                assert numbers(text) == pytest.approx([gap.mean(), low, high], abs=0.0501)
                compared += 1
    return compared


def template(path: Path, blocks: dict[str, object]) -> Path:
    path.write_text("".join(f"# {name}\n\n<!-- {name}: begin -->\n<!-- {name}: end -->\n\n" for name in blocks))
    return path


def pages(folder: Path) -> tuple[object, ...]:
    page = template(folder / "study.md", dict(write_page.PAGE))
    tables = template(folder / "study-tables.md", dict(write_page.TABLES))
    return "--page", page, "--tables", tables, "--images", folder, "--ledger", folder / "fair.csv"


@pytest.mark.long
def test_the_pages_of_a_complete_ledger_say_what_plain_pandas_says(tmp_path: Path) -> None:
    known = fair_ledgers.write(tmp_path / "fair.csv")
    assert {stage: sum(expected(stage, task) for task in TASKS) for stage in STAGES} == State(known).coverage[
        list(STAGES)
    ].sum().to_dict()
    made = run("study.fair.write_page", *pages(tmp_path), folder=tmp_path)
    assert made.code == 0, made.stderr
    page, tables = ((tmp_path / name).read_text() for name in ("study.md", "study-tables.md"))
    assert f"All {len(known):,} planned runs are in the ledger." in page
    for word in ("not run yet", "Not run yet", "open", "nan", "inf "):
        assert word not in tables
    assert recompute(tmp_path / "fair.csv", tables) == ALL
    drawn = {path.name for path in tmp_path.glob("*.p*")}
    assert drawn == {f"fair-{name}.{kind}" for name in ("cac", "saa", "methods", "settings") for kind in ("png", "pdf")}


@pytest.fixture(scope="module")
def finished() -> State:
    if not LEDGER.is_file():
        pytest.skip("docs/results/fair.csv is not there yet: bash scripts/run_study.sh")
    state = State(ledger.read(LEDGER))
    if not state.complete:
        pytest.skip("docs/results/fair.csv is not complete yet: bash scripts/run_study.sh")
    return state


@pytest.mark.parametrize("name", ["study.md", "study-tables.md"])
def test_the_pages_are_what_the_ledger_says(finished: State, name: str) -> None:
    page = (DOCS / name).read_text()
    for block, text_of in (write_page.PAGE if name == "study.md" else write_page.TABLES).items():
        held = page.split(f"<!-- {block}: begin -->\n")[1].split(f"<!-- {block}: end -->")[0]
        assert held == text_of(finished), f"{block} is stale; run python study/fair/write_page.py"


def test_the_table_of_pretrained_starts_holds_the_means_of_the_tasks_that_it_names(finished: State) -> None:
    means = 100 * reported(LEDGER).groupby(["task", "row"])[["test/i/auroc", "test/ii/auroc"]].mean()
    held = {}
    for base, row, *printed in cells(page_tables.starts_compared(finished)):
        tasks = [f"{base}{ending}" for ending in ("-frozen-random", "", "-frozen-ce", "-from-ce", "-frozen-simclr",
                                                  "-from-simclr")]  # fmt: skip
        if row == "untrained":
            tasks = [base, None, f"{base}-from-ce", None, f"{base}-from-simclr", None]
        held |= {(task, row): text for task, text in zip(tasks, printed, strict=True) if text != "-"}
    assert len(held) == 2 * (3 + 4 * 6 + 3)
    for key, text in held.items():
        assert [float(number) for number in text.split(" / ")] == pytest.approx(means.loc[key].tolist(), abs=0.0501)


def test_each_finding_names_rows_of_the_tables_and_takes_its_numbers_from_them(finished: State) -> None:
    page = (DOCS / "study.md").read_text()
    lines = [line for line in (page + (DOCS / "study-tables.md").read_text()).splitlines() if line.startswith("|")]
    found = re.findall(r"^\* (.+?)(?=\n\* |\n\n|\Z)", page.split("## Findings")[1].split("\n## ")[0], re.M | re.S)
    assert len(found) >= 8
    for finding in found:
        named = [line for line in lines for name in re.findall(r"`([^`]+)`", finding) if f"| {name} |" in line]
        assert named, f"names no row of a table: {finding}"
        held = " ".join(named)
        for number in re.findall(r"[+-]?\d+\.\d+|\d+ of \d+", finding):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", held), (
                f"{number} stands in no such row: {finding}"
            )


@pytest.mark.long
def test_the_tables_of_the_study_are_what_plain_pandas_says(finished: State) -> None:
    assert recompute(LEDGER, (DOCS / "study-tables.md").read_text()) >= ALL


def test_a_partial_ledger_gives_pages_that_say_so(tmp_path: Path) -> None:
    """A task without one of its rows, another row of which has three seeds; a task that is being tuned; no other."""
    known = fair_ledgers.write(
        tmp_path / "fair.csv",
        lambda run: (
            (run.task == "platelets" and run.row != "simclr" and not (run.row == "supcon" and run.seed in (3, 4)))
            or (run.task == "hannover" and run.row == "supmin" and run.seed > 4 and run.rate < 0.2)
        ),
    )
    made = run("study.fair.write_page", *pages(tmp_path), folder=tmp_path)
    assert made.code == 0, made.stderr
    page, tables = ((tmp_path / name).read_text() for name in ("study.md", "study-tables.md"))
    for text in (page, tables):
        assert f"**Not complete:** {len(known)} of {State(known).total:,} planned runs" in text
    assert "Whether the finding replicates on the rare tasks is open" in page
    assert "Whether a recipe wins is open" in page
    assert re.search(r"\| platelets \| 44 of 48 \| 11 of 12 \| 0 of 0 \| 58 of 65 \| 0, 1, 2, 3, 4 \| 0 \|", tables)
    assert re.search(
        r"\| supcon - untrained \| i \| \S+ \[.*\] \| \d of 3 \(20 planned\) \| 1 \| - \| - \| no test", tables
    )
    assert "| supmin - simclr | i | not run yet | - | - | - | - | - |" in tables
    assert "### hannover\n\nNot run yet." in tables
    assert "| supcon | 3 of 5 |" in tables
    assert tables.count("nan") == 0
    assert {path.name for path in tmp_path.glob("*.png")} >= {"fair-cac.png", "fair-methods.png", "fair-settings.png"}


def test_runs_of_a_setting_that_is_no_longer_chosen_do_not_count(tmp_path: Path) -> None:
    known = fair_ledgers.write(tmp_path / "fair.csv", lambda run: run.task == "breast-from-ce")
    chosen = State(known).runs
    left = chosen[chosen["row"] == "supmin-balanced"].head(1)
    left = left.assign(run=left["run"].str.replace(r"-lr[\d.]+-", "-lr0.2-", regex=True), rate=0.2)
    state = State(pandas.concat([known, left], ignore_index=True))
    assert len(state.runs) == len(chosen)
    assert state.coverage.loc["breast-from-ce", ["reported", "other"]].tolist() == [30, 1]


def test_what_cannot_be_filled_is_refused_in_one_line(tmp_path: Path) -> None:
    words = pages(tmp_path)
    refused = run("study.fair.write_page", *words, folder=tmp_path)
    assert refused.code == 1
    assert "fair.csv holds no run; bash scripts/run_study.sh runs the study" in refused.stderr
    fair_ledgers.write(tmp_path / "fair.csv", lambda run: run.task == "breast-frozen-ce")
    before = template(tmp_path / "study.md", dict(write_page.PAGE)).read_text()
    template(tmp_path / "study-tables.md", {name: 0 for name in write_page.TABLES if name != "fair-ranks"})
    refused = run("study.fair.write_page", *words, folder=tmp_path)
    assert refused.code == 1
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "--tables" in refused.stderr
    assert "lacks the begin and end comments of fair-ranks" in refused.stderr
    assert (tmp_path / "study.md").read_text() == before


def test_every_row_has_a_kind_in_the_figures() -> None:
    assert {figures.kind_of(row) for row in (*ROWS, "untrained")} == set(figures.KINDS)


def test_no_file_beside_a_script_hides_a_module_of_others() -> None:
    """A script's folder comes first on the path."""
    others = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()} - {
        "study",
        "scripts",
        "benchmarks",
    }
    assert not {path.stem for path in (ROOT / "study" / "fair").glob("*.py")} & others
