"""Compare two runs on the same test samples: python scripts/compare.py RUN_A RUN_B.

Reads the two predictions.csv (of linear_eval.py, finetune.py or predict.py), matches the samples by id, and tests the
difference A - B: AUROC by DeLong's paired test and by the paired stratified bootstrap, balanced accuracy by the
bootstrap. Both runs are seen on the same draws. Prints a table and one line of JSON; `--output FILE` writes the JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import runtime
from ttc.checkpoint import write_text
from ttc.cli import Parser, whole
from ttc.metrics.comparison import compare_scores
from ttc.metrics.thresholds import RULES, choose_thresholds
from ttc.runfolder import shorten


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run.

    Attributes:
        path: the file.
        name: of the probe.
        test: rows of the test split by sample id, with the columns label and score.
        threshold: of the decisions.
        positive_class: whose scores they are.
    """

    path: Path
    name: str
    test: pandas.DataFrame
    threshold: float
    positive_class: int


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Compare two runs on the same test samples.", "python scripts/compare.py runs/a runs/b --probe all")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="run folder, evaluation folder or predictions.csv")
    parser.add_argument(
        "--probe",
        nargs="+",
        metavar="NAME",
        help="which predictions of a file with several are compared; two names where the runs differ in it",
    )
    parser.add_argument(
        "--threshold",
        choices=tuple(RULES),
        default="half",
        help="how each run's validation predictions choose the threshold of its decisions; half is 0.5 for both",
    )
    parser.add_argument(
        "--positive-class",
        type=whole(0, 1),
        metavar="LABEL",
        help="class whose probability the scores are; the default is what the result.json beside them says, else 1",
    )
    parser.add_argument("--bootstrap", type=whole(100), default=2000, metavar="DRAWS", help="draws; more are steadier")
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the draws")
    parser.add_argument("--output", metavar="FILE", help="also write the JSON to a file")
    return parser


def predictions_file(run: str) -> Path:
    """Return the file that a run folder, an evaluation folder or a path names."""
    path = Path(run)
    if path.is_file():
        return path
    found = [each for each in (path, path / "linear_eval", path / "finetune") if (each / "predictions.csv").is_file()]
    if len(found) != 1:
        what = "no predictions.csv" if not found else "several predictions.csv"
        raise ValueError(f"{run} has {what}; name the evaluation folder, such as {path / 'linear_eval'}")
    return found[0] / "predictions.csv"


def load(run: str, probe: str | None, rule: str, positive_class: int | None) -> Predictions:
    """Read the predictions of a run and choose its threshold.

    Raises:
        ValueError: no predictions of two classes, several probes to choose from, or samples that occur twice.
    """
    path = predictions_file(run)
    try:
        table = pandas.read_csv(path, dtype={"id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); evaluate the run again in a new folder") from None
    if missing := {"id", "label", "score", "split"} - set(table.columns):
        raise ValueError(f"{path} lacks the column {sorted(missing)[0]}; compare predictions of two classes")
    names = list(table["probe"].unique()) if "probe" in table else [""]
    if probe is not None and probe not in names:
        raise ValueError(f"--probe {probe} is not in {path}; choose from {shorten(names)}")
    if probe is None and len(names) > 1:
        raise ValueError(f"{path} holds several probes; choose one with --probe: {shorten(names, 10)}")
    chosen = names[0] if probe is None else probe
    table = table[table["probe"] == chosen] if "probe" in table else table
    table = table.set_index("id")
    test, val = table[table["split"] == "test"], table[table["split"] == "val"]
    if test.empty or test.index.has_duplicates:
        raise ValueError(f"{path} must hold every test sample once; evaluate the run again in a new folder")
    result = path.parent / "result.json"
    stored = json.loads(result.read_text()).get("positive_class", 1) if result.is_file() else 1
    positive = stored if positive_class is None else positive_class
    known = ((val["label"] == positive).to_numpy(), val["score"].to_numpy(float)) if len(val) else None
    threshold = choose_thresholds(known)[rule]
    if threshold is None:
        raise ValueError(f"--threshold {rule}: the validation predictions of {path} allow none; use half")
    return Predictions(path, chosen, test, threshold, positive)


def aligned(first: Predictions, second: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether each sample is positive, and its two scores.

    Raises:
        ValueError: the runs were not tested on the same samples with the same labels.
    """
    if first.positive_class != second.positive_class:
        raise ValueError(
            f"the scores are of class {first.positive_class} in {first.path}, of class {second.positive_class} in "
            f"{second.path}; evaluate one of them again with --positive-class"
        )
    differ = first.test.index.symmetric_difference(second.test.index)
    if len(differ):
        raise ValueError(
            f"{first.path} and {second.path} were tested on different samples ({len(differ)} are in one only, such as "
            f"{differ[0]}); compare runs with the same data, seed and split"
        )
    other = second.test.loc[first.test.index]
    if (first.test["label"] != other["label"]).any():
        raise ValueError(
            f"{first.path} and {second.path} give a sample different labels; compare runs of the same classes"
        )
    positive = (first.test["label"] == first.positive_class).to_numpy()
    if positive.all() or not positive.any():
        raise ValueError(f"{first.path} has test samples of one class only; a comparison needs both")
    return positive, first.test["score"].to_numpy(float), other["score"].to_numpy(float)


def as_text(runs: list[Predictions], result: dict) -> str:
    """Lay the comparison out for a terminal of 100 columns."""
    lines = [
        f"{mark}: {run.path} {run.name}, threshold {run.threshold:.4g}" for mark, run in zip("AB", runs, strict=True)
    ]
    lines.append(f"{result['n']} test samples: {result['positives']} positive, {result['negatives']} negative")
    lines.append(f"{'':<28}{'A':>9}{'B':>9}{'A - B':>9}{'95 % interval':>20}{'p':>10}")
    for name, title in (("auroc", "AUROC"), ("balanced_accuracy", "balanced accuracy")):
        for method in ("delong", "bootstrap"):
            if (test := result[name].get(method)) is None:
                continue
            low, high, p = test["low"], test["high"], test["p"]
            shown = "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"
            interval = "-" if low is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(
                f"{title + ', ' + method:<28}{100 * result[name]['first']:>9.1f}{100 * result[name]['second']:>9.1f}"
                f"{100 * result[name]['difference']:>9.1f}{interval:>20}{shown:>10}"
            )
    return "\n".join([*lines, "percent; p is two-sided and not corrected for several comparisons"])


def main() -> int:
    """Read, compare, print."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    probes = args.probe or [None]
    if len(probes) > 2:
        parser.refuse("--probe takes one name, or one for each run")
    runs = [
        load(run, probe, args.threshold, args.positive_class)
        for run, probe in zip(args.runs, [probes[0], probes[-1]], strict=True)
    ]
    positive, *scores = aligned(*runs)
    decisions = [each >= run.threshold for each, run in zip(scores, runs, strict=True)]
    result: dict = {
        "runs": [str(run.path) for run in runs],
        "probes": [run.name for run in runs],
        "threshold_rule": args.threshold,
        "thresholds": [run.threshold for run in runs],
        "positive_class": runs[0].positive_class,
        "bootstrap": args.bootstrap,
        "seed": args.seed,
        **compare_scores(positive, scores, decisions, bootstrap=args.bootstrap, seed=args.seed),
    }
    sys.stderr.write(as_text(runs, result) + "\n")
    text = json.dumps(result, allow_nan=False)
    sys.stdout.write(text + "\n")
    if args.output:
        write_text(Path(args.output), text + "\n")
    return 0


if __name__ == "__main__":
    runtime.run(main)
