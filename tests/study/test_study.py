"""Studies: which run is which, paired differences against closed forms and scipy, ranks by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas
import pytest

from study import factorial, figures, paired, tables
from tests.processes import ROOT, run
from ttc.results.ledger_lines import COLUMNS, from_csv, from_rows
from ttc.run.manifest import Line, read_manifest

METRIC = "encoder/fraction/balanced_accuracy"


def cell(task: str = "mix5", majority: int = 99, run: str = "supmin-balanced-seed3") -> Line:
    recipe = f"study-fashion-{task}-{majority}"
    words = (f"@scripts/recipes/{recipe}.args", "--seed", "3")
    return Line(f"{recipe}-{run}", f"{recipe}/{run}", {"pretrain": words})


def line(folder: str, metric: str, value: float | None) -> dict[str, object]:
    numbers = {"seed": 0, "value": value, "low": None, "high": None, "n": 1}
    return {**dict.fromkeys(COLUMNS, ""), "folder": folder, "metric": metric, **numbers}


def entry(
    row: str, value: float | None, task: str = "a", seed: int = 0, share: int = 1, **more: object
) -> dict[str, object]:
    return {"task": task, "share": share, "row": row, "seed": seed, METRIC: value, **more}


def table_of(entries: list[dict[str, object]]) -> pandas.DataFrame:
    return pandas.DataFrame(
        entries, columns=["task", "share", "row", "seed", *{key: 0 for each in entries for key in each if "/" in key}]
    )


def test_lines_of_the_manifest_say_which_run_they_are() -> None:
    assert paired.place_of(cell()) == ("mix5", 1, "supmin-balanced", 3)
    with pytest.raises(ValueError, match="is none of a study"):
        paired.place_of(Line("x", "x", {"pretrain": ("@scripts/recipes/plants-99.args",)}))


def test_only_runs_of_the_ledger_count() -> None:
    cells = [cell(run="supcon-seed0"), cell(run="supcon-seed1")]
    lines = [
        line(cells[1].folder, METRIC, 0.5),
        line(cells[1].folder, "x", None),
        line("other/supcon-seed0", METRIC, 1),
    ]
    runs = paired.finished_runs(cells, from_rows(lines))
    assert runs[["task", "share", "row", "seed", METRIC]].values.tolist() == [["mix5", 1, "supcon", 1, 0.5]]
    assert paired.values_of(runs, METRIC).tolist() == [0.5]
    assert paired.values_of(runs, "x").empty
    assert paired.values_of(runs, "unheard of").empty


def test_paired_difference_uses_the_pairs_that_both_have() -> None:
    a = [entry("a", value, seed=seed) for seed, value in enumerate((0.7, 0.8, 0.6))] + [entry("a", 9.0, share=5)]
    b = [entry("b", value, seed=seed) for seed, value in enumerate((0.6, 0.5))] + [entry("b", None, seed=2)]
    found = paired.paired(table_of(a + b), "a", "b", 1, METRIC)
    assert found is not None
    assert (found.pairs, found.positive) == (2, 2)
    assert math.isclose(found.mean, 0.2)
    assert found.error is not None
    assert math.isclose(found.error, 0.1)  # the deviation of 0.1 and 0.3 is sqrt(0.02), divided by sqrt(2)
    assert found.p == 0.5  # two of the four sign patterns are as far from zero
    assert paired.paired(table_of(a), "a", "b", 1, METRIC) is None


def test_ranks_by_hand() -> None:
    values = {"a": (0.9, 0.9), "b": (0.8, 0.9), "c": (0.1, 0.2)}
    entries = [entry(row, value, seed=seed) for row, each in values.items() for seed, value in enumerate(each)]
    entries.append(entry("a", 1.0, seed=7))  # a block without the other rows
    found = paired.ranks(table_of(entries), ["a", "b", "c"], 1, METRIC)
    assert found is not None
    assert found.blocks == 2
    assert found.mean == {"a": 1.25, "b": 1.75, "c": 3.0}
    # Demsar's table 5: q = 2.343 for three rows.
    assert found.critical == pytest.approx(2.343 * (3 * 4 / (6 * 2)) ** 0.5, abs=2e-3)
    assert paired.ranks(table_of(entries), ["a"], 1, METRIC) is None


def test_collapsed_runs_are_counted() -> None:
    cosines = (1.0, 0.995, 0.5, None)
    entries = [entry("supcon", 0.5, seed=seed, **{paired.COSINE: value}) for seed, value in enumerate(cosines)]
    assert paired.collapsed(table_of(entries)) == (2, 3)


# The page and its figures.


def sweep_runs() -> pandas.DataFrame:
    generator = np.random.default_rng(0)
    rows = ("untrained", *tables.MAIN, *(f"{method}-balanced" for method in tables.MAIN), "joint-balanced")
    return table_of(
        [
            entry(row, 0, task, seed, share, **{metric: generator.uniform(0.4, 0.9) for metric, *_ in tables.METRICS})
            for task in ("mix5", "shirt")
            for share in (1, 5)
            for row in rows
            for seed in (0, 1, 2)
        ]
    )


def test_tables_show_means_and_mark_what_is_sure() -> None:
    entries = [entry("supcon", 0.5 + seed / 250, seed=seed, **{paired.COSINE: 1.0}) for seed in range(6)]
    entries += [entry("supmin", 0.6, seed=seed, **{paired.COSINE: 0.1}) for seed in range(6)]
    runs = table_of(entries)
    text = tables.differences(runs, (1,))
    # All six pairs point one way: 2 of the 64 sign patterns are as far from zero.
    assert "| 1 % | supmin - supcon | - | **+9.0 ± 0.3** (6 of 6, p = 0.031) |" in text
    assert tables.collapse(runs, (1,)).splitlines()[2:] == ["| supcon | 6 of 6 |"]
    assert "| supmin | 6 | 60.0 ± 0.0 |" in tables.all_rows(runs, 1)


def test_ranks_of_all_rows_leave_out_what_a_share_lacks() -> None:
    values = {(1, "a"): 0.9, (1, "b"): 0.8, (1, "c"): 0.7, (50, "a"): 0.5, (50, "b"): 0.6}
    entries = [entry(row, value, seed=seed, share=share) for (share, row), value in values.items() for seed in (0, 1)]
    entries.append(entry("c", 0.99, seed=2))  # a block without the other rows
    lines = tables.ranks_of_all(table_of(entries), (1, 5, 50)).splitlines()
    # Nemenyi's difference in two blocks: 2.343 * sqrt(3 * 4 / (6 * 2)) for three rows, 1.960 * sqrt(1 / 2) for two.
    assert lines[0] == "| row | 1 %, 2 blocks, critical 2.3 | 50 %, 2 blocks, critical 1.4 |"
    assert lines[2:] == ["| a | 1.0 | 2.0 |", "| b | 2.0 | 1.0 |", "| c | 3.0 | - |"]


def test_ablations_join_the_usual_value() -> None:
    entries = [entry("supmin", 0.7, "mix5", seed, **{paired.COSINE: 0.5}) for seed in (0, 1)]
    entries.append(entry("supmin", 0.1, "shirt"))
    varied = [
        entry(f"supmin-{name}", value, "mix5", **{paired.COSINE: 0.5})
        for name, value in (("batch-1024", 0.8), ("batch-64", 0.6), ("rare-8", 0.9), ("sampler-stratified", 0.5))
    ]
    lines = [line.split(" | ") for line in tables.ablations(table_of(entries), table_of(varied)).splitlines()[2:]]
    assert [(line[0][2:], line[2], line[3], line[5]) for line in lines] == [
        ("batch size", "64", "1", "60.0"),
        ("batch size", "256 (usual)", "2", "70.0 ± 0.0"),
        ("batch size", "1024", "1", "80.0"),
        ("rare images in each batch, at least", "shuffled (usual)", "2", "70.0 ± 0.0"),
        ("rare images in each batch, at least", "stratified", "1", "50.0"),
        ("rare images in each batch, at least", "8", "1", "90.0"),
    ]


def test_figures_are_drawn(tmp_path: Path) -> None:
    runs = sweep_runs()
    varied = runs.head(1).assign(row="supmin-temperature-0.5")
    figures.draw_shares(tmp_path / "shares.png", runs, (1, 5, 50))
    figures.draw_ablations(tmp_path / "ablations.png", runs, varied)
    assert {path.name for path in tmp_path.iterdir()} == {"shares.png", "shares.pdf", "ablations.png", "ablations.pdf"}


def test_every_row_of_the_ablations_belongs_to_a_factor() -> None:
    cells = read_manifest(ROOT / "scripts" / "manifests" / "study-ablations.csv")
    runs = pandas.DataFrame(map(paired.place_of, cells), columns=["task", "share", "row", "seed"])
    points = [paired.factor_points(factor, runs.head(0), runs) for factor in paired.FACTORS]
    assert sum(len(runs) for each in points for values in each.values() for runs in values.values()) == len(cells)


@pytest.mark.long
def test_the_page_is_what_its_ledgers_say(tmp_path: Path) -> None:
    page = tmp_path / "study-first.md"
    page.write_text((ROOT / "docs" / "study-first.md").read_text())
    made = run("study.write_page", "--page", page, "--images", tmp_path, folder=tmp_path)
    assert made.code == 0, made.stderr
    assert page.read_text() == (ROOT / "docs" / "study-first.md").read_text(), "stale; run python study/write_page.py"


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    refused = run("study.write_page", "--results", tmp_path, "--page", tmp_path / "x.md", folder=tmp_path)
    assert refused.code == 1
    assert "study-ledger.csv holds no run of the study" in refused.stderr


def test_the_factorial_is_ranked_by_validation_and_tells_what_each_part_adds() -> None:
    small, large = factorial.VALIDATION
    values = {"supmin-ce-0": 0.6, "supmin-ce-1": 0.8, "mixed-ce-0": 0.7, "mixed-ce-1": 0.9, "ce": 0.5}
    entries = [
        entry(f"{name}-cutmix-0.4-batch-128", -value, "mix5", seed, share, **{small: value, large: value + 0.1})
        for name, value in values.items()
        for share in (1, 5)
        for seed in (0, 1)
    ]
    unfinished = entry("supproto-ce-1-cutmix-0-batch-256", 1.0, "mix5", **{small: 1.0, large: 1.0})
    ranked = factorial.ranked(table_of([*entries, unfinished]), (1, 5))
    assert list(ranked.index) == [
        f"{name}-cutmix-0.4-batch-128" for name in ("mixed-ce-1", "supmin-ce-1", "mixed-ce-0", "supmin-ce-0", "ce")
    ]
    assert ranked.iloc[0].tolist() == pytest.approx([0.9, 1.0, 0.9, 1.0, 0.95])
    table = factorial.table(table_of(entries), (1, 5))
    assert "| half SupCon, half NT-Xent | 1 | 0.4 | 128 | 4 | 90.0 | 100.0 | 90.0 | 100.0 | 95.0 |" in table
    assert "| contrastive part | SupMin: 85.0; half SupCon, half NT-Xent: 95.0; none: 55.0 |" in table
    assert "| cross-entropy | 0: 70.0; 1: 90.0 |" in table
    with pytest.raises(ValueError, match="none of the factorial"):
        factorial.levels_of("supmin-balanced")


def test_the_recipe_is_the_one_that_validation_chose() -> None:
    cells = read_manifest(ROOT / "scripts" / "manifests" / "study-factorial.csv")
    lines = from_csv(ROOT / "docs" / "results" / "study-factorial-ledger.csv")
    chosen = factorial.ranked(paired.finished_runs(cells, lines), (1, 5)).index[0]
    assert chosen == "mixed-ce-1-cutmix-0.4-batch-128"
    words = (ROOT / "scripts" / "recipes" / "joint-balanced.args").read_text()
    for line in (
        "--method supcon",
        "--instance-weight 0.5",
        "--ce-weight 1",
        "--minority-cutmix 0.4",
        "--batch-size 128",
    ):
        assert line in words
