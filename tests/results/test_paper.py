"""The table that papers print, the probe of a page, the names of rows, and the word for a collapse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas
import pytest

from tests.processes import run
from tests.results.test_collect import TRAINING, arguments, lines_of, make_run, write
from ttc.metrics.representation import collapse_word
from ttc.results import collect, ledger_lines
from ttc.results.table_parts import paper
from ttc.results.table_parts.collapse import collapse_words
from ttc.results.table_parts.columns import COLUMNS, PAPER
from ttc.results.tables import as_text, build_table
from ttc.run import ledger

DECISIONS = ("balanced_accuracy", "sensitivity", "specificity")


def classifier(value: float, positives: int, learned: int) -> dict[str, object]:
    """Return a classifier's summary whose numbers all differ: value, value + 0.01, ..., each +- 0.05."""

    def estimate(step: int) -> dict[str, float]:
        middle = value + step / 100
        return {"mean": middle, "low": middle - 0.05, "high": middle + 0.05}

    decided = {name: estimate(step) for step, name in enumerate(DECISIONS, 2)}
    return {
        "n": 40, "class_counts": [40 - positives, positives], "positive_class": 1, "train_samples": learned,
        "auroc": estimate(0), "auprc": estimate(1), "operating_points": {"youden": decided},
    }  # fmt: skip


def probed(folder: Path, value: float, share: int = 30, *, tuned: bool = True, stored: bool = True) -> Path:
    """Add a probe of all images, one of `share` images per class, and perhaps a fine-tuned network to a run."""
    probes = {"encoder": {"all": classifier(value, 9, 400), "fraction": classifier(value - 0.1, 9, 2 * share)}}
    steps = {"linear_eval": probes} | (
        {"finetune": {"own": {"classifier": classifier(value + 0.05, 9, 400)}}} if tuned else {}
    )
    for step, its_probes in steps.items():
        result = {"kind": step, "seed": 0, "probes": its_probes}
        write(folder / step / "args.json", arguments({"seed": 0}))
        write(folder / step / "result.json", ledger.complete(result, {}) if stored else result)
    return folder


def of_paper(*folders: Path, probe: str = "all") -> pandas.DataFrame:
    runs = [collect.read_run(folder)[0] for folder in folders]
    return paper.paper_lines(collect.lines_of(runs, [], also=paper.ledger_metrics()), probe)


@pytest.mark.parametrize("stored", [True, False], ids=["ledger", "earlier"])
def test_a_row_holds_the_size_of_the_test_set_and_intervals(stored: bool, tmp_path: Path) -> None:
    folders = [probed(make_run(tmp_path / "a"), 0.6, stored=stored), probed(make_run(tmp_path / "b", seed=1), 0.8)]
    table = build_table(of_paper(*folders), PAPER, name_groups=True)
    assert list(table.seeds.index) == [("digits 97:3, probe all", "supmin"), ("digits 97:3, fine-tuned", "supmin")]
    cells = table.cells(" ± ")
    assert cells.iloc[0].tolist() == [
        "40", "9", "70.0 ± 14.1 [65.0, 75.0]", "71.0 ± 14.1 [66.0, 76.0]", "72.0 ± 14.1 [67.0, 77.0]",
        "73.0 ± 14.1 [68.0, 78.0]", "74.0 ± 14.1 [69.0, 79.0]",
    ]  # fmt: skip
    assert cells.iloc[1]["AUROC"] == "75.0 ± 14.1 [70.0, 80.0]"
    single = build_table(of_paper(folders[0]), PAPER, name_groups=True)
    assert "60.0 [55,65]" in as_text(single)
    assert "-- digits 97:3, fine-tuned" in as_text(single)
    assert max(map(len, as_text(single).splitlines())) <= 100


def test_one_probe_stands_for_a_page(tmp_path: Path) -> None:
    def chosen(*shares: int) -> str:
        folders = [
            probed(make_run(tmp_path / f"{shares}-{seed}", seed=seed), 0.6, share) for seed, share in enumerate(shares)
        ]
        runs = [collect.read_run(folder)[0] for folder in folders]
        return paper.page_probe(collect.lines_of(runs, [], also=paper.ledger_metrics()))

    assert chosen(8) == chosen(paper.LARGE_FRACTION - 1) == "all"
    assert chosen(paper.LARGE_FRACTION) == "fraction"
    assert chosen(paper.LARGE_FRACTION, 8) == "all", "the smallest run decides"
    lines = of_paper(probed(make_run(tmp_path / "x"), 0.7), probe="fraction")
    assert build_table(lines, PAPER).mean["AUROC"].tolist() == pytest.approx([60.0, 75.0])


def test_the_usual_table_shows_the_probe_of_the_page_alone(tmp_path: Path) -> None:
    runs = [collect.read_run(probed(make_run(tmp_path / "a"), 0.6))[0]]
    lines = collect.lines_of(runs, [], also=paper.ledger_metrics())
    titles = {column.title: column.metric for column in paper.columns_for("all", lines)}
    assert [title for title in titles if "probe" in title] == [
        "probe all acc", "probe all AUC", "probe all fold AUC",
    ]  # fmt: skip
    assert titles["probe all AUC"] == "encoder/all/auroc"
    without_sizes = lines[~lines["metric"].str.contains("train_samples")]
    assert paper.columns_for("all", without_sizes) == COLUMNS, "an earlier ledger keeps its columns"


def by_recipe(folder: Path, changed: tuple[str, ...] = (), **training: object) -> Path:
    """Write a run whose method stands in line 7 of joint-balanced.args, with flags that the command line changed."""
    values = {"method": "supcon", "batch_sampler": "balanced", "ce_weight": 1.0, **training}
    make_run(folder, **values)
    entries = arguments({**TRAINING, **values})
    for flag in ("method", "batch_sampler", "ce_weight"):
        entries[flag] = {"value": values[flag], "source": "joint-balanced.args:7"}
    for flag in changed:
        entries[flag] = {"value": values[flag], "source": "command line"}
    write(folder / "args.json", entries)
    return folder


def test_a_row_is_called_by_the_recipe_that_made_it(tmp_path: Path) -> None:
    def rows(*folders: Path) -> list[str]:
        return [row for _, row in build_table(lines_of(*folders)).seeds.index]

    joint = by_recipe(tmp_path / "joint")
    plain = make_run(tmp_path / "plain", method="supcon", batch_sampler="balanced")
    assert rows(joint, plain) == ["joint-balanced", "supcon balanced"]
    assert rows(joint) == ["joint-balanced"]
    warm = by_recipe(tmp_path / "warm", ("temperature",), temperature=0.5)
    assert rows(joint, warm) == ["joint-balanced", "joint-balanced temperature=0.5"]
    by_hand = {"method": "supcon", "batch_sampler": "balanced", "ce_weight": 1.0}
    assert rows(make_run(tmp_path / "h", **by_hand)) == ["supcon balanced ce-weight=1.0"]
    assert rows(make_run(tmp_path / "h1", seed=1, **by_hand), joint) == ["joint-balanced"], "the same training"
    assert rows(by_recipe(tmp_path / "u", epochs=0)) == ["untrained"]


def test_other_names_and_other_columns(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / method, method=method) for method in ("supcon", "supmin")]
    lines = lines_of(*folders)
    named = paper.renamed(lines, {"supmin": "Ours", "digits 97:3": "Digits"})
    assert list(build_table(named).seeds.index) == [("Digits", "supcon"), ("Digits", "Ours")]
    with pytest.raises(ValueError, match="'nobody' is no row or group; there are digits 97:3, supcon, supmin"):
        paper.renamed(lines, {"nobody": "x"})
    with pytest.raises(ValueError, match="two rows would have the same name"):
        paper.renamed(lines, {"supmin": "supcon"})
    chosen = paper.choose_columns(
        COLUMNS, ["SAA", "probe i auc", "projection/SAA/macro"], lines.assign(metric="projection/SAA/macro")
    )
    assert [column.title for column in chosen] == ["SAA maj", "SAA min", "probe i AUC", "SAA macro"]
    with pytest.raises(ValueError, match="--columns 'nothing' is neither a column"):
        paper.choose_columns(COLUMNS, ["nothing"], lines)


@pytest.mark.parametrize(
    ("cosine", "auroc", "word"),
    [(0.93, 0.967, "no"), (0.9899, 0.5, "no"), (0.99, 0.8999, "yes"), (0.999, 0.967, "head"), (1.0, None, "yes"),
     (None, 0.9, None)],
)  # fmt: skip
def test_the_word_for_a_collapse(cosine: float | None, auroc: float | None, word: str | None) -> None:
    assert collapse_word(cosine, auroc) == word


def test_the_words_of_rows() -> None:
    measured = {"a": [(0.999, 0.7), (0.5, 0.7)], "b": [(0.999, 0.95)], "c": [(None, 0.9)], "d": [(0.1, 0.9)] * 2}
    common = {**dict.fromkeys(ledger_lines.COLUMNS, ""), "group": "g", "low": None, "high": None, "n": 1}
    lines = ledger_lines.from_rows(
        common | {"run": row, "seed": seed, "metric": metric, "value": value}
        for row, seeds in measured.items()
        for seed, values in enumerate(seeds)
        for metric, value in zip(("projection/mean_cosine/all", "encoder/all/auroc"), values, strict=True)
    )
    assert collapse_words(lines).to_dict() == {
        ("g", "a"): "1 of 2",
        ("g", "b"): "head",
        ("g", "c"): "-",
        ("g", "d"): "no",
    }
    assert build_table(lines).cells()["collapsed"].tolist() == ["1 of 2", "head", "-", "no"]


def test_the_command_writes_the_paper_table(tmp_path: Path) -> None:
    probed(make_run(tmp_path / "a", steps=()), 0.6)
    words = ("a", "--paper", "--columns", "AUROC", "test n", "--names", "supmin=Ours & co", "--output", "t")
    done = run("scripts.collect_results", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert (tmp_path / "t.md").read_text().splitlines()[:4] == [
        "| run | seeds | AUROC | test n |", "|---|---|---|---|", "| *digits 97:3, probe all* | | | |",
        "| Ours &#38; co | 1 | 60.0 [55.0, 65.0] | 40 |",
    ]  # fmt: skip
    assert r"Ours \& co & 1 & 65.0 [60.0, 70.0] & 40 \\" in (tmp_path / "t.tex").read_text()
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert [float(rows[1][f"AUROC {part}"]) for part in ("mean", "low", "high")] == pytest.approx([65, 60, 70])
    assert json.dumps([line["run"] for line in csv.DictReader((tmp_path / "t-ledger.csv").open())]).count("Ours") == 0
