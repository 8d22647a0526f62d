"""Figures of classifiers and of training: ROC, precision and recall, reliability, curves over epochs.

With many runs, lines of many colours cannot be told apart: each row of the table gets a small panel, in which all
other rows are drawn in grey behind it. A row may be None, where a grid of panels has nothing to show.

Shape suffixes: N samples, B bootstrap draws, G grid points, T thresholds, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ttc.metrics.intervals import bootstrap_counts, numbered
from ttc.results.figure_style import COLOURS, Floats, no_data, panel_grid, save, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID_G = np.linspace(0, 1, 101)
_OTHERS = "0.82"
_COLUMNS = 5


class Scored(Protocol):
    """Predictions of one run: labels [N] (1 = positive), probabilities [N], and groups [N] or None."""

    @property
    def labels_N(self) -> ArrayLike: ...

    @property
    def scores_N(self) -> ArrayLike: ...

    @property
    def groups(self) -> Sequence[str] | None: ...


@dataclass(frozen=True)
class Band:
    """A curve on a grid with its pointwise 95 % bootstrap band."""

    x_G: Floats
    y_G: Floats
    low_G: Floats
    high_G: Floats


def roc_and_pr(predictions: Sequence[Scored], draws: int = 200, seed: int = 0) -> tuple[Band, Band]:
    """Compute the ROC and the precision-recall curve of one row of a table.

    Args:
        predictions: of each seed.
        draws: B stratified bootstrap draws per seed, of whole groups where there are groups.
        seed: of the draws.

    Returns:
        True-positive rate over false-positive rate, and precision over recall; curves are the mean over seeds, bands
        span the draws of all seeds, so that they hold both kinds of chance.
    """
    points, samples = [], []
    for number, run in enumerate(predictions):
        labels_N, scores_N = np.asarray(run.labels_N), np.asarray(run.scores_N, dtype=np.float64)
        order_N = np.argsort(-scores_N, kind="stable")
        positive_N = labels_N[order_N] == 1
        # Equal scores share a threshold: only the last sample of each tie is a point of the curve.
        last_T = np.flatnonzero(np.append(np.diff(scores_N[order_N]) != 0, True))
        points.append(_curves(positive_N, np.ones(len(order_N)), last_T))
        groups_N = numbered(run.groups, len(labels_N))
        if draws and (groups_N is None or groups_N.any()):
            for counts_BN in bootstrap_counts(labels_N, draws, seed + number, groups_N):
                samples += [_curves(positive_N, counts_N[order_N], last_T) for counts_N in counts_BN]
    mean, low, high = np.mean(points, 0), *np.quantile(samples or points, (0.025, 0.975), axis=0)
    # Without any recall there is no precision.
    roc, pr = (
        Band(*(curve_G[first:] for curve_G in (_GRID_G, mean[first], low[first], high[first]))) for first in (0, 1)
    )
    return roc, pr


def _curves(positive_N: np.ndarray, weight_N: Floats, last_T: np.ndarray) -> Floats:
    """Return [2, G]: true-positive rate over the false-positive rate, and precision over recall."""
    hits_T = np.cumsum(weight_N * positive_N)[last_T]
    alarms_T = np.cumsum(weight_N * ~positive_N)[last_T]
    sensitivity_T, false_T = hits_T / hits_T[-1], alarms_T / alarms_T[-1]
    roc_G = np.interp(_GRID_G, np.append(0.0, false_T), np.append(0.0, sensitivity_T))
    precision_T = hits_T / np.maximum(hits_T + alarms_T, 1e-300)
    # The first threshold that reaches a recall; between thresholds precision is not linear.
    return np.stack([roc_G, precision_T[np.searchsorted(sensitivity_T, _GRID_G - 1e-12).clip(max=len(last_T) - 1)]])


def save_band_figure(
    path_png: Path,
    bands: Mapping[str, Band | None],
    *,
    x_label: str,
    y_label: str,
    chance: float | None,
    columns: int = _COLUMNS,
) -> None:
    """Draw one panel per row of the table: its curve with the band, the other rows behind it.

    Args:
        path_png: File to write; a PDF is written beside it.
        bands: Row -> curve on [0, 1] x [0, 1].
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        chance: Height of the line of chance; None draws the diagonal.
        columns: Panels in a line.
    """
    figure, panels = panel_grid(len(bands), 1.9, 1.9, columns, shared_axes=True)
    for axes, (name, band) in zip(panels, bands.items(), strict=True):
        if band is None:
            no_data(axes)
            continue
        axes.plot([0, 1], [0, 1] if chance is None else [chance, chance], color="0.5", linewidth=0.8, linestyle=":")
        for other in filter(None, bands.values()):
            axes.plot(other.x_G, other.y_G, color=_OTHERS, linewidth=0.7, zorder=1)
        axes.fill_between(band.x_G, band.low_G, band.high_G, color=COLOURS[0], alpha=0.3, linewidth=0, zorder=2)
        axes.plot(band.x_G, band.y_G, color=COLOURS[0], linewidth=1.5, zorder=3)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        _plain(axes, name)
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    save(figure, path_png)


FEWEST_PER_BIN = 30
"""Samples that a bin of a reliability curve holds at least, of which 5 are positive on average."""


def bins_for(labels: ArrayLike) -> int:
    """Return the number of bins, 2 to 10, that hold enough samples and, on average, 5 positives."""
    labels_N = np.asarray(labels)
    return max(2, min(10, len(labels_N) // FEWEST_PER_BIN, int(labels_N.sum()) // 5))


def reliability(predictions: Sequence[Scored], bins: int = 10) -> tuple[Floats, Floats, Floats]:
    """Compare predicted probabilities with what happened, in K bins of equally many samples.

    Args:
        predictions: of each seed; the seeds are pooled.
        bins: K.

    Returns:
        Mean probability [K], share of positives [K] and the 95 % Wilson interval of that share [2, K], which takes
        samples of one seed as independent; seeds that test the same samples add none.
    """
    labels_N = np.concatenate([np.asarray(run.labels_N, dtype=np.float64) for run in predictions])
    scores_N = np.concatenate([np.asarray(run.scores_N, dtype=np.float64) for run in predictions])
    parts = np.array_split(np.argsort(scores_N, kind="stable"), min(bins, len(scores_N)))
    mean_K = np.array([scores_N[part].mean() for part in parts])
    share_K = np.array([labels_N[part].mean() for part in parts])
    size_K, z = np.array([len(part) / len(predictions) for part in parts]), 1.959964
    centre_K = (share_K + z**2 / (2 * size_K)) / (1 + z**2 / size_K)
    reach_K = z / (1 + z**2 / size_K) * np.sqrt(share_K * (1 - share_K) / size_K + z**2 / (4 * size_K**2))
    return mean_K, share_K, np.stack([centre_K - reach_K, centre_K + reach_K])


def save_reliability_figure(
    path_png: Path, rows: Mapping[str, Sequence[Scored] | None], *, columns: int = _COLUMNS, bins: int = 10
) -> None:
    """Draw one reliability curve per row of the table, as `save_band_figure` does."""
    curves = {name: None if runs is None else reliability(runs, bins) for name, runs in rows.items()}
    sizes = {name: f"n = {len(np.asarray(runs[0].labels_N))}" for name, runs in rows.items() if runs}
    figure, panels = panel_grid(len(curves), 1.9, 1.9, columns, shared_axes=True)
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        if curve is None:
            no_data(axes)
            continue
        mean_K, share_K, interval_2K = curve
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
        for other_mean, other_share, _ in filter(None, curves.values()):
            axes.plot(other_mean, other_share, color=_OTHERS, linewidth=0.7, zorder=1)
        reach_2K = np.abs(interval_2K - share_K)
        axes.errorbar(
            mean_K, share_K, yerr=reach_2K, color=COLOURS[0], linewidth=1.2, marker="o", markersize=3, elinewidth=0.8
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        _plain(axes, name, f"\n{sizes[name]}, {len(mean_K)} bins")
    figure.supxlabel("predicted probability", fontsize=9)
    figure.supylabel("share of positives", fontsize=9)
    save(figure, path_png)


def save_training_figure(
    path_png: Path,
    rows: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]] | None],
    y_label: str,
    *,
    columns: int = _COLUMNS,
) -> None:
    """Draw a number of the training over epochs, one panel per row of the table, one line per seed.

    Args:
        path_png: File to write; a PDF is written beside it.
        rows: Row -> (epochs, values) of each seed.
        y_label: Name of the number.
        columns: Panels in a line.
    """
    from matplotlib.ticker import MaxNLocator

    figure, panels = panel_grid(len(rows), 2.1, 1.7, columns, shared_axes=True)
    for axes, (name, seeds) in zip(panels, rows.items(), strict=True):
        if seeds is None:
            no_data(axes)
            continue
        for epochs, values in (pair for others in filter(None, rows.values()) for pair in others):
            axes.plot(epochs, values, color=_OTHERS, linewidth=0.6, zorder=1)
        for epochs, values in seeds:
            axes.plot(epochs, values, color=COLOURS[0], linewidth=1.2, zorder=2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        _plain(axes, name)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    save(figure, path_png)


def _plain(axes: Axes, title: str, note: str = "") -> None:
    axes.set_title(wrapped(title, 26) + note, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
