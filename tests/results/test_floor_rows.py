"""The floor as a row of tables: one for each group, its marks, and what the ledger keeps of it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest

from study import paired, tables
from ttc.evaluation.floor.measure import FloorResult, compare
from ttc.models.description import Description
from ttc.results import brief, collect, ledger_lines
from ttc.results.figures.classifiers import _read, classifiers_of
from ttc.results.figures.members import Member
from ttc.results.floor.words import falls_short
from ttc.results.table_parts.columns import PAPER, WANTED
from ttc.results.table_parts.paper import paper_lines
from ttc.results.tables import as_latex, as_markdown, as_text, build_table
from ttc.run import ledger

FLAGS = {"dataset": "digits", "data_root": None, "class_ratios": None, "train_samples": None, "epochs": 1,
         "batch_sampler": "shuffle", "min_minority_per_batch": 0}  # fmt: skip


def entry(value: float) -> dict[str, float]:
    return {"mean": value, "low": value - 0.1, "high": value + 0.1}


def write_run(folder: Path, method: str, seed: int, auroc: float, floor: float | None) -> Path:
    """Write a run whose encoder reaches an AUROC, its fine-tuning a tenth more, beside a floor."""

    def classifier(value: float) -> dict[str, object]:
        return {"auroc": entry(value), "balanced_accuracy": entry(value - 0.05), "n": 40, "train_samples": 90}

    probes = {"encoder": {"all": classifier(auroc), "minority": classifier(auroc - 0.2)}}
    beside = None if floor is None else {"probes": {"all": classifier(floor), "minority": classifier(floor - 0.3)}}
    results = {
        "": {"kind": "pretrain", "collapse_value": None, "seconds": 1.0},
        "linear_eval": {"kind": "linear_eval", "probes": probes, "floor": beside, "positive_class": 1},
        "finetune": {"kind": "finetune", "probes": {"own": {"classifier": classifier(auroc + 0.1)}}},
    }
    values = {**FLAGS, "method": method, "seed": seed}
    for step, result in results.items():
        (folder / step).mkdir(parents=True, exist_ok=True)
        flags = values if not step else {"bootstrap": 0}
        arguments = {name: {"value": value, "source": "default"} for name, value in flags.items()}
        (folder / step / "args.json").write_text(json.dumps(arguments))
        (folder / step / "result.json").write_text(json.dumps(ledger.complete(result, flags)))
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> pandas.DataFrame:
    """Return the ledger of two methods and seeds: one is above the floor everywhere, one only after fine-tuning."""
    runs = [
        write_run(tmp_path / f"{method}{seed}", method, seed, auroc + seed / 100, 0.7 + seed / 100)
        for method, auroc in (("supcon", 0.65), ("supmin", 0.75))
        for seed in (0, 1)
    ]
    read = [collect.read_run(run)[0] for run in runs]
    return collect.lines_of(read, WANTED, also=["encoder/all/auroc", "encoder/all/balanced_accuracy"])


def test_a_group_has_one_row_for_its_floor_and_marks_what_is_below(lines: pandas.DataFrame) -> None:
    table = build_table(lines)
    assert [row for _, row in table.seeds.index] == ["supcon", "supmin", "floor"]
    assert table.seeds.tolist() == [2, 2, 2]
    assert table.mean["probe i AUC"].tolist() == pytest.approx([45.5, 55.5, 40.5])
    assert table.mean["fine-tuned AUC"].tolist() == pytest.approx([75.5, 85.5, 70.5])
    assert not table.below.any(axis=None)
    assert table.best["probe i AUC"].tolist() == [False, True, False]
    higher = lines.assign(value=lines["value"].where(lines["metric"] != "floor/all/auroc", 0.8))
    table = build_table(higher)
    assert table.below["fine-tuned AUC"].tolist() == [True, False, False]
    assert not table.best["fine-tuned AUC"]["digits", "floor"]
    assert "75.5+-0.7< " in as_text(table)
    assert "| 75.5 ± 0.7&lt; |" in as_markdown(table)
    assert r"75.5 $\pm$ 0.7$<$ &" in as_latex(table)
    assert "AUROC not above that of the floor" in " ".join(as_text(table).split())
    assert max(map(len, as_text(table).splitlines())) <= 100


def test_without_a_floor_tables_are_as_before(tmp_path: Path) -> None:
    run = collect.read_run(write_run(tmp_path / "a", "supmin", 0, 0.8, None))[0]
    lines = collect.lines_of([run], WANTED)
    assert not lines["metric"].str.startswith("floor/").any()
    assert "floor" not in as_text(build_table(lines)) + brief.as_text(lines)


def test_the_paper_table_and_the_brief_one_have_the_row_too(lines: pandas.DataFrame) -> None:
    table = build_table(paper_lines(lines, "all"), PAPER, name_groups=True)
    rows = [("digits, probe all", row) for row in ("supcon", "supmin", "floor")]
    assert [place for place in table.seeds.index if place[0] == "digits, probe all"] == rows
    assert table.below["AUROC"][rows].tolist() == [True, False, False]
    assert table.low["AUROC"]["digits, probe all", "floor"] == pytest.approx(60.5)
    assert [row[0] for row in brief.rows_of(lines)] == ["supcon", "supmin", "floor"]
    assert brief.rows_of(lines)[2][2] == "40.5 ± 0.7"
    low = lines.assign(value=lines["value"].where(lines["metric"] != "encoder/minority/auroc", 0.4))
    assert brief.rows_of(low)[0][2] == "40.0 ± 0.0<"


def test_a_ledger_keeps_the_floor_of_what_it_keeps(lines: pandas.DataFrame, tmp_path: Path) -> None:
    kept = set(lines["metric"][lines["metric"].str.startswith("floor/")])
    names = {f"floor/{probe}/{name}" for probe in ("all", "minority") for name in ("auroc", "balanced_accuracy")}
    assert kept == names
    (tmp_path / "ledger.csv").write_text(ledger_lines.to_csv(lines))
    again = ledger_lines.from_csv(tmp_path / "ledger.csv")
    assert as_text(build_table(again)) == as_text(build_table(lines))


def test_the_study_shows_the_floor_beside_its_rows() -> None:
    metrics = {"encoder/fraction/balanced_accuracy": 0.6, "floor/fraction/balanced_accuracy": 0.9}
    runs = pandas.DataFrame(
        [
            {"task": "mix5", "share": 5, "row": row, "seed": seed, **metrics}
            for row in ("supcon", "supmin")
            for seed in (0, 1)
        ]
    )
    assert "| floor | - | - | - | 90.0 ± 0.0 | - | - |" in tables.summary(runs)
    assert "\n| floor | 2 | 90.0 ± 0.0 |" in tables.all_rows(runs, 5)
    without = runs.drop(columns="floor/fraction/balanced_accuracy")
    assert paired.with_floors(without) is without


def test_figures_draw_the_floor_of_the_first_run_that_has_it(tmp_path: Path) -> None:
    for run in ("a", "b"):
        for place, shift in (("linear_eval", 0.0), ("linear_eval/floor", 0.5)):
            (tmp_path / run / place).mkdir(parents=True, exist_ok=True)
            table = pandas.DataFrame(
                {"id": [0, 1], "label": [0, 1], "score": [0.1, 0.2 + shift], "split": "test", "probe": "all"}
            )
            table.to_csv(tmp_path / run / place / "predictions.csv", index=False)
            (tmp_path / run / place / "result.json").write_text(
                json.dumps({"kind": "linear_eval", "positive_class": 1})
            )
    members = [Member(tmp_path / run, "digits", run, 0) for run in ("a", "b")]
    drawn = _read(members, classifiers_of("all")[0])
    assert list(drawn) == ["a", "b", "floor"]
    assert [each.scores_N.tolist() for each in drawn["floor"]] == [[0.1, 0.7]]


def description(size: int, scale: float, source: str) -> Description:
    from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing

    made = Preprocessing(source, Decoding(size, 1), size, 1.0)
    named = {"method": "supmin", "objective": {}, "encoder": {}, "projection_dim": None, "data": {"image_size": None}}
    counted = {"class_names": ["a", "b"], "class_counts": [9, 1], "minority_class": 1}
    return Description(
        **named, **counted, preprocessing=made, augmentation={"scale": [scale, 1.0]}, split_digest="", seed=0
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "scale", "source", "weights", "step", "advice"),
    [
        (48, 0.2, "files", None, 140, ("more steps", "milder crops", "larger images", "pretrained weights")),
        (48, 0.2, "memory", None, 140, ("more steps", "milder crops", "pretrained weights")),
        (224, 0.6, "files", None, 9000, ("pretrained weights",)),
        (224, 0.6, "files", "default", 9000, ("the method, or more images",)),
        (48, 0.2, "files", None, 0, ("untrained",)),
    ],
)
def test_advice_is_what_the_run_does_not_do_already(
    size: int, scale: float, source: str, weights: str | None, step: int, advice: tuple[str, ...]
) -> None:
    def summary(test: float, val: float) -> dict[str, object]:
        return {"auroc": {"mean": test}, "validation": {"auroc": {"mean": val}}}

    results = {"encoder": {"minority": summary(0.1, 0.1), "all": summary(0.8, 0.9)}}
    probes = {"all": summary(0.7, 0.95), "minority": summary(0.05, 0.05)}
    clears = compare(results, probes)
    assert clears == {
        "encoder": {"minority": {"test": True, "validation": True}, "all": {"test": True, "validation": False}}
    }
    floor = FloorResult(side=32, probes=probes, fits={}, clears=clears)
    said = " ".join(falls_short(results, floor, description(size, scale, source), {"weights": weights}, step))
    assert "AUROC 80.0 on test (floor 70.0) and 90.0 on validation (floor 95.0)" in said
    words = ("more steps", "milder crops", "larger images", "pretrained weights", "the method, or more", "untrained")
    assert [word for word in words if word in said] == [next(w for w in words if w in text) for text in advice]
    assert falls_short(results, {**floor, "clears": compare(results, {})}, description(8, 1, "files"), {}, 1) == []
