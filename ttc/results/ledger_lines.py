"""The ledger of several runs: one line per run and metric, as CSV, and the refusal to mix what cannot be compared.

A ledger is a DataFrame with the columns of COLUMNS: texts are never missing, an undefined number is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas

from ttc.run.readers import Source, numbers, read_table, wholes

COLUMNS = {
    "group": "str",
    "run": "str",
    "folder": "str",
    "seed": "int64",
    "metric": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "split": "str",
    "n": "Int64",
    "shared": "str",
    "training": "str",
    "evaluation": "str",
    "commit": "str",
    "dirty": "str",
    "rests_on": "str",
    "fold": "str",
}
"""Column -> type.

group: data of the run, for people. run: name of the row, the method and what else sets the row apart. folder: the run
folder, relative to --results or to the nearest folder that all runs of the table lie in. metric: as in
`ledger.measures`; value, with the ends of its 95 % interval, on the n samples of a split. shared: digest of the
training arguments that all rows of a group must share; training: of all but the seed; evaluation: of the evaluation's
arguments, for numbers of the training itself those of the training. commit, dirty: of the code that measured; empty if
unknown. rests_on: what the interval rests on, such as "11 positives of 9 patients: rough"; empty without an interval.
fold: which part of an experiment in folds the run is, "I/K"; "pooled" for the predictions of all of them together, and
"mean of K" for the mean of what cannot be pooled, with the folder of the first fold. Files of runs without folds lack
this column.
"""

_ADDED = ("rests_on", "fold")
"""Columns that earlier ledgers lack."""

_EXACT = ("value", "low", "high")

_RULES = (
    ("settings of the training", ["group"], "shared"),
    ("arguments of the training", ["group", "run"], "training"),
    ("arguments of the evaluation", ["group", "metric"], "evaluation"),
    ("split", ["metric"], "split"),
)
"""What is compared, the lines among which it must be the same, and its column."""


def from_rows(rows: Iterable[Mapping[str, object]]) -> pandas.DataFrame:
    """Return a ledger with these lines, each a mapping with all of COLUMNS; "fold" may be missing."""
    return pandas.DataFrame([{"fold": "", **row} for row in rows], columns=list(COLUMNS)).astype(COLUMNS)


def check(lines: pandas.DataFrame) -> None:
    """Refuse lines that must not share a table: other settings, other splits, the same run twice.

    Raises:
        ValueError: the message names two run folders and what differs.
    """
    for what, keys, column in _RULES:
        stated = lines[lines[column] != ""]
        if column == "evaluation":  # what the training itself logged was evaluated by nobody
            stated = stated[stated["evaluation"] != stated["training"]]
        mixed = stated[stated.groupby(keys)[column].transform("nunique") > 1]
        if len(mixed):
            first = mixed.iloc[0]
            alike = mixed[(mixed[keys] == first[keys]).all(axis=1)]
            other = alike[alike[column] != first[column]].iloc[0]
            raise ValueError(
                f"{other['folder']} and {first['folder']} differ in the {what} behind {other['metric']} "
                f"({first[column]}, {other[column]}); put them in separate tables"
            )
    keys = ["group", "run", "seed", "fold", "metric"]
    twins = lines[lines.duplicated(keys, keep=False)]
    if len(twins):
        first, second = twins[(twins[keys] == twins.iloc[0][keys]).all(axis=1)].iloc[:2].itertuples()
        raise ValueError(
            f"{first.folder} and {second.folder} are the same run ({first.run}, seed {first.seed}); leave one out"
        )


def to_csv(lines: pandas.DataFrame) -> str:
    """Write lines as CSV; an undefined number is an empty cell."""
    used = lines if (lines["fold"] != "").any() else lines.drop(columns="fold")
    return str(used.to_csv(index=False, lineterminator="\n"))


def of_rows(lines: pandas.DataFrame) -> pandas.DataFrame:
    """Return the lines that tables are made of: in the place of folds those of whole experiments."""
    return lines[~lines["fold"].str.contains("/")]


def update(lines: pandas.DataFrame, newer: pandas.DataFrame) -> pandas.DataFrame:
    """Add the lines of further runs; runs that are in both are taken from the newer ones, in the older ones' place.

    Names tell apart what was collected together, so that they can differ between the two: see `_unify_names`.

    Raises:
        ValueError: lines that must not share a table.
    """
    older = lines[~lines["folder"].isin(newer["folder"])]
    places = {folder: place for place, folder in enumerate(pandas.concat([lines, newer])["folder"].unique())}
    merged = pandas.concat([older, newer], ignore_index=True)
    merged = _unify_names(merged.sort_values("folder", key=lambda folders: folders.map(places), kind="stable"))
    check(merged)
    return merged


def _unify_names(lines: pandas.DataFrame) -> pandas.DataFrame:
    """Name groups with the same shared settings alike, and rows with the same training; the longest name says most.

    Trainings of one group that are left with the same name get the name of their first folder in addition.
    """
    by_training = lines.groupby(["shared", "training"])
    named = lines.assign(
        group=lines.groupby("shared")["group"].transform(_longest), run=by_training["run"].transform(_longest)
    )
    ambiguous = named.groupby(["shared", "run"])["training"].transform("nunique") > 1
    folders = (
        by_training["folder"]
        .transform("first")
        .str.rpartition("/")[2]
        .str.replace(r"-seed[0-9]+(-fold[0-9]+of[0-9]+)?$", "", regex=True)
    )
    return named.assign(run=named["run"].mask(ambiguous, named["run"] + " (" + folders + ")"))


def _longest(names: pandas.Series) -> str:
    return str(max(names, key=len))


def from_csv(path: Path) -> pandas.DataFrame:
    """Read what `to_csv` wrote.

    Raises:
        ValueError: not such a file, or lines that must not share a table.
    """
    source = Source(path, "pass a ledger that --output wrote", what="--from-csv")
    cells = read_table(source, [name for name in COLUMNS if name not in _ADDED])
    if not cells["folder"]:
        source.refuse("holds no lines")
    converted: dict[str, Sequence[object]] = {"seed": wholes(source, cells["seed"], "seed")}
    # To the last digit, which the parsers of some pandas versions round.
    converted |= {name: numbers(source, cells[name], name, empty=math.nan) for name in _EXACT}
    counted = numbers(source, cells["n"], "n", 0, 2**53, empty=math.nan)
    converted |= {name: [""] * len(cells["folder"]) for name in _ADDED if name not in cells}
    converted["n"] = [pandas.NA if math.isnan(count) else int(count) for count in counted]
    lines = pandas.DataFrame({name: converted[name] if name in converted else cells[name] for name in COLUMNS}).astype(
        COLUMNS
    )
    try:
        check(lines)
    except ValueError as error:
        raise ValueError(f"--from-csv {path}: {error}") from None
    return lines
