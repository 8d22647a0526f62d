"""What a study of several tasks, shares, methods and seeds says: paired differences, ranks, and which runs collapsed.

A study is a manifest and the ledger of its finished runs. Runs are told apart by their place in the manifest: the
recipe names task and majority share ("study-fashion-mix5-99"), the folder names row and seed ("supmin-seed0").

The finished runs are a DataFrame, a line per run: task; share, of the minority in training, in percent; row, that is
method, sampler and variant; seed; and a column per metric, NaN where it is not defined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from scipy import stats

from study.exact import sign_flip
from ttc.metrics.representation import COLLAPSED_COSINE
from ttc.results.floor.rows import PREFIX, ROW, stands_for
from ttc.run.manifest import Line

_RECIPE = re.compile(r"@.*/study-[a-z]+-(?P<task>[a-z0-9]+)-(?P<majority>\d+)\.args")
_RUN = re.compile(r"(?P<row>.+)-seed(?P<seed>\d+)")
COSINE = "projection/mean_cosine/all"


@dataclass(frozen=True)
class Difference:
    """A paired difference of two rows: over all tasks and seeds that both have.

    Attributes:
        mean: of a - b.
        error: standard error of the mean over the pairs; None for fewer than two.
        positive: pairs in which a is above b.
        pairs: number of pairs.
        p: of a two-sided sign-flip test; None for fewer than two pairs.
    """

    mean: float
    error: float | None
    positive: int
    pairs: int
    p: float | None


@dataclass(frozen=True)
class Ranks:
    """Average ranks of rows over blocks of one task and seed each; rank 1 is the best.

    Attributes:
        mean: row -> average rank.
        blocks: number of blocks in which every row has a value.
        critical: difference of average ranks that is significant at 5 % (Nemenyi).
    """

    mean: dict[str, float]
    blocks: int
    critical: float


def place_of(line: Line) -> tuple[str, int, str, int]:
    """Return task, minority share in percent, row and seed of a line.

    Raises:
        ValueError: the line is none of a study.
    """
    recipe = _RECIPE.fullmatch(line.steps["pretrain"][0]) if line.steps["pretrain"] else None
    run = _RUN.fullmatch(line.folder.rpartition("/")[2])
    if recipe is None or run is None:
        raise ValueError(
            f"line {line.name} is none of a study; its recipe is study-SET-TASK-MAJORITY, its run ROW-seedN"
        )
    return recipe["task"], 100 - int(recipe["majority"]), run["row"], int(run["seed"])


def finished_runs(planned: Sequence[Line], ledger: pandas.DataFrame) -> pandas.DataFrame:
    """Return the runs of a manifest that the ledger knows, in the order of the manifest.

    Args:
        planned: lines of the manifest.
        ledger: its lines name runs by their folder in the manifest.
    """
    values = ledger.pivot(index="folder", columns="metric", values="value")
    places = [(line.folder, *place_of(line)) for line in planned if line.folder in values.index]
    runs = pandas.DataFrame(places, columns=["folder", "task", "share", "row", "seed"])
    return runs.join(values, on="folder").drop(columns="folder")


def with_floors(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Add a run "floor" for each task, share and seed whose runs tell one, with its metrics in the place of theirs."""
    metrics = {name: stands_for(name)[0] for name in runs.columns if name.startswith(PREFIX)}
    keys = ["task", "share", "seed"]
    first = runs[[*keys, *metrics]].dropna(subset=list(metrics), how="all").drop_duplicates(keys)
    if not metrics or first.empty:
        return runs
    runs = runs.drop(columns=list(metrics))
    return pandas.concat([runs, first.rename(columns=metrics).assign(row=ROW)], ignore_index=True)


def at(runs: pandas.DataFrame, row: str, share: int) -> pandas.DataFrame:
    """Return the runs of a row at a share."""
    return runs[(runs["row"] == row) & (runs["share"] == share)]


def values_of(runs: pandas.DataFrame, metric: str) -> pandas.Series:
    """Return the values that there are of a metric."""
    return runs[metric].dropna() if metric in runs else pandas.Series(dtype=float)


def by_block(runs: pandas.DataFrame, rows: Sequence[str], share: int, metric: str) -> pandas.DataFrame:
    """Return a metric at one share, a line per task and seed, a column per row; lines that lack a row are left out."""
    chosen = runs[(runs["share"] == share) & runs["row"].isin(rows)]
    if metric not in chosen:
        return pandas.DataFrame(columns=list(rows))
    return chosen.pivot(index=["task", "seed"], columns="row", values=metric).reindex(columns=list(rows)).dropna()


def paired(runs: pandas.DataFrame, a: str, b: str, share: int, metric: str) -> Difference | None:
    """Compare two rows on the tasks and seeds that both have at one share; None if there is no such pair.

    The test flips the signs of whole pairs. Seeds of one task share its test images, so that it speaks of new seeds of
    these tasks, not of new tasks.

    Args:
        runs: of the study.
        a: row.
        b: row.
        share: of the minority, percent.
        metric: what is compared.
    """
    blocks = by_block(runs, (a, b), share, metric)
    differences = blocks[a] - blocks[b]
    count, positive = len(differences), int((differences > 0).sum())
    if count < 2:
        return Difference(differences.iloc[0], None, positive, count, None) if count else None
    return Difference(differences.mean(), differences.sem(), positive, count, sign_flip(differences.tolist()))


def ranks(runs: pandas.DataFrame, rows: Sequence[str], share: int, metric: str) -> Ranks | None:
    """Rank rows within each task and seed and average; None without two rows and a block that has all of them.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.2.
    Note: blocks of one task share its test images, so that the critical difference is somewhat too small.
    """
    blocks = by_block(runs, rows, share, metric)
    if len(rows) < 2 or blocks.empty:
        return None
    mean = blocks.rank(axis=1, ascending=False).mean()
    spread = stats.studentized_range.ppf(0.95, len(rows), np.inf) / 2**0.5
    critical = float(spread * (len(rows) * (len(rows) + 1) / (6 * len(blocks))) ** 0.5)
    return Ranks(mean.to_dict(), len(blocks), critical)


def collapsed(runs: pandas.DataFrame) -> tuple[int, int]:
    """Return how many runs embed all test images in nearly one direction, and how many were measured."""
    cosines = values_of(runs, COSINE)
    return int((cosines >= COLLAPSED_COSINE).sum()), len(cosines)


@dataclass(frozen=True)
class Factor:
    """Something that the ablations vary.

    Attributes:
        names: as in the names of the rows, METHOD-NAME-VALUE.
        title: for people.
        usual: the value of the study's own runs.
        rows: method -> row of the study that has the usual value.
    """

    names: tuple[str, ...]
    title: str
    usual: str
    rows: dict[str, str]


_BALANCED = {"supmin": "supmin-balanced"}
_SHUFFLED = {"supmin": "supmin", "supcon": "supcon"}
FACTORS = (
    Factor(("batch",), "batch size", "256", _SHUFFLED),
    Factor(("cached",), "batch size, in micro-batches of 256", "256", {"supmin": "supmin"}),
    Factor(("rare", "sampler"), "rare images in each batch, at least", "shuffled", _SHUFFLED),
    Factor(("temperature",), "temperature", "0.07", _BALANCED),
    Factor(("margin",), "margin of the prototypes", "1", {"supproto": "supproto-balanced"}),
    Factor(("ratio",), "share of supervised majority", "0", {"supmin": "supmin"}),
    Factor(("jitter",), "strength of colour changes", "1", _BALANCED),
    Factor(("crop",), "smallest crop", "0.3", _BALANCED),
    Factor(("epochs",), "epochs", "10", _BALANCED),
    Factor(("head",), "projection head", "plain", _SHUFFLED),
    Factor(("width",), "width of the encoder", "16", _BALANCED),
)


def factor_points(
    factor: Factor, runs: pandas.DataFrame, varied: pandas.DataFrame
) -> dict[str, dict[str, pandas.DataFrame]]:
    """Return method -> value -> runs of one factor, in the order of the values; only methods with varied runs.

    Args:
        factor: what is varied.
        runs: of the study, for the usual value.
        varied: of the ablations.
    """
    method, name, value = (varied["row"].str.split("-", n=2).str[part] for part in range(3))
    chosen = varied[name.isin(factor.names) & method.isin(list(factor.rows))]
    places = varied[["task", "share"]].drop_duplicates()
    usual = runs.merge(places, on=["task", "share"])
    points: dict[str, dict[str, pandas.DataFrame]] = {}
    for method_name, of_method in chosen.groupby(method, sort=False):
        values = dict(list(of_method.groupby(value)))
        values[factor.usual] = usual[usual["row"] == factor.rows[method_name]]
        points[method_name] = {name: values[name] for name in sorted(values, key=_order)}
    return points


def _order(value: str) -> tuple[float, str]:
    """Sort numbers by value, words before them."""
    try:
        return float(value), value
    except ValueError:
        return -np.inf, value
