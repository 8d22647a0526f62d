"""Studies: which run is which, paired differences against closed forms and scipy, ranks by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from study import factorial, figures, paired, tables
from study.paired import Entry
from tests.processes import ROOT, run
from ttc.results.ledger_lines import Line, from_csv
from ttc.run.manifest import Cell, read_manifest

METRIC = "encoder/fraction/balanced_accuracy"


def cell(task: str = "mix5", majority: int = 99, run: str = "supmin-balanced-seed3") -> Cell:
    recipe = f"study-fashion-{task}-{majority}"
    words = (f"@scripts/recipes/{recipe}.args", "--seed", "3")
    return Cell(f"{recipe}-{run}", f"{recipe}/{run}", {"pretrain": words})


def line(folder: str, metric: str, value: float | None) -> Line:
    return Line("g", "r", folder, 0, metric, value, None, None, "test", 1, "", "", "", "", "")


def entry(row: str, value: float | None, task: str = "a", seed: int = 0, share: int = 1) -> Entry:
    return Entry(task, share, row, seed, {METRIC: value})


def test_lines_of_the_manifest_say_which_run_they_are() -> None:
    assert paired.place_of(cell()) == ("mix5", 1, "supmin-balanced", 3)
    with pytest.raises(ValueError, match="is none of a study"):
        paired.place_of(Cell("x", "x", {"pretrain": ("@scripts/recipes/plants-99.args",)}))


def test_only_runs_of_the_ledger_count() -> None:
    cells = [cell(run="supcon-seed0"), cell(run="supcon-seed1")]
    lines = [
        line(cells[1].folder, METRIC, 0.5),
        line(cells[1].folder, "x", None),
        line("other/supcon-seed0", METRIC, 1),
    ]
    assert paired.entries_of(cells, lines) == [Entry("mix5", 1, "supcon", 1, {METRIC: 0.5, "x": None})]


def test_paired_difference_uses_the_pairs_that_both_have() -> None:
    a = [entry("a", value, seed=seed) for seed, value in enumerate((0.7, 0.8, 0.6))] + [entry("a", 9.0, share=5)]
    b = [entry("b", value, seed=seed) for seed, value in enumerate((0.6, 0.5))] + [entry("b", None, seed=2)]
    found = paired.paired(a + b, "a", "b", 1, METRIC)
    assert found is not None
    assert (found.pairs, found.positive) == (2, 2)
    assert math.isclose(found.mean, 0.2)
    assert found.error is not None
    assert math.isclose(found.error, 0.1)  # the deviation of 0.1 and 0.3 is sqrt(0.02), divided by sqrt(2)
    assert found.p == 0.5  # two of the four sign patterns are as far from zero
    assert paired.paired(a, "a", "b", 1, METRIC) is None


@pytest.mark.parametrize("count", [3, 8, 40])
def test_sign_flip_test_agrees_with_scipy(count: int) -> None:
    print(f"seed {count}")
    values = np.random.default_rng(count).normal(0.4, 1.0, count)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=200_000 if count > 20 else np.inf
    ).pvalue
    exact = 2**count <= 10_000
    assert paired.sign_flip_test(values.tolist()) == pytest.approx(expected, abs=1e-12 if exact else 0.015)


def test_ranks_by_hand() -> None:
    values = {"a": (0.9, 0.9), "b": (0.8, 0.9), "c": (0.1, 0.2)}
    entries = [entry(row, value, seed=seed) for row, each in values.items() for seed, value in enumerate(each)]
    entries.append(entry("a", 1.0, seed=7))  # a block without the other rows
    found = paired.ranks(entries, ["a", "b", "c"], 1, METRIC)
    assert found is not None
    assert found.blocks == 2
    assert found.mean == {"a": 1.25, "b": 1.75, "c": 3.0}
    # Demsar's table 5: q = 2.343 for three rows.
    assert found.critical == pytest.approx(2.343 * (3 * 4 / (6 * 2)) ** 0.5, abs=2e-3)
    assert paired.ranks(entries, ["a"], 1, METRIC) is None


def test_collapsed_runs_are_counted() -> None:
    cosines = (1.0, 0.995, 0.5, None)
    entries = [Entry("a", 1, "supcon", seed, {paired.COSINE: value}) for seed, value in enumerate(cosines)]
    assert paired.collapsed(entries) == (2, 3)


# The page and its figures.


def sweep_entries() -> list[Entry]:
    generator = np.random.default_rng(0)
    rows = ("untrained", *tables.MAIN, *(f"{method}-balanced" for method in tables.MAIN), "joint-balanced")
    return [
        Entry(task, share, row, seed, {metric: float(generator.uniform(0.4, 0.9)) for metric, *_ in tables.METRICS})
        for task in ("mix5", "shirt")
        for share in (1, 5)
        for row in rows
        for seed in (0, 1, 2)
    ]


def test_tables_show_means_and_mark_what_is_sure() -> None:
    entries = [Entry("a", 1, "supcon", seed, {METRIC: 0.5 + seed / 250, paired.COSINE: 1.0}) for seed in range(6)]
    entries += [Entry("a", 1, "supmin", seed, {METRIC: 0.6, paired.COSINE: 0.1}) for seed in range(6)]
    text = tables.differences(entries, (1,))
    # All six pairs point one way: 2 of the 64 sign patterns are as far from zero.
    assert "| 1 % | supmin - supcon | - | **+9.0 ± 0.3** (6 of 6, p = 0.031) |" in text
    assert tables.collapse(entries, (1,)).splitlines()[2:] == ["| supcon | 6 of 6 |"]
    assert "| supmin | 6 | 60.0 ± 0.0 |" in tables.all_rows(entries, 1)


def test_ranks_of_all_rows_leave_out_what_a_share_lacks() -> None:
    values = {(1, "a"): 0.9, (1, "b"): 0.8, (1, "c"): 0.7, (50, "a"): 0.5, (50, "b"): 0.6}
    entries = [
        Entry("t", share, row, seed, {METRIC: value}) for (share, row), value in values.items() for seed in (0, 1)
    ]
    entries.append(Entry("t", 1, "c", 2, {METRIC: 0.99}))  # a block without the other rows
    lines = tables.ranks_of_all(entries, (1, 5, 50)).splitlines()
    # Nemenyi's difference in two blocks: 2.343 * sqrt(3 * 4 / (6 * 2)) for three rows, 1.960 * sqrt(1 / 2) for two.
    assert lines[0] == "| row | 1 %, 2 blocks, critical 2.3 | 50 %, 2 blocks, critical 1.4 |"
    assert lines[2:] == ["| a | 1.0 | 2.0 |", "| b | 2.0 | 1.0 |", "| c | 3.0 | - |"]


def test_ablations_join_the_usual_value() -> None:
    entries = [Entry("mix5", 1, "supmin", seed, {METRIC: 0.7, paired.COSINE: 0.5}) for seed in (0, 1)]
    entries.append(Entry("shirt", 1, "supmin", 0, {METRIC: 0.1}))
    varied = [
        Entry("mix5", 1, f"supmin-{name}", 0, {METRIC: value, paired.COSINE: 0.5})
        for name, value in (("batch-1024", 0.8), ("batch-64", 0.6), ("rare-8", 0.9), ("sampler-stratified", 0.5))
    ]
    lines = [line.split(" | ") for line in tables.ablations(entries, varied).splitlines()[2:]]
    assert [(line[0][2:], line[2], line[3], line[5]) for line in lines] == [
        ("batch size", "64", "1", "60.0"),
        ("batch size", "256 (usual)", "2", "70.0 ± 0.0"),
        ("batch size", "1024", "1", "80.0"),
        ("rare images in each batch, at least", "shuffled (usual)", "2", "70.0 ± 0.0"),
        ("rare images in each batch, at least", "stratified", "1", "50.0"),
        ("rare images in each batch, at least", "8", "1", "90.0"),
    ]


def test_figures_are_drawn(tmp_path: Path) -> None:
    entries = sweep_entries()
    varied = [Entry("mix5", 1, "supmin-temperature-0.5", 0, dict(entries[0].values))]
    figures.draw_shares(tmp_path / "shares.png", entries, (1, 5, 50))
    figures.draw_ablations(tmp_path / "ablations.png", entries, varied)
    assert {path.name for path in tmp_path.iterdir()} == {"shares.png", "shares.pdf", "ablations.png", "ablations.pdf"}


def test_every_row_of_the_ablations_belongs_to_a_factor() -> None:
    cells = read_manifest(ROOT / "scripts" / "manifests" / "study-ablations.csv")
    entries = [Entry(*paired.place_of(each), {METRIC: 0.5}) for each in cells]
    points = [paired.factor_points(factor, [], entries) for factor in paired.FACTORS]
    assert sum(len(runs) for each in points for values in each.values() for runs in values.values()) == len(cells)


def test_the_page_is_what_its_ledgers_say(tmp_path: Path) -> None:
    page = tmp_path / "study.md"
    page.write_text((ROOT / "docs" / "study.md").read_text())
    made = run("study.write_page", "--page", page, "--images", tmp_path, folder=tmp_path)
    assert made.code == 0, made.stderr
    assert page.read_text() == (ROOT / "docs" / "study.md").read_text(), "stale; run python study/write_page.py"


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    refused = run("study.write_page", "--results", tmp_path, "--page", tmp_path / "x.md", folder=tmp_path)
    assert refused.code == 1
    assert "study-ledger.csv holds no run of the study" in refused.stderr


def test_the_factorial_is_ranked_by_validation_and_tells_what_each_part_adds() -> None:
    small, large = factorial.VALIDATION
    values = {"supmin-ce-0": 0.6, "supmin-ce-1": 0.8, "mixed-ce-0": 0.7, "mixed-ce-1": 0.9, "ce": 0.5}
    entries = [
        Entry("mix5", share, f"{name}-cutmix-0.4-batch-128", seed, {small: value, large: value + 0.1, METRIC: -value})
        for name, value in values.items()
        for share in (1, 5)
        for seed in (0, 1)
    ]
    unfinished = Entry("mix5", 1, "supproto-ce-1-cutmix-0-batch-256", 0, {small: 1.0, large: 1.0})
    ranked = factorial.ranked([*entries, unfinished], (1, 5))
    assert [row for row, _ in ranked] == [
        f"{name}-cutmix-0.4-batch-128" for name in ("mixed-ce-1", "supmin-ce-1", "mixed-ce-0", "supmin-ce-0", "ce")
    ]
    assert ranked[0][1] == pytest.approx([0.9, 1.0, 0.9, 1.0])
    assert sum(ranked[0][1]) / 4 == pytest.approx(0.95)
    table = factorial.table(entries, (1, 5))
    assert "| half SupCon, half NT-Xent | 1 | 0.4 | 128 | 4 | 90.0 | 100.0 | 90.0 | 100.0 | 95.0 |" in table
    assert "| contrastive part | SupMin: 85.0; half SupCon, half NT-Xent: 95.0; none: 55.0 |" in table
    assert "| cross-entropy | 0: 70.0; 1: 90.0 |" in table
    with pytest.raises(ValueError, match="none of the factorial"):
        factorial.levels_of("supmin-balanced")


def test_the_recipe_is_the_one_that_validation_chose() -> None:
    cells = read_manifest(ROOT / "scripts" / "manifests" / "study-factorial.csv")
    lines = from_csv(ROOT / "docs" / "results" / "study-factorial-ledger.csv")
    chosen = factorial.ranked(paired.entries_of(cells, lines), (1, 5))[0][0]
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
