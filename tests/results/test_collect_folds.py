"""Runs that are folds of one experiment: one row of pooled predictions; what is incomplete or overlaps is refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn import metrics as sk

from tests.results.test_collect import WANTED, make_run, write
from ttc.results import brief, collect, ledger_lines
from ttc.results.clinic.folds import lines_over_folds
from ttc.results.tables import as_csv, as_text, build_table
from ttc.run import ledger

IDS = [f"im/{k:02d}" for k in range(60)]
LABELS = [int(k % 4 == 0) for k in range(60)]


def make_fold(folder: Path, fold: int, count: int = 3, *, seed: int = 0, draw: int = 0, **training: object) -> Path:
    """Write a run that tested every third image, with predictions of two probes on validation and test."""
    path = make_run(folder / f"r{seed}-fold{fold}of{count}", seed=seed, fold=f"{fold}/{count}", **training)  # type: ignore[arg-type]
    splits = [
        "test" if k % count == fold - 1 else "val" if k % count == fold % count and k % 5 < 2 else "train"
        for k in range(60)
    ]
    with (path / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "path", "label", "split", "group"]])
        csv.writer(file).writerows(zip(IDS, [""] * 60, LABELS, splits, [""] * 60, strict=True))
    generator = np.random.default_rng([seed, fold, draw])
    with (path / "linear_eval" / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "label", "score", "probability", "split", "group", "probe"]])
        for probe in ("minority", "fraction"):
            for name, label, split in zip(IDS, LABELS, splits, strict=True):
                if split != "train":
                    score = generator.uniform(0.3 * label, 0.7 + 0.3 * label) ** fold
                    csv.writer(file).writerow([name, label, score, score**0.5, split, "", probe])
    flags = {"protocol": "logistic", "probe_fraction": 0.01, "seed": 0, "bootstrap": 40, "layers": ["encoder"]}
    write(path / "linear_eval" / "args.json", {k: {"value": v, "source": "default"} for k, v in flags.items()})
    summary = {name: {"mean": fold / 10, "low": None, "high": None} for name in ("balanced_accuracy", "auroc")}
    result = {"kind": "linear_eval", "seed": seed, "method": "supmin", "dataset": "digits", "positive_class": 1}
    probes = {"encoder": {name: {**summary, "n": 20} for name in ("minority", "fraction")}}
    write(path / "linear_eval" / "result.json", ledger.complete({**result, "probes": probes}, flags))
    return path


def lines_of(*folders: Path, complete: bool = True) -> pandas.DataFrame:
    return collect.lines_of([collect.read_run(folder)[0] for folder in folders], WANTED, complete=complete)


def predictions_of(folders: list[Path], probe: str) -> pandas.DataFrame:
    tables = [pandas.read_csv(folder / "linear_eval" / "predictions.csv") for folder in folders]
    table = pandas.concat(tables)
    return table[(table["split"] == "test") & (table["probe"] == probe)]


def test_folds_are_one_row_of_pooled_predictions(tmp_path: Path) -> None:
    folders = {seed: [make_fold(tmp_path, fold, seed=seed) for fold in (2, 3, 1)] for seed in (0, 1)}
    lines = lines_of(*folders[0], *folders[1])
    table = build_table(lines)
    assert table.seeds.to_dict() == {("digits 97:3, 3 folds", "supmin"): 2}
    chances = {seed: predictions_of(paths, "minority") for seed, paths in folders.items()}
    assert all(sorted(each["id"]) == IDS for each in chances.values())
    accuracy = [sk.balanced_accuracy_score(each["label"], each["score"] >= 0.5) for each in chances.values()]
    assert table.mean["probe i acc"].item() == pytest.approx(100 * np.mean(accuracy))
    assert table.deviation["probe i acc"].item() == pytest.approx(100 * np.std(accuracy, ddof=1))
    areas = [
        np.mean([sk.roc_auc_score(part["label"], part["score"]) for part in (each[:20], each[20:40], each[40:])])
        for each in chances.values()
    ]
    assert table.mean["probe i fold AUC"].item() == pytest.approx(100 * np.mean(areas))
    pooled = lines[(lines["metric"] == "encoder/minority/auroc") & (lines["fold"] == "pooled")].iloc[0]
    # Every fold has five positives of twenty, so that all probabilities hold at one prevalence.
    assert pooled["value"] == pytest.approx(sk.roc_auc_score(chances[0]["label"], chances[0]["probability"]))
    assert (pooled["n"], pooled["rests_on"]) == (60, "15 positives: rough")
    assert pooled["low"] < pooled["value"] < pooled["high"]
    of_loss = lines[lines["metric"] == "train/loss"]
    assert list(of_loss["fold"]) == ["2/3", "3/3", "1/3"] * 2 + ["mean of 3"] * 2
    assert table.mean["loss end"].item() == pytest.approx(1.5)
    assert brief.rows_of(lines)[0][1].startswith(f"{100 * np.mean(accuracy):.1f} ± ")
    assert "mean of the folds' AUROCs" in " ".join(as_text(table).split())


def test_the_floor_and_a_finetuned_network_are_pooled_too(tmp_path: Path) -> None:
    folders = [make_fold(tmp_path, fold) for fold in (1, 2, 3)]
    for folder in folders:
        text = (folder / "linear_eval" / "predictions.csv").read_text()
        for place, probe in (("linear_eval/floor", "minority"), ("finetune", "own")):
            (folder / place).mkdir()
            (folder / place / "predictions.csv").write_text(text.replace("minority", probe).replace("fraction", "x"))
        for name in ("args.json", "result.json"):
            (folder / "finetune" / name).write_text((folder / "linear_eval" / name).read_text())
    runs = {folder.name: collect.read_run(folder)[0] for folder in folders}
    metrics = ("encoder/minority/auroc", "floor/minority/auroc", "finetune/own/classifier/auroc")
    entries = [
        {"group": "g", "run": "r", "seed": 0, "fold": f"{k}/3", "folder": name, "metric": metric, "value": 0.5}
        for k, name in enumerate(runs, 1)
        for metric in metrics
    ]
    lines = {str(line["metric"]): line for line in lines_over_folds(entries, runs, complete=True)}
    assert lines.keys() == {name for metric in metrics for name in (metric, f"{metric}_mean_of_folds")}
    assert {line["fold"] for line in lines.values()} == {"pooled"}
    assert len({lines[metric]["value"] for metric in metrics}) == 1, "all three have the same predictions"


def test_ledgers_keep_folds_and_those_without_stay_as_they_were(tmp_path: Path) -> None:
    folders = [make_fold(tmp_path / "a", fold) for fold in (1, 2, 3)]
    lines = lines_of(*folders)
    path = tmp_path / "ledger.csv"
    path.write_text(ledger_lines.to_csv(lines))
    again = ledger_lines.from_csv(path)
    pandas.testing.assert_frame_equal(again, lines.reset_index(drop=True))
    assert as_csv(build_table(again)) == as_csv(build_table(lines))
    assert as_csv(build_table(ledger_lines.update(again, lines))) == as_csv(build_table(lines))
    plain = lines_of(make_run(tmp_path / "b"))
    path.write_text(ledger_lines.to_csv(plain))
    assert "fold" not in path.read_text().splitlines()[0].split(",")
    pandas.testing.assert_frame_equal(ledger_lines.from_csv(path), plain)
    assert list(build_table(ledger_lines.update(plain, lines)).seeds.index.get_level_values("group")) == [
        "digits 97:3",
        "digits 97:3, 3 folds",
    ]


def test_what_is_no_whole_experiment_is_refused_in_one_line(tmp_path: Path) -> None:
    folders = [make_fold(tmp_path, fold) for fold in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"supmin, seed 0: fold 2/3 is missing; give all 3 runs") as caught:
        lines_of(folders[0], folders[2])
    assert "\n" not in str(caught.value)
    allowed = lines_of(folders[0], folders[2], complete=False)
    assert math.isnan(build_table(allowed).mean["probe i AUC"].item())
    other = [make_fold(tmp_path / "other", fold, 4) for fold in (1, 2, 3, 4)]
    groups = build_table(lines_of(*folders, *other)).seeds.index.get_level_values("group")
    assert list(groups) == ["digits 97:3, 3 folds", "digits 97:3, 4 folds"]
    split = folders[1] / "split.csv"
    text = split.read_text()
    for changed, message in (
        (text.replace("im/00,,1,train", "im/00,,1,test").replace("im/00,,1,val", "im/00,,1,test"), "both tested im/00"),
        (text.replace("im/01,,0,test", "im/01,,0,train"), r"no fold has tested im/01 \(1 in all\)"),
        (text.replace("im/02", "im/xx"), "are folds of different data: im/02 is in one only"),
    ):
        split.write_text(changed)
        with pytest.raises(ValueError, match=message):
            lines_of(*folders)
