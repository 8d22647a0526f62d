"""Compare two runs on the same test samples: python scripts/compare.py RUN_A RUN_B.

Reads the two predictions.csv (of linear_eval.py, finetune.py or scripts/evaluate.py), matches the samples by id, and
tests the difference A - B: AUROC by DeLong's paired test, AUROC and balanced accuracy by the exchange test, with
intervals of the paired stratified bootstrap. Both runs are evaluated on the same draws. Where samples share a group
(patient, site), groups are taken as independent; `--per-group` compares one score per group. With more than two
classes, one is tested against the rest. Thresholds are those that the run's validation chose; on other data
(RUN/external/NAME) those frozen in the head. Prints a table and one line of JSON; `--output FILE` writes the JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.evaluation.predictions import DecisionRule, read_predictions_table
from ttc.flags.parser import Parser, whole
from ttc.metrics.clinic.per_group import LABELS, POOLS
from ttc.metrics.comparison import compare_scores
from ttc.metrics.thresholds import RULES
from ttc.run import runtime
from ttc.run.checkpoint import write_text
from ttc.run.escape import plain
from ttc.run.folder import shorten
from ttc.run.readers import Source, read_positive_class, read_result


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run.

    Attributes:
        path: the file.
        name: of the probe.
        test: rows of the test split by sample id, with the columns label, score and group.
        threshold: a sample is called positive if its score reaches it.
        positive_class: the class whose probability the scores are.
        classes: how many classes the run has.
    """

    path: Path
    name: str
    test: pandas.DataFrame
    threshold: float
    positive_class: int
    classes: int


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Compare two runs on the same test samples.", "python scripts/compare.py runs/a runs/b --probe all")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="run folder, evaluation folder or predictions.csv")
    parser.add_argument(
        "--probe",
        nargs="+",
        metavar="NAME",
        help="whose predictions are compared, if a file holds several; two names where the runs differ in them",
    )
    parser.add_argument(
        "--per-group",
        choices=POOLS,
        help="compare one score per group (patient, site), the mean or the largest of its samples; set it when "
        "decisions are about groups",
    )
    parser.add_argument(
        "--group-label",
        choices=LABELS,
        default="any",
        help="when a group is positive: if any of its images is, or if all are",
    )
    parser.add_argument(
        "--threshold",
        choices=tuple(RULES),
        default="half",
        help="how each run's validation predictions choose the threshold of its decisions; half is 0.5 for both",
    )
    parser.add_argument(
        "--positive-class",
        type=whole(0),
        metavar="LABEL",
        help="of more than two classes, the one that is tested against the rest; of two, the one whose probability the "
        "scores are; the default is that of the result.json beside them, else 1",
    )
    parser.add_argument("--bootstrap", type=whole(100), default=2000, metavar="DRAWS", help="draws; more are steadier")
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the draws")
    parser.add_argument("--output", metavar="FILE", help="also write the JSON to a file")
    return parser


def predictions_file(run: str) -> Path:
    """Return the file that a run folder, an evaluation folder or a path names."""
    path = Path(run)
    if path.exists() and not path.is_dir():
        return path
    folders = [
        folder for folder in (path, path / "linear_eval", path / "finetune") if (folder / "predictions.csv").is_file()
    ]
    if len(folders) != 1:
        what = "no predictions.csv" if not folders else "several predictions.csv"
        inside = sorted(path.glob("external/*/predictions.csv")) + sorted(path.glob("*/predictions.csv"))
        example = inside[0].parent if inside else path / "linear_eval"
        raise ValueError(f"{run} has {what}; name the evaluation folder, such as {example}")
    return folders[0] / "predictions.csv"


def choose_probe(table: pandas.DataFrame, probe: str | None, path: Path) -> tuple[str, pandas.DataFrame]:
    """Return the name and the predictions of one probe.

    Raises:
        ValueError: it is not there, or there are several to choose from.
    """
    if "probe" not in table and probe is None:
        return "", table
    names = list(table["probe"].unique()) if "probe" in table else []
    if probe is not None and probe not in names:
        raise ValueError(f"--probe {probe} is not in {path}; choose from {shorten(names)}")
    if probe is None and len(names) > 1:
        raise ValueError(f"{path} holds several probes; choose one with --probe: {shorten(names, 10)}")
    name = probe or names[0]
    return name, table[table["probe"] == name]


def load(run: str, probe: str | None, rule: DecisionRule, positive_class: int | None) -> Predictions:
    """Read the predictions of a run and choose its threshold.

    Raises:
        ValueError: no predictions, several probes to choose from, or samples that occur twice.
    """
    path = predictions_file(run)
    within = Path(run) if Path(run).is_dir() else None
    name, table = choose_probe(read_predictions_table(path, within), probe, path)
    result = path.parent / "result.json"
    content = read_result(result, within) if result.is_file() else {}
    stored = read_positive_class(result, within) if content else 1
    positive = stored if positive_class is None else positive_class
    classes = sum(column.startswith("score_") for column in table.columns) or 2
    if positive >= classes:
        raise ValueError(f"--positive-class {positive} is not in {path}, which has the classes 0 to {classes - 1}")
    if classes > 2:
        table = table.assign(score=table[f"score_{positive}"])
    elif content and positive != stored:
        raise ValueError(f"--positive-class {positive}: the scores in {path} are of class {stored}; leave it out")
    table = table.assign(group=table.get("group", "")).set_index("id")
    test, val = table[table["split"] == "test"], table[table["split"] == "val"]
    if test.empty or test.index.has_duplicates:
        raise ValueError(f"{path} must hold every test sample once; evaluate the run again in a new folder")
    if rule.pool is not None and not table["group"].all():
        raise ValueError(f"--per-group: {path} has samples without a group; leave it out, or evaluate with groups")
    if content.get("kind") == "external":
        probes: Any = content.get("probes")
        threshold = Source(result, within=within).using(lambda: rule.frozen(probes["external"][name]))
    else:
        threshold = rule.on_validation(val, positive)
    if threshold is None:
        raise ValueError(f"--threshold {rule.threshold}: the validation behind {path} allows none; use half")
    return Predictions(path, name, test, threshold, positive, classes)


def aligned(first: Predictions, second: Predictions) -> tuple[np.ndarray, list[np.ndarray], list[str] | None]:
    """Return whether each sample is positive, its two scores, and its group where the data have groups.

    Raises:
        ValueError: the runs were not tested on the same samples with the same labels and groups.
    """
    if first.classes != second.classes:
        raise ValueError(
            f"{first.path} has {first.classes} classes, {second.path} {second.classes}; compare runs of equal classes"
        )
    if first.positive_class != second.positive_class:
        raise ValueError(
            f"the scores are of class {first.positive_class} in {first.path}, of class {second.positive_class} in "
            f"{second.path}; evaluate one of them again with --positive-class"
        )
    unmatched = first.test.index.symmetric_difference(second.test.index)
    if len(unmatched):
        raise ValueError(
            f"{first.path} and {second.path} were tested on different samples ({len(unmatched)} are in one only, such "
            f"as {unmatched[0]}); compare runs with the same data, seed and split"
        )
    second_test = second.test.loc[first.test.index]
    for column in ("label", "group"):
        if (first.test[column] != second_test[column]).any():
            raise ValueError(
                f"{first.path} and {second.path} give a sample different {column}s; compare runs on the same data and "
                "classes"
            )
    positive = (first.test["label"] == first.positive_class).to_numpy()
    if positive.all() or not positive.any():
        raise ValueError(f"{first.path} has test samples of one class only; a comparison needs both")
    groups = first.test["group"].tolist()
    scores = [predictions["score"].to_numpy(float) for predictions in (first.test, second_test)]
    return positive, scores, groups if any(groups) else None


def per_group(
    positive: np.ndarray, scores: list[np.ndarray], groups: list[str] | None, rule: DecisionRule, path: Path
) -> tuple[np.ndarray, list[np.ndarray], list[str] | None]:
    """Return what `aligned` does, by group where that is wanted.

    Raises:
        ValueError: all groups are of one class.
    """
    if rule.pool is None:
        return positive, scores, groups
    assert groups is not None
    pairs = [rule.pooled(positive, score, groups) for score in scores]
    if pairs[0][0].all() or not pairs[0][0].any():
        raise ValueError(f"--per-group: {path} has groups of one class only; try --group-label, or leave it out")
    return pairs[0][0], [score for _, score in pairs], None


def as_text(runs: list[Predictions], result: dict[str, Any]) -> str:
    """Format the comparison for a terminal of 100 columns."""
    lines = [
        f"{mark}: {run.path} {plain(run.name)}, threshold {run.threshold:.4g}, n = {len(run.test)}"
        for mark, run in zip("AB", runs, strict=True)
    ]
    units = "test samples" if result["per_group"] is None else f"groups ({result['per_group']} of their samples)"
    lines.append(f"{result['n']} {units}: {result['positives']} positive, {result['negatives']} negative")
    if runs[0].classes > 2:
        lines.append(
            f"class {runs[0].positive_class} is positive, the other {runs[0].classes - 1} classes are negative"
        )
    if result["groups"] is not None:
        lines.append(f"intervals and p take the {result['groups']} groups (patients, sites) as independent")
    lines.append(f"{'':<28}{'A':>9}{'B':>9}{'A - B':>9}{'95 % interval':>20}{'p':>10}")
    for name, title in (("auroc", "AUROC"), ("balanced_accuracy", "balanced accuracy")):
        for method in ("delong", "bootstrap"):
            if (test := result[name].get(method)) is None:
                continue
            if method == "bootstrap":
                test = {**test, **result[name]["exchange"]}
            low, high, p = test["low"], test["high"], test["p"]
            shown = "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"
            interval = "-" if low is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(
                f"{title + ', ' + method:<28}{100 * result[name]['first']:>9.1f}{100 * result[name]['second']:>9.1f}"
                f"{100 * result[name]['difference']:>9.1f}{interval:>20}{shown:>10}"
            )
    lines.append("percent; p is two-sided, not corrected for several comparisons; beside bootstrap: exchange test")
    return "\n".join(lines)


def main() -> int:
    """Read, compare, print."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    probes = args.probe or [None]
    if len(probes) > 2:
        parser.refuse("--probe takes one name, or one for each run")
    rule = DecisionRule(args.threshold, args.per_group, args.group_label)
    runs = [
        load(run, probe, rule, args.positive_class)
        for run, probe in zip(args.runs, [probes[0], probes[-1]], strict=True)
    ]
    positive, scores, groups = per_group(*aligned(*runs), rule, runs[0].path)
    decisions = [score >= run.threshold for score, run in zip(scores, runs, strict=True)]
    result: dict[str, Any] = {
        "runs": [str(run.path) for run in runs],
        "probes": [run.name for run in runs],
        "threshold_rule": args.threshold,
        "thresholds": [run.threshold for run in runs],
        "per_group": args.per_group,
        "test_samples": [len(run.test) for run in runs],
        "classes": runs[0].classes,
        "positive_class": runs[0].positive_class,
        "bootstrap": args.bootstrap,
        "seed": args.seed,
        **compare_scores(positive, scores, decisions, groups=groups, bootstrap=args.bootstrap, seed=args.seed),
    }
    sys.stderr.write(as_text(runs, result) + "\n")
    text = json.dumps(result, allow_nan=False)
    sys.stdout.write(text + "\n")
    if args.output:
        write_text(Path(args.output), text + "\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
