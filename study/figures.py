"""The figures of docs/study-first.md: metrics against the minority share, and one panel per ablation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas

from study import paired
from study.tables import LARGE, MAIN
from ttc.results.figure_style import COLOURS, panel_grid, save

_PANELS = (
    (LARGE, "probe ii, balanced accuracy, %", 100.0),
    ("projection/SAA/minority", "SAA of the minority, %", 1.0),
    ("projection/CAC/macro", "CAC, mean of the classes, %", 1.0),
    (paired.COSINE, "mean cosine of all pairs", 1.0),
)


def draw_shares(path_png: Path, runs: pandas.DataFrame, shares: Sequence[int]) -> None:
    """Draw metrics against the minority share: solid with shuffled batches, dashed with balanced ones.

    Args:
        path_png: file to write; a PDF is written beside it.
        runs: of the study; points are means over tasks and seeds, bars standard deviations.
        shares: in percent, from left to right.
    """
    from matplotlib.lines import Line2D

    figure, panels = panel_grid(len(_PANELS), 3.4, 3.0, 4, shared_axes=False)
    rows = [(method, row, style) for method in MAIN for row, style in ((method, "-"), (f"{method}-balanced", "--"))]
    for axes, (metric, title, scale) in zip(panels, _PANELS, strict=True):
        for method, row, style in rows:
            values = {share: scale * paired.values_of(paired.at(runs, row, share), metric) for share in shares}
            measured = [share for share in shares if len(values[share])]
            # Rows side by side: equal values would hide each other.
            shift = 0.03 * (rows.index((method, row, style)) - len(rows) / 2)
            axes.errorbar(
                [shares.index(share) + shift for share in measured],
                [values[share].mean() for share in measured],
                [0 if len(values[share]) < 2 else values[share].std() for share in measured],
                color=COLOURS[MAIN.index(method)],
                linestyle=style,
                marker="o" if style == "-" else "s",
                markersize=4,
                linewidth=1.3,
                elinewidth=0.7,
            )
        untrained = scale * paired.values_of(runs[runs["row"] == "untrained"], metric)
        if len(untrained):
            axes.axhline(untrained.mean(), color="0.4", linewidth=0.9, linestyle=":")
        axes.set_xticks(range(len(shares)), [f"{share} %" for share in shares])
        axes.set_xlabel("minority in training", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles = [Line2D([], [], color=COLOURS[number], marker="o", label=method) for number, method in enumerate(MAIN)]
    handles += [
        Line2D([], [], color="0.3", linestyle="--", marker="s", label="balanced batches"),
        Line2D([], [], color="0.4", linestyle=":", label="untrained"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    save(figure, path_png)


def draw_ablations(path_png: Path, runs: pandas.DataFrame, varied: pandas.DataFrame) -> None:
    """Draw probe ii against each factor of the ablations, a panel per factor; the usual value is ringed.

    Args:
        path_png: file to write; a PDF is written beside it.
        runs: of the study, for the usual values.
        varied: of the ablations.
    """
    from matplotlib.lines import Line2D

    factors = [(factor, paired.factor_points(factor, runs, varied)) for factor in paired.FACTORS]
    factors = [(factor, methods) for factor, methods in factors if methods]
    figure, panels = panel_grid(len(factors), 2.9, 2.4, 4, shared_axes=False)
    for axes, (factor, methods) in zip(panels, factors, strict=True):
        values = list(dict.fromkeys(value for points in methods.values() for value in points))
        for method, points in methods.items():
            colour = COLOURS[MAIN.index(method)]
            accuracies = {value: 100 * paired.values_of(members, LARGE) for value, members in points.items()}
            accuracies = {value: numbers for value, numbers in accuracies.items() if len(numbers)}
            places = [values.index(value) for value in accuracies]
            means = [numbers.mean() for numbers in accuracies.values()]
            spreads = [0 if len(numbers) < 2 else numbers.std() for numbers in accuracies.values()]
            axes.errorbar(places, means, spreads, color=colour, marker="o", markersize=4, linewidth=1.3, elinewidth=0.7)
            if factor.usual in accuracies:
                centre = [values.index(factor.usual)], [accuracies[factor.usual].mean()]
                axes.plot(*centre, marker="o", markersize=10, markerfacecolor="none", color=colour)
        axes.set_xticks(range(len(values)), values)
        axes.set_title(factor.title, fontsize=9)
        axes.tick_params(labelsize=8)
        if len("".join(values)) > 24:
            axes.tick_params(axis="x", labelrotation=25)  # beside each other they would overlap
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    used = [method for method in MAIN if any(method in methods for _, methods in factors)]
    handles = [Line2D([], [], color=COLOURS[MAIN.index(method)], marker="o", label=method) for method in used]
    figure.supylabel("probe ii, balanced accuracy, %", fontsize=9)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    save(figure, path_png)
