"""How many steps and which crops small sets need: the tables of docs/budget.md.

python study/budget.py             from docs/results/study-budget-ledger.csv

The page's blocks are replaced, its text stays. `ttc.training.budget` holds the rules that follow from the tables.
"""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from study.tables import markdown
from ttc.flags.parser import Parser
from ttc.results import ledger_lines
from ttc.results.tables import replace_block
from ttc.run import manifest, runtime

STEPS_PER_EPOCH = {"breast": 8, "xray": 2, "cells": 49, "fashion": 78}
"""Task -> its training images divided by the batch of 64."""
LENGTHS = (100, 400, 1500, 6000)
"""Optimizer steps, up to whole epochs."""
TEST, VALIDATION = "encoder/all/auroc", "encoder/all/validation/auroc"
_FOLDER = re.compile(
    r"(?P<task>\w+)/(?P<method>supmin|weighted-ce)-(?P<sampler>shuffle|balanced)-crop(?P<crop>[\d.]+)"
    r"-epochs(?P<epochs>\d+)-seed\d+"
)
Change = tuple[str, str, str]
"""Column, value before, value after."""


def planned() -> list[str]:
    """Return the run folders of all manifests, as the ledger names them."""
    folder = ROOT / "scripts" / "manifests"
    return [
        f"{task}/{line.folder}"
        for task in STEPS_PER_EPOCH
        for line in manifest.read_manifest(folder / f"study-budget-{task}.csv")
    ]


def read(ledger: Path) -> pandas.DataFrame:
    """Return a line per run: what was varied, AUROC of test and validation images in %, what the former rests on."""
    lines = ledger_lines.from_csv(ledger)
    lines = lines[lines["value"].notna()]
    values = lines.pivot_table(index="folder", columns="metric", values="value")[[TEST, VALIDATION]].mul(100)
    matches = [match for folder in values.index if (match := _FOLDER.search(folder))]
    named = pandas.DataFrame([match.groupdict() for match in matches], values.index)
    steps = named["epochs"].astype(int) * named["task"].map(STEPS_PER_EPOCH)
    named["steps"] = [min(LENGTHS, key=lambda length: abs(length - own)) for own in steps]
    test = lines[lines["metric"] == TEST].set_index("folder")
    positives = test["rests_on"].str.replace(r".*?(\d+ positives(?: of \d+ \w+)?).*", r"\1", regex=True)
    runs = named.join(values).assign(positives=positives, images=test["n"])
    return runs.sort_values(["task", "steps", "sampler", "crop", "method"]).reset_index(drop=True)


def rows(runs: pandas.DataFrame, task: str) -> str:
    """Return the AUROC of one task, test images first and validation images in brackets."""
    runs = runs[runs["task"] == task]
    if runs.empty:
        return "Not measured yet.\n"
    columns = [(method, crop) for method in ("weighted-ce", "supmin") for crop in ("0.2", "0.6")]
    header = ["steps", "batches", *(f"{method}, crops from {float(crop):.0%}" for method, crop in columns)]
    table = []
    for steps in LENGTHS:
        for sampler in ("shuffle", "balanced"):
            of = runs[(runs["steps"] == steps) & (runs["sampler"] == sampler)].set_index(["method", "crop"])
            if len(of):
                cells = [
                    f"{of.at[place, TEST]:.1f} ({of.at[place, VALIDATION]:.1f})" if place in of.index else "-"
                    for place in columns
                ]
                table.append([f"{steps:,}", sampler, *cells])
    first = runs.iloc[0]
    return f"{first['images']} test images, {first['positives']}:\n\n{markdown(header, table)}"


def changes(runs: pandas.DataFrame, change: Change, task: str) -> pandas.DataFrame:
    """Return the differences in TEST and VALIDATION of runs that one change apart are equal, a line per pair."""
    column, before, after = change
    keys = [name for name in ("method", "sampler", "crop", "steps") if name != column]
    of = runs[runs["task"] == task]
    if column != "steps":  # where a run is too short its crops tell nothing
        of = of[of["steps"] > LENGTHS[0]]
    sides = [of[of[column].astype(str) == value].set_index(keys)[[TEST, VALIDATION]] for value in (before, after)]
    return (sides[1] - sides[0]).dropna()


CHANGES: dict[str, Change] = {
    **{f"{few:,} to {many:,} steps": ("steps", str(few), str(many)) for few, many in itertools.pairwise(LENGTHS)},
    "crops from 60 % instead of 20 %": ("crop", "0.2", "0.6"),
    "balanced instead of shuffled batches": ("sampler", "shuffle", "balanced"),
}


def summary(runs: pandas.DataFrame) -> str:
    """Return what each change does to the AUROC on test images, and in brackets on validation images, by task."""
    table = []
    for name, change in CHANGES.items():
        cells = []
        for task in STEPS_PER_EPOCH:
            pairs = changes(runs, change, task)
            mean = pairs.mean()
            rising = f"{(pairs[TEST] > 0).sum()} of {len(pairs)}"
            cells.append(f"{mean[TEST]:+.1f} ({mean[VALIDATION]:+.1f}), {rising}" if len(pairs) else "not measured")
        table.append([name, *cells])
    return markdown(["change", *STEPS_PER_EPOCH], table)


def main() -> int:
    """Read, write."""
    parser = Parser("Fill docs/budget.md from its ledger.", "python study/budget.py")
    results = ROOT / "docs" / "results" / "study-budget-ledger.csv"
    parser.add_argument("--ledger", default=str(results), metavar="FILE", help="ledger of the runs")
    page = ROOT / "docs" / "budget.md"
    parser.add_argument("--page", default=str(page), metavar="FILE", help="page whose blocks are replaced")
    args = parser.parse(sys.argv[1:]).namespace()
    runs = read(Path(args.ledger))
    done = f"{len(runs)} of the {len(planned())} planned runs are in the ledger.\n"
    blocks = {"done": done, "summary": summary(runs), **{task: rows(runs, task) for task in STEPS_PER_EPOCH}}
    for name, text in blocks.items():
        replace_block(Path(args.page), name, text)
    return 0


if __name__ == "__main__":
    runtime.run(main)
