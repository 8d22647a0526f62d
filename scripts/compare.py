"""Compare two runs, or two methods in several runs each, on the same test samples.

    python scripts/compare.py RUN_A RUN_B
    python scripts/compare.py RUN_A ... --against RUN_B ...

Reads the two predictions.csv (of linear_eval.py, finetune.py or scripts/evaluate.py), matches the samples by id, and
tests the difference A - B: AUROC by DeLong's paired test, AUROC and balanced accuracy by the exchange test, with
intervals of the paired stratified bootstrap. Both runs are evaluated on the same draws. Where samples share a group
(patient, site), groups are taken as independent; `--per-group` compares one score per group. With more than two
classes, one is tested against the rest. Thresholds are those that the run's validation chose; on other data
(RUN/external/NAME) those frozen in the head. With --against the runs of both sides are matched by seed and fold, and
their mean difference is tested over images, over seeds, and over both: p-values of one seed are about two networks, not
about two methods. Prints a table and one line of JSON; `--output FILE` writes the JSON.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.evaluation.predictions import DecisionRule
from ttc.flags.parser import Namespace, Parser, whole
from ttc.metrics.clinic.matched import compare_matched
from ttc.metrics.clinic.per_group import LABELS, POOLS
from ttc.metrics.comparison import compare_scores
from ttc.metrics.thresholds import RULES
from ttc.results.clinic.matched import Place, Predictions, aligned, load_predictions, match, pair_of, per_group
from ttc.run import files, runtime
from ttc.run.checkpoint import write_text
from ttc.run.escape import counted, plain

TITLES = (("auroc", "AUROC"), ("balanced_accuracy", "balanced accuracy"))
ONE_RUN = (
    "one run each: p is about these two networks on other images, not about two methods, since another seed may turn "
    "it round; give the runs of several seeds or folds: RUN ... --against RUN ..."
)


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Compare two runs on the same test samples.", "python scripts/compare.py runs/a runs/b --probe all")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, evaluation folder or predictions.csv")
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="RUN",
        help="runs of the other method, matched with the first ones by seed and fold; set it to compare methods "
        "instead of two networks",
    )
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
        lines.append(f"intervals and p take the {counted(result['groups'], 'group')} (patients, sites) as independent")
    lines.append(f"{'':<28}{'A':>9}{'B':>9}{'A - B':>9}{'95 % interval':>20}{'p':>10}")
    for name, title in TITLES:
        for method in ("delong", "bootstrap"):
            if (test := result[name].get(method)) is None:
                continue
            if method == "bootstrap":
                test = {**test, **result[name]["exchange"]}
            low, high = test["low"], test["high"]
            interval = "-" if low is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(
                f"{title + ', ' + method:<28}{100 * result[name]['first']:>9.1f}{100 * result[name]['second']:>9.1f}"
                f"{100 * result[name]['difference']:>9.1f}{interval:>20}{shown(test['p']):>10}"
            )
    lines.append("percent; p is two-sided, not corrected for several comparisons; beside bootstrap: exchange test")
    return "\n".join([*lines, *textwrap.wrap(ONE_RUN, 100)])


def matched_as_text(matched: Sequence[tuple[Place, Predictions, Predictions]], result: dict[str, Any]) -> str:
    """Format the comparison of several runs for a terminal of 100 columns."""
    lines, more = [], f" and {len(matched) - 1} more" if len(matched) > 1 else ""
    for mark, run in zip("AB", matched[0][1:], strict=True):
        lines.append(f"{mark}: {run.path} {plain(run.name)}{more}")
    seeds, units = result["seeds"], "groups (patients, sites)" if result["groups"] else "images"
    lines.append(f"pairs of runs: {result['pairs']}, seeds: {seeds}, {units}: {result['units']}")
    lines.append(
        f"{'':<20}{'A':>7}{'B':>7}{'A - B':>7}{'95 % interval':>17}{'p both':>10}{'p images':>10}{'p seeds':>10}"
    )
    for name, title in TITLES:
        found = result[name]
        both = found["both"] or {"low": None, "p": None}
        interval = "-" if both["low"] is None else f"[{100 * both['low']:.1f}, {100 * both['high']:.1f}]"
        chances = "".join(f"{shown(test['p']):>10}" for test in (both, found["images"], found["seeds"]))
        numbers = "".join(f"{100 * found[part]:>7.1f}" for part in ("first", "second", "difference"))
        lines.append(f"{title:<20}{numbers}{interval:>17}{chances}")
        if seeds > 1:
            lines.append(f"{'  by seed':<20}" + " ".join(f"{100 * value:+.1f}" for value in found["by_seed"]))
    return "\n".join([*lines, *(row for line in meaning_of(result) for row in textwrap.wrap(line, 100))])


def meaning_of(result: dict[str, Any]) -> list[str]:
    """Return what the p-values are about, and what they cannot tell."""
    found, units = result["auroc"], "groups" if result["groups"] else "images"
    lines = [f"images: exchange test by {units}; would these very networks differ on other {units}?"]
    if found["seeds"]["p"] is None and found["both"] is None:
        return [*lines, ONE_RUN.partition(";")[0] + "; add seeds or folds"]
    if found["seeds"]["p"] is None:
        lines.append(
            "both: t test over the folds, corrected since their training sets overlap; one seed does not tell how "
            "much another division or another start of the training changes: add seeds"
        )
    else:
        least = found["seeds"]["smallest"]
        lines.append(
            f"seeds: signs of the differences of {counted(result['seeds'], 'seed')}; p cannot be below {least:.2g}"
            + (", so that it never is below 0.05: take at least six" if least > 0.05 else "")
        )
        lines.append("both: t test whose variance is that over seeds plus that over images; the one to report")
    return [*lines, "percent; two-sided, not corrected for several comparisons; another data set is another matter"]


def shown(p: float | None) -> str:
    """Return a p-value as text."""
    return "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"


def compare_two(args: Namespace, runs: list[Predictions], rule: DecisionRule) -> tuple[str, dict[str, Any]]:
    """Return the comparison of two runs, as text and as values."""
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
    return as_text(runs, result), result


def compare_sides(
    args: Namespace, first: list[Predictions], second: list[Predictions], rule: DecisionRule
) -> tuple[str, dict[str, Any]]:
    """Return the comparison of matched runs, as text and as values."""
    matched = match(first, second)
    pairs = [pair_of(place, left, right, rule) for place, left, right in matched]
    grouped = rule.pool is not None or any(matched[0][1].test["group"])
    result: dict[str, Any] = {
        "runs": [str(run.path) for _, run, _ in matched],
        "against": [str(run.path) for _, _, run in matched],
        "matched": [{"seed": place.seed, "fold": place.fold or None} for place, _, _ in matched],
        "threshold_rule": args.threshold,
        "per_group": args.per_group,
        "groups": grouped,
        "positive_class": matched[0][1].positive_class,
        "draws": args.bootstrap,
        "seed": args.seed,
        **compare_matched(pairs, draws=args.bootstrap, seed=args.seed),
    }
    return matched_as_text(matched, result), result


def main() -> int:
    """Read, compare, print."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    probes = args.probe or [None]
    if len(probes) > 2:
        parser.refuse("--probe takes one name, or one for each side")
    if args.against is None and len(args.runs) != 2:
        parser.refuse("give two runs, or several runs of each method: RUN ... --against RUN ...")
    if args.output:
        files.place(Path(args.output))
    rule = DecisionRule(args.threshold, args.per_group, args.group_label)
    sides = ([args.runs[0]], [args.runs[1]]) if args.against is None else (args.runs, args.against)
    first, second = (
        [load_predictions(run, probe, rule, args.positive_class) for run in side]
        for side, probe in zip(sides, [probes[0], probes[-1]], strict=True)
    )
    if args.against is None:
        text, result = compare_two(args, [*first, *second], rule)
    else:
        text, result = compare_sides(args, first, second, rule)
    sys.stderr.write(text + "\n")
    line = json.dumps(result, allow_nan=False) + "\n"
    sys.stdout.write(line)
    if args.output:
        write_text(Path(args.output), line)
    return 0


if __name__ == "__main__":
    runtime.run(main)
