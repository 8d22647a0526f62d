"""What a study of several tasks, shares, methods and seeds says: paired differences, ranks, and which runs collapsed.

A study is a manifest and the ledger of its finished runs. Runs are told apart by their place in the manifest: the
recipe names task and majority share ("study-fashion-mix5-99"), the folder names row and seed ("supmin-seed0").
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ttc.results.ledger_lines import Line
from ttc.run.manifest import Cell

_RECIPE = re.compile(r"@.*/study-[a-z]+-(?P<task>[a-z0-9]+)-(?P<majority>\d+)\.args")
_RUN = re.compile(r"(?P<row>.+)-seed(?P<seed>\d+)")
COSINE = "projection/mean_cosine/all"
COLLAPSED_COSINE = 0.99
"""Mean cosine of all pairs of test embeddings from which on a run counts as collapsed; 1 is a single point."""
_PATTERNS = 10_000


@dataclass(frozen=True)
class Entry:
    """One finished run of the study.

    Attributes:
        task: name of the task.
        share: share of the minority in training, percent.
        row: method, sampler and variant.
        seed: of the run.
        values: metric -> value; None where it is not defined.
    """

    task: str
    share: int
    row: str
    seed: int
    values: dict[str, float | None]


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


def place_of(cell: Cell) -> tuple[str, int, str, int]:
    """Return task, minority share in percent, row and seed of a line.

    Raises:
        ValueError: the line is none of a study.
    """
    recipe = _RECIPE.fullmatch(cell.steps["pretrain"][0]) if cell.steps["pretrain"] else None
    run = _RUN.fullmatch(cell.folder.rpartition("/")[2])
    if recipe is None or run is None:
        raise ValueError(
            f"line {cell.name} is none of a study; its recipe is study-SET-TASK-MAJORITY, its run ROW-seedN"
        )
    return recipe["task"], 100 - int(recipe["majority"]), run["row"], int(run["seed"])


def entries_of(cells: Sequence[Cell], lines: Iterable[Line]) -> list[Entry]:
    """Return the runs of a manifest that the ledger knows, in the order of the manifest.

    Args:
        cells: of the manifest.
        lines: of the ledger, which names runs by their folder in the manifest.
    """
    found: dict[str, dict[str, float | None]] = {}
    for line in lines:
        found.setdefault(line.folder, {})[line.metric] = line.value
    return [Entry(*place_of(cell), found[cell.folder]) for cell in cells if cell.folder in found]


def values_of(entries: Iterable[Entry], metric: str) -> list[float]:
    """Return the values that there are of a metric."""
    values = (entry.values.get(metric) for entry in entries)
    return [value for value in values if value is not None]


def paired(entries: Sequence[Entry], a: str, b: str, share: int, metric: str, seed: int = 0) -> Difference | None:
    """Compare two rows on the tasks and seeds that both have at one share; None if there is no such pair.

    The test flips the signs of whole pairs. Seeds of one task share its test images, so that it speaks of new seeds of
    these tasks, not of new tasks.

    Args:
        entries: of the study.
        a: row.
        b: row.
        share: of the minority, percent.
        metric: what is compared.
        seed: of the test's random signs, which are drawn where there are too many pairs to try all.
    """
    sides = [
        {
            (entry.task, entry.seed): entry.values.get(metric)
            for entry in entries
            if (entry.row, entry.share) == (row, share)
        }
        for row in (a, b)
    ]
    both = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    differences = [left - right for left, right in both if left is not None and right is not None]
    if not differences:
        return None
    count, positive = len(differences), sum(each > 0 for each in differences)
    if count < 2:
        return Difference(differences[0], None, positive, count, None)
    error = statistics.stdev(differences) / count**0.5
    return Difference(statistics.fmean(differences), error, positive, count, sign_flip_test(differences, seed))


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p-value of a mean of zero: the share of sign patterns with a mean as far from zero.

    Args:
        differences: at least one.
        seed: of the random patterns, which are drawn where there are too many to try all.
    """
    each = np.array(differences)
    if 2 ** len(each) <= _PATTERNS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(each))))
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_PATTERNS, len(each)))
        signs[0] = 1.0  # the pattern that was seen
    # Sums of the same numbers in another order differ in the last digits.
    as_far = np.abs(signs @ each) >= abs(each.sum()) * (1 - 1e-12)
    return float(as_far.mean())


def ranks(entries: Sequence[Entry], rows: Sequence[str], share: int, metric: str) -> Ranks | None:
    """Rank rows within each task and seed and average; None without two rows and a block that has all of them.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.2.
    Note: blocks of one task share its test images, so that the critical difference is somewhat too small.
    """
    blocks: dict[tuple[str, int], dict[str, float]] = {}
    for entry in entries:
        value = entry.values.get(metric)
        if entry.share == share and entry.row in rows and value is not None:
            blocks.setdefault((entry.task, entry.seed), {})[entry.row] = value
    full = [[block[row] for row in rows] for block in blocks.values() if len(block) == len(rows)]
    if len(rows) < 2 or not full:
        return None
    mean = stats.rankdata(-np.array(full), axis=1).mean(0)
    spread = stats.studentized_range.ppf(0.95, len(rows), np.inf) / 2**0.5
    critical = float(spread * (len(rows) * (len(rows) + 1) / (6 * len(full))) ** 0.5)
    return Ranks(dict(zip(rows, mean.tolist(), strict=True)), len(full), critical)


def collapsed(entries: Iterable[Entry]) -> tuple[int, int]:
    """Return how many runs embed all test images in nearly one direction, and how many were measured."""
    cosines = values_of(entries, COSINE)
    return sum(cosine >= COLLAPSED_COSINE for cosine in cosines), len(cosines)


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
    factor: Factor, entries: Iterable[Entry], varied: Sequence[Entry]
) -> dict[str, dict[str, list[Entry]]]:
    """Return method -> value -> runs of one factor, in the order of the values; only methods with varied runs.

    Args:
        factor: what is varied.
        entries: of the study, for the usual value.
        varied: of the ablations.
    """
    found: dict[str, dict[str, list[Entry]]] = {}
    for entry in varied:
        method, name, value = entry.row.split("-", 2)
        if name in factor.names and method in factor.rows:
            found.setdefault(method, {}).setdefault(value, []).append(entry)
    places = {(entry.task, entry.share) for entry in varied}
    usual = [entry for entry in entries if (entry.task, entry.share) in places]
    for method, points in found.items():
        points[factor.usual] = [entry for entry in usual if entry.row == factor.rows[method]]
    return {method: dict(sorted(points.items(), key=lambda item: _order(item[0]))) for method, points in found.items()}


def _order(value: str) -> tuple[float, str]:
    """Sort numbers by value, words before them."""
    try:
        return float(value), value
    except ValueError:
        return -np.inf, value
