"""The figures of docs/study.md: metrics against the minority share, and one panel per ablation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from study import paired
from study.paired import Entry
from study.tables import LARGE, MAIN
from ttc.results.figure_style import COLOURS, panel_grid, save

_PANELS = (
    (LARGE, "probe ii, balanced accuracy, %", 100.0),
    ("projection/SAA/minority", "SAA of the minority, %", 1.0),
    ("projection/CAC/macro", "CAC, mean of the classes, %", 1.0),
    (paired.COSINE, "mean cosine of all pairs", 1.0),
)


def draw_shares(path_png: Path, entries: Sequence[Entry], shares: Sequence[int]) -> None:
    """Draw metrics against the minority share: solid with shuffled batches, dashed with balanced ones.

    Args:
        path_png: file to write; a PDF is written beside it.
        entries: of the study; points are means over tasks and seeds, bars standard deviations.
        shares: in percent, from left to right.
    """
    from matplotlib.lines import Line2D

    figure, panels = panel_grid(len(_PANELS), 3.4, 3.0, 4, share=False)
    rows = [(method, row, style) for method in MAIN for row, style in ((method, "-"), (f"{method}-balanced", "--"))]
    for axes, (metric, title, scale) in zip(panels, _PANELS, strict=True):
        for method, row, style in rows:
            runs = {s: [each for each in entries if (each.row, each.share) == (row, s)] for s in shares}
            points = {s: [scale * value for value in paired.values_of(each, metric)] for s, each in runs.items()}
            known = [s for s in shares if points[s]]
            # Rows side by side: equal values would hide each other.
            shift = 0.03 * (rows.index((method, row, style)) - len(rows) / 2)
            axes.errorbar(
                [shares.index(s) + shift for s in known],
                [statistics.fmean(points[s]) for s in known],
                [statistics.stdev(points[s]) if len(points[s]) > 1 else 0 for s in known],
                color=COLOURS[MAIN.index(method)],
                linestyle=style,
                marker="o" if style == "-" else "s",
                markersize=4,
                linewidth=1.3,
                elinewidth=0.7,
            )
        untrained = [scale * value for value in paired.values_of((e for e in entries if e.row == "untrained"), metric)]
        if untrained:
            axes.axhline(statistics.fmean(untrained), color="0.4", linewidth=0.9, linestyle=":")
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


def draw_ablations(path_png: Path, entries: Sequence[Entry], varied: Sequence[Entry]) -> None:
    """Draw probe ii against each factor of the ablations, a panel per factor; the usual value is ringed.

    Args:
        path_png: file to write; a PDF is written beside it.
        entries: of the study, for the usual values.
        varied: of the ablations.
    """
    from matplotlib.lines import Line2D

    found = {factor.title: (factor, paired.factor_points(factor, entries, varied)) for factor in paired.FACTORS}
    found = {title: each for title, each in found.items() if each[1]}
    figure, panels = panel_grid(len(found), 2.9, 2.4, 4, share=False)
    for axes, (title, (factor, methods)) in zip(panels, found.items(), strict=True):
        values = list(dict.fromkeys(value for points in methods.values() for value in points))
        for method, points in methods.items():
            colour = COLOURS[MAIN.index(method)]
            accuracies = {
                value: [100 * each for each in paired.values_of(runs, LARGE)] for value, runs in points.items()
            }
            places = [values.index(value) for value, each in accuracies.items() if each]
            means = [statistics.fmean(each) for each in accuracies.values() if each]
            spreads = [statistics.stdev(each) if len(each) > 1 else 0 for each in accuracies.values() if each]
            axes.errorbar(places, means, spreads, color=colour, marker="o", markersize=4, linewidth=1.3, elinewidth=0.7)
            if accuracies.get(factor.usual):
                centre = [values.index(factor.usual)], [statistics.fmean(accuracies[factor.usual])]
                axes.plot(*centre, marker="o", markersize=10, markerfacecolor="none", color=colour)
        axes.set_xticks(range(len(values)), values)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        if len("".join(values)) > 24:
            axes.tick_params(axis="x", labelrotation=25)  # beside each other they would overlap
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    used = [method for method in MAIN if any(method in methods for _, methods in found.values())]
    handles = [Line2D([], [], color=COLOURS[MAIN.index(method)], marker="o", label=method) for method in used]
    figure.supylabel("probe ii, balanced accuracy, %", fontsize=9)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    save(figure, path_png)
