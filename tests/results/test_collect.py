"""scripts/collect_results.py: what shares a row, what is refused, and what the written tables hold."""

from __future__ import annotations

import csv
import json
import math
import shutil
import statistics
from pathlib import Path

import pandas
import pytest

from tests.processes import Result, run
from ttc.results import collect, ledger_lines
from ttc.results.table_parts.columns import WANTED
from ttc.results.tables import as_latex, as_markdown, as_text, build_table
from ttc.run import ledger

TRAINING: dict[str, object] = {
    "dataset": "digits", "data_root": None, "classes": None, "positive_classes": None, "one_vs_rest": None,
    "class_ratios": [0.97, 0.03], "train_samples": None, "image_size": 8, "method": "supmin", "method_settings": [],
    "temperature": None, "margin": None, "batch_sampler": "shuffle", "min_minority_per_batch": 0, "epochs": 3,
    "lr": 0.1, "seed": 0, "output": "x", "num_workers": 0, "device": "cpu",
}  # fmt: skip


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def arguments(values: dict[str, object]) -> dict[str, object]:
    return {name: {"value": value, "source": "default"} for name, value in values.items()}


def space(shift: float) -> dict[str, object]:
    entry = {"per_class": [60.0 + shift, 50.0 + shift], "macro": 55.0 + shift, "all": 55.0 + shift}
    names = ("SAA", "CAC", "CAC_over_cap", "SAD", "CAD", "gaussian_potential", "effective_rank", "mean_cosine")
    return {**dict.fromkeys(names, entry), "PEU": None, "samples": 40}


def make_run(
    folder: Path,
    *,
    accuracy: float | None = 0.8,
    steps: tuple[str, ...] = ("linear_eval", "metrics"),
    probing: dict[str, object] | None = None,
    split: str = "test",
    **training: object,
) -> Path:
    """Write what a finished run writes, as far as the table looks at it."""
    values = {**TRAINING, **training}
    write(folder / "args.json", arguments(values))
    common = {"method": values["method"], "dataset": values["dataset"], "seed": values["seed"]}
    shift = float(str(values["seed"]))
    result = {"kind": "pretrain", **common, "train/loss": 1.0 + shift, "collapse_value": 5.5, "seconds": 7.0}
    write(folder / "result.json", ledger.complete(result, values))
    if "linear_eval" in steps:
        flags = {"protocol": "logistic", "probe_fraction": 0.01, "seed": 0, **(probing or {})}
        metric = {"mean": accuracy, "low": None, "high": None}
        summary = {"balanced_accuracy": metric, "auroc": metric, "n": 40}
        probes = {"encoder": {"minority": summary, "fraction": summary}}
        result = {"kind": "linear_eval", **common, "probes": probes}
        write(folder / "linear_eval" / "args.json", arguments(flags))
        write(folder / "linear_eval" / "result.json", ledger.complete(result, flags))
    if "metrics" in steps:
        flags = {"split": split, "views": 5, "seed": 0}
        result = {"kind": "metrics", **common, "minority_class": 1, "projection": space(shift), "split": split}
        write(folder / "metrics" / "args.json", arguments(flags))
        write(folder / "metrics" / "metrics.json", ledger.complete(result, flags))
    return folder


def lines_of(*folders: Path) -> pandas.DataFrame:
    return collect.lines_of([collect.read_run(folder)[0] for folder in folders], WANTED)


def rows_of(*folders: Path) -> list[tuple[str, str]]:
    return list(build_table(lines_of(*folders)).seeds.index)


def collected(folder: Path, *words: object) -> Result:
    return run("scripts.collect_results", *words, folder=folder)


@pytest.fixture
def sweep(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / f"{method}-{seed}", method=method, seed=seed, accuracy=accuracy + seed / 100)
        for method, accuracy in (("supcon", 0.6), ("supmin", 0.8))
        for seed in (0, 1, 2)
    ]


def test_mean_deviation_and_best(sweep: list[Path]) -> None:
    table = build_table(lines_of(*sweep))
    assert table.seeds.to_dict() == {("digits 97:3", "supcon"): 3, ("digits 97:3", "supmin"): 3}
    assert table.cells()["probe i acc"].iloc[0] == f"61.0+-{statistics.stdev([60, 61, 62]):.1f}"
    assert table.best["probe i acc"].tolist() == [False, True]
    assert table.mean["SAA min"].tolist() == [51.0, 51.0]
    assert table.best["SAA min"].all(), "equal rows are equally good"
    markdown = as_markdown(table)
    assert "| supcon | 3 | 61.0 ± 1.0 |" in markdown
    assert "| supmin | 3 | **81.0 ± 1.0** |" in markdown
    assert r"supmin & 3 & \textbf{81.0 $\pm$ 1.0}" in as_latex(table)
    assert max(map(len, as_text(table).splitlines())) <= 100
    assert "probe i AUC: AUROC of this probe, %" in " ".join(as_text(table).split())


def test_a_single_row_has_no_best(tmp_path: Path) -> None:
    assert not build_table(lines_of(make_run(tmp_path / "a"))).best.any(axis=None)


def test_runs_of_which_nothing_was_measured_are_rows_without_numbers(tmp_path: Path) -> None:
    lines = lines_of(make_run(tmp_path / "a")).assign(value=math.nan)
    assert set(build_table(lines).cells().iloc[0]) == {"-"}
    assert "| supmin | 1 | - |" in as_markdown(build_table(lines))


def test_ratios_are_groups_of_rows(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"{method}-{share}", method=method, class_ratios=[1 - share, share], accuracy=share)
        for share in (0.5, 0.05)
        for method in ("supcon", "supmin")
    ]
    rows = build_table(lines_of(*folders))
    assert list(rows.seeds.index) == [
        ("digits 50:50", "supcon"), ("digits 50:50", "supmin"), ("digits 95:5", "supcon"), ("digits 95:5", "supmin"),
    ]  # fmt: skip
    assert rows.best["probe i acc"].all(), "the best is looked for in each group, and both rows are equal"
    assert "-- digits 95:5" in as_text(rows)
    assert "| *digits 95:5* " in as_markdown(rows)


def test_rows_of_one_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"t{value}", temperature=value) for value in (0.07, 0.5)]
    assert [row for _, row in rows_of(*folders)] == ["supmin temperature=0.07", "supmin temperature=0.5"]


def test_rows_may_differ_in_the_flags_that_are_to_be_compared(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"r{rate}", lr=rate) for rate in (0.1, 0.2)]
    refused = collected(tmp_path, *folders)
    assert refused.code == 1
    assert "--lr of pretrain" in refused.stderr
    done = collected(tmp_path, *folders, "--compare", "lr")
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("supmin")][:2] == [
        "lr=0.1",
        "lr=0.2",
    ]


def test_a_ledger_grows_and_newer_runs_replace_older_ones(tmp_path: Path) -> None:
    old = [make_run(tmp_path / "runs" / "a" / f"s{seed}", seed=seed, accuracy=0.6) for seed in (0, 1)]
    first = collected(tmp_path, *old, "--results", tmp_path / "runs", "--output", tmp_path / "t")
    assert first.code == 0, first.stderr
    for folder in old:
        shutil.rmtree(folder)
    new = [make_run(tmp_path / "runs" / "a" / f"s{seed}", seed=seed, accuracy=0.9) for seed in (1, 2)]
    ledger_file = tmp_path / "t-ledger.csv"
    words = ("--from-csv", ledger_file, "--results", tmp_path / "runs", "--output", tmp_path / "t")
    second = collected(tmp_path, *new, *words)
    assert second.code == 0, second.stderr
    lines = ledger_lines.from_csv(ledger_file)
    lines = lines[lines["metric"] == "encoder/minority/balanced_accuracy"]
    assert lines[["folder", "seed", "value"]].values.tolist() == [["a/s0", 0, 0.6], ["a/s1", 1, 0.9], ["a/s2", 2, 0.9]]


def test_a_run_outside_of_the_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    refused = collected(tmp_path, make_run(tmp_path / "a"), "--results", tmp_path / "elsewhere")
    assert refused.code == 1
    assert "lies outside of --results" in refused.stderr


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"lr": 0.2}, "--lr of pretrain"),
        ({"probing": {"probe_fraction": 0.1}}, "--probe-fraction of linear_eval"),
        ({"split": "val"}, "--split of metrics"),
        ({}, "the same run"),
    ],
    ids=["training", "evaluation", "split", "twin"],
)
def test_what_cannot_be_compared_is_refused(other: dict[str, object], named: str, tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", **({"seed": 1, **other} if other else {}))  # type: ignore[arg-type]
    result = collected(tmp_path, "a", "b")
    assert result.code == 1
    assert named in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("field", ["shared", "training", "evaluation", "split"])
def test_a_ledger_that_mixes_is_refused(field: str, sweep: list[Path], tmp_path: Path) -> None:
    text = ledger_lines.to_csv(lines_of(*sweep))
    rows = list(csv.DictReader(text.splitlines()))
    changed = next(row for row in reversed(rows) if row["metric"] == "encoder/minority/auroc")
    changed[field] = "other"
    with (tmp_path / "mixed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match="separate tables"):
        ledger_lines.from_csv(tmp_path / "mixed.csv")


def names_of(lines: pandas.DataFrame) -> dict[str, tuple[str, str]]:
    return {folder: (group, run) for folder, group, run in lines[["folder", "group", "run"]].itertuples(index=False)}


def test_a_ledger_that_grows_has_one_name_for_a_row(tmp_path: Path) -> None:
    cold, warm = (make_run(tmp_path / f"supmin-{value}-seed0", temperature=value) for value in (0.1, 0.5))
    further = make_run(tmp_path / "supmin-0.1-seed1", temperature=0.1, seed=1)
    other_data = make_run(tmp_path / "large-seed0", temperature=0.1, image_size=16)
    lines = ledger_lines.update(lines_of(cold, warm, other_data), lines_of(further))
    names = names_of(lines)
    assert names["supmin-0.1-seed0"] == ("digits 97:3 image-size=8", "supmin temperature=0.1")
    assert names["supmin-0.1-seed1"] == names["supmin-0.1-seed0"]
    # Collected one after the other, neither name has the flag in which they differ.
    lines = ledger_lines.update(ledger_lines.update(lines_of(cold), lines_of(warm)), lines_of(further))
    names = names_of(lines)
    assert names["supmin-0.1-seed0"] == names["supmin-0.1-seed1"] == ("digits 97:3", "supmin (supmin-0.1)")
    assert names["supmin-0.5-seed0"] == ("digits 97:3", "supmin (supmin-0.5)")
    # Seeds stay one row in folders of any name.
    elsewhere = make_run(tmp_path / "elsewhere", temperature=0.1, seed=2)
    lines = ledger_lines.update(ledger_lines.update(lines_of(cold), lines_of(warm)), lines_of(elsewhere))
    assert set(lines["run"]) == {"supmin (supmin-0.1)", "supmin (supmin-0.5)"}
    lines = ledger_lines.update(lines_of(cold, elsewhere), lines_of(warm))
    assert set(lines["run"]) == {"supmin (supmin-0.1)", "supmin (supmin-0.5)"}


def test_missing_cells_are_refused_or_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "a", method="supcon")
    make_run(tmp_path / "b", steps=("metrics",))
    refused = collected(tmp_path, "a", "b")
    assert refused.code == 1
    assert "b/linear_eval/result.json is missing" in refused.stderr
    shown = collected(tmp_path, "a", "b", "--allow-missing", "--output", "t")
    assert shown.code == 0, shown.stderr
    assert "b/linear_eval/result.json is missing" in shown.stderr
    row = next(line for line in shown.stdout.splitlines() if line.startswith("supmin"))
    assert row.split()[:4] == ["supmin", "1", "-", "-"]
    again = collected(tmp_path, "--from-csv", "t-ledger.csv")
    assert again.stdout == shown.stdout


def test_a_value_that_some_seeds_lack_is_marked(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, accuracy=None)]
    assert build_table(lines_of(*folders)).cells()["probe i acc"].tolist() == ["80.0 (1)"]


def test_files_and_block(sweep: list[Path], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- t: begin -->\nold\n<!-- t: end -->\nafter\n")
    names = [folder.name for folder in sweep]
    result = collected(tmp_path, *names, "--output", "t", "--readme", "README.md", "--block", "t", "--also", "*")
    assert result.code == 0, result.stderr
    table = (tmp_path / "t.md").read_text()
    assert readme.read_text() == f"before\n<!-- t: begin -->\n{table}<!-- t: end -->\nafter\n"
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["probe i acc mean"]) == pytest.approx(81.0)
    assert float(rows[1]["probe i acc std"]) == pytest.approx(1.0)
    with (tmp_path / "t-ledger.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["metric"] for line in lines} > {*WANTED, "projection/SAD/class0"}
    assert str(tmp_path) not in (tmp_path / "t-ledger.csv").read_text(), "a ledger can be published"
    readme.write_text("before\n<!-- t: begin -->\n<!-- t: end -->\nafter\n")
    assert collected(tmp_path, "--from-csv", "t-ledger.csv", "--readme", readme, "--block", "t").code == 0
    assert table in readme.read_text()


def test_fine_tuning_has_columns_where_it_was_done(sweep: list[Path]) -> None:
    assert not any("fine" in title for title in build_table(lines_of(*sweep)).cells())
    metric = {"mean": 0.9, "low": 0.8, "high": 0.95}
    probes = {"own": {"classifier": {"balanced_accuracy": metric, "auroc": metric, "n": 40}}}
    for step in ("finetune", "from_scratch"):
        write(sweep[0] / step / "args.json", arguments({"lr": 0.1, "from_scratch": step == "from_scratch"}))
        write(sweep[0] / step / "result.json", {"kind": "finetune", "seed": 0, "probes": probes})
    cells = build_table(lines_of(*sweep)).cells().iloc[0]
    assert cells["fine-tuned acc"] == cells["from scratch AUC"] == "90.0 (1)"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\x00", "group,run\nx,y\n"])
def test_a_file_that_is_no_ledger(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(content)
    result = collected(tmp_path, "--from-csv", "x.csv")
    assert result.code == 1
    assert "--from-csv x.csv" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    assert collected(tmp_path).code == 2
    assert collected(tmp_path, "a", "--readme", "README.md").code == 2
    assert collected(tmp_path, "nothing").code == 1
