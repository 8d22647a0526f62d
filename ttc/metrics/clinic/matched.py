"""Two methods, each trained several times: tests of their difference over images, over seeds, and over both.

Legend: N samples, U units that are independent (samples or groups), S seeds, P pairs of runs, R draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import curves
from ttc.metrics.delong import placements
from ttc.metrics.intervals import Floats, Ints

METRICS = ("auroc", "balanced_accuracy")

_ALL_FLIPS = 12
"""Up to so many seeds all signs are tried; beyond, some are drawn."""
_BLOCK_NUMBERS = 2**21


@dataclass(frozen=True)
class Pair:
    """A run of the first method and one of the second, with the same seed and fold, on the same test samples.

    Attributes:
        seed: of both.
        positive_N: [N] whether a sample is positive; both kinds occur.
        scores: [N] scores of the first and of the second run.
        decisions: [N] whether each calls a sample positive.
        units: [N] name of the group, or of the sample where samples are independent; the same in all pairs.
    """

    seed: int
    positive_N: NDArray[np.bool_]
    scores: tuple[Floats, Floats]
    decisions: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    units: Sequence[str]


def compare_matched(pairs: Sequence[Pair], *, draws: int = 2000, seed: int = 0) -> dict[str, object]:
    """Test the difference of two methods, first minus second, over matched runs.

    Args:
        pairs: the runs; folds of one seed are several pairs with that seed.
        draws: exchanges, and flips of signs where there are too many to try all.
        seed: of the draws.

    Returns:
        "seeds", "pairs", "units"; "auroc" (the mean over the pairs) and "balanced_accuracy" (of the decisions of all
        folds of a seed, the mean over the seeds), each with "first", "second", "difference", "by_seed" and three tests:
        - "images": exchange test, which swaps the two methods at random for a unit in all pairs: would these very
          networks differ on other images?
        - "seeds": flips the signs of the differences of the seeds: would other seeds differ on these very images?
          "smallest" is the least p that so many seeds can give. None with one seed.
        - "both": t test whose variance is that over seeds plus that over images, "p", "low", "high", "df". With the
          folds of a single seed it is the corrected t test over folds ("test" says which). None with a single pair,
          which tells nothing about seeds.

    Source: "images": Bandos, Rockette and Gur, Statistics in Medicine 24 (2005). "both": DeLong's (with groups
        Obuchowski's) variance of the mean over seeds, plus the variance between seeds, as for readers and cases in
        Obuchowski and Rockette, Communications in Statistics 24 (1995); over folds Nadeau and Bengio, Machine Learning
        52 (2003).

    Note: degrees of freedom are Satterthwaite's, but at most two per seed less one. Without that limit (and with that
        of Hillis, Statistics in Medicine 26, 2007) two or three seeds reject a true null in up to 14 % of cases, since
        they may agree by chance; with it in at most 5 %. All runs were trained on images of one data set, and no test
        here knows how much another data set would change.
    """
    seeds = list(dict.fromkeys(pair.seed for pair in pairs))
    numbers: dict[str, int] = {}
    units = [np.array([numbers.setdefault(name, len(numbers)) for name in pair.units]) for pair in pairs]
    row_of = np.array([seeds.index(pair.seed) for pair in pairs])
    result: dict[str, object] = {"seeds": len(seeds), "pairs": len(pairs), "units": len(numbers)}
    values = {"auroc": _areas(pairs), "balanced_accuracy": _recalls(pairs, row_of)}
    reached = _exchanged(pairs, units, row_of, len(numbers), draws, seed)
    for name in METRICS:
        values_PM = values[name]
        by_seed_S = _by_seed(values_PM[:, 0] - values_PM[:, 1], row_of, name)
        influence_SU = _influence(pairs, units, row_of, len(numbers), name)
        first, second = (float(_by_seed(values_PM[:, side], row_of, name).mean()) for side in (0, 1))
        result[name] = {
            "first": first,
            "second": second,
            "difference": float(by_seed_S.mean()),
            "by_seed": by_seed_S.tolist(),
            "images": {"p": reached[name]},
            "seeds": _sign_flips(by_seed_S, draws, seed),
            "both": _over_both(by_seed_S, influence_SU) if len(seeds) > 1 else _over_folds(_by_fold(pairs, name)),
        }
    return result


def _areas(pairs: Sequence[Pair]) -> Floats:
    """Return [P, 2] the AUROCs of every pair."""
    values_PM = np.empty((len(pairs), 2))
    for place, pair in enumerate(pairs):
        one_1N = np.ones((1, len(pair.positive_N)))
        for side, scores in enumerate(pair.scores):
            measure = curves.ranking_statistics(pair.positive_N, scores, {"auroc": curves.area})
            values_PM[place, side] = measure(one_1N)["auroc"][0]
    return values_PM


def _recalls(pairs: Sequence[Pair], row_of: Ints) -> Floats:
    """Return [P, 2] what each pair adds to the balanced accuracies of its seed."""
    values_PM = np.empty((len(pairs), 2))
    for place, (pair, gains_N) in enumerate(zip(pairs, _gains(pairs, row_of), strict=True)):
        for side, called_N in enumerate(pair.decisions):
            values_PM[place, side] = gains_N[called_N].sum() - gains_N[~pair.positive_N].sum()
    return values_PM


def _gains(pairs: Sequence[Pair], row_of: Ints) -> list[Floats]:
    """Return, for each pair, what calling a sample positive adds to the balanced accuracy of its seed [N]."""
    gains = []
    for place, pair in enumerate(pairs):
        same = [other for other, row in zip(pairs, row_of, strict=True) if row == row_of[place]]
        positives = sum(int(other.positive_N.sum()) for other in same)
        negatives = sum(int((~other.positive_N).sum()) for other in same)
        gains.append(np.where(pair.positive_N, 0.5 / positives, -0.5 / negatives))
    return gains


def _by_seed(values_P: Floats, row_of: Ints, name: str) -> Floats:
    """Join the pairs of each seed [S]: AUROCs are averaged, parts of a balanced accuracy added up."""
    sums_S = np.bincount(row_of, values_P).astype(np.float64)
    counts_S = np.bincount(row_of).astype(np.float64)
    return np.asarray(sums_S / counts_S if name == "auroc" else sums_S)


def _by_fold(pairs: Sequence[Pair], name: str) -> Floats:
    """Return the differences of single pairs, each as a test of its own."""
    alone = np.arange(len(pairs))
    values_PM = _areas(pairs) if name == "auroc" else _recalls(pairs, alone)
    return values_PM[:, 0] - values_PM[:, 1]


def _influence(pairs: Sequence[Pair], units: Sequence[Ints], row_of: Ints, count: int, name: str) -> Floats:
    """Return [S, U] how much each unit moves the difference of each seed; the squares add up to DeLong's variance.

    Where a pair has a single unit with a class the numbers are NaN: there is no variance to tell of.
    """
    moved_SU = np.zeros((int(row_of.max()) + 1, count))
    for place, (pair, owners) in enumerate(zip(pairs, units, strict=True)):
        row, positive_N = row_of[place], pair.positive_N
        share = 1.0 / int((row_of == row).sum())
        if name == "auroc":
            over, under = (
                first - second
                for first, second in zip(*(placements(positive_N, scores) for scores in pair.scores), strict=True)
            )
        else:
            change_N = pair.decisions[0].astype(np.float64) - pair.decisions[1]
            over, under = 0.5 * change_N[positive_N], -0.5 * change_N[~positive_N]
        for parts, rows in ((over, owners[positive_N]), (under, owners[~positive_N])):
            holding = len(np.unique(rows))
            scale = math.sqrt(holding / (holding - 1)) if holding > 1 else math.nan
            moved_SU[row] += np.bincount(rows, share * scale * (parts - parts.mean()) / len(parts), count)
    return moved_SU


def _exchanged(
    pairs: Sequence[Pair], units: Sequence[Ints], row_of: Ints, count: int, draws: int, seed: int
) -> dict[str, float]:
    """Return the p-values of the exchange test; what was seen counts as one of the draws."""
    from scipy.stats import rankdata

    generator, gains = np.random.default_rng([seed, 1]), _gains(pairs, row_of)
    ranks = [np.stack([rankdata(scores) for scores in pair.scores]) for pair in pairs]
    per_seed_P = np.bincount(row_of)[row_of]
    block = max(1, _BLOCK_NUMBERS // max(count, *(len(pair.positive_N) for pair in pairs)))

    def differences(swapped_RU: NDArray[np.bool_]) -> dict[str, Floats]:
        sums = {name: np.zeros(len(swapped_RU)) for name in METRICS}
        for place, pair in enumerate(pairs):
            swapped_RN, positive_N = swapped_RU[:, units[place]], pair.positive_N
            mixed_R2N = np.where(swapped_RN[:, None], ranks[place][None, ::-1], ranks[place][None])
            ranked_R2 = rankdata(mixed_R2N, axis=2) @ positive_N.astype(np.float64)
            area = positive_N.sum() * (~positive_N).sum() * per_seed_P[place]
            sums["auroc"] += (ranked_R2[:, 0] - ranked_R2[:, 1]) / area
            change_N = gains[place] * (pair.decisions[0].astype(np.float64) - pair.decisions[1])
            sums["balanced_accuracy"] += np.where(swapped_RN, -1.0, 1.0) @ change_N
        return sums

    seen = {name: abs(values[0]) for name, values in differences(np.zeros((1, count), dtype=np.bool_)).items()}
    reached = dict.fromkeys(METRICS, 0)
    for start in range(0, draws, block):
        for name, values_R in differences(generator.random((min(block, draws - start), count)) < 0.5).items():
            reached[name] += int((np.abs(values_R) >= seen[name] * (1.0 - 1e-9) - 1e-12).sum())
    return {name: (1 + hits) / (1 + draws) for name, hits in reached.items()}


def _sign_flips(by_seed_S: Floats, draws: int, seed: int) -> dict[str, float | None]:
    """Test over the seeds alone: exactly, where all signs can be tried."""
    count = len(by_seed_S)
    if count < 2:
        return {"p": None, "smallest": None}
    if count <= _ALL_FLIPS:
        signs_RS = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        drawn_RS = np.random.default_rng([seed, 2]).choice([-1.0, 1.0], size=(draws, count))
        signs_RS = np.concatenate([np.ones((1, count)), drawn_RS])
    hits = np.abs(signs_RS @ by_seed_S) >= abs(by_seed_S.sum()) * (1.0 - 1e-9) - 1e-12
    return {"p": float(hits.mean()), "smallest": 2.0 / len(signs_RS) if count <= _ALL_FLIPS else 1.0 / len(signs_RS)}


def _over_both(by_seed_S: Floats, influence_SU: Floats) -> dict[str, object] | None:
    """Test over seeds and images together."""
    count = len(by_seed_S)
    over_images = float((influence_SU.mean(axis=0) ** 2).sum())
    over_seeds = float(by_seed_S.var(ddof=1)) / count
    variance = over_seeds + over_images
    if not math.isfinite(variance) or not variance:
        return None
    df = (count - 1) * (min(variance / over_seeds, math.sqrt(2.0)) if over_seeds else math.sqrt(2.0)) ** 2
    return _t_test(float(by_seed_S.mean()), variance, df, "seeds and images")


def _over_folds(by_fold: Floats) -> dict[str, object] | None:
    """Test over the folds of one seed; their training sets overlap, which the correction is for."""
    count = len(by_fold)
    variance = float(by_fold.var(ddof=1)) * (1.0 / count + 1.0 / (count - 1)) if count > 1 else 0.0
    return _t_test(float(by_fold.mean()), variance, count - 1, "folds of one seed") if variance else None


def _t_test(difference: float, variance: float, df: float, test: str) -> dict[str, object]:
    from scipy.stats import t

    error = math.sqrt(variance)
    margin = float(t.ppf(0.975, df)) * error
    return {
        "test": test,
        "p": float(2.0 * t.sf(abs(difference) / error, df)),
        "low": difference - margin,
        "high": difference + margin,
        "df": df,
    }
