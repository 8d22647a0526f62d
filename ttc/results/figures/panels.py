"""Panels in which several classifiers are compared: curves with their areas in the legend, confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ttc.results.curve_figures import Band, save_band_figure
from ttc.results.figure_style import COLOURS, panel_grid, save, short_name, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = 12
"""In one panel; more rows get a panel each."""

_COLOURS = COLOURS[:7]
"""The eighth, yellow, is too pale for a line."""
_STYLES = ("-", "--")
_MOST_BANDS = 4


@dataclass(frozen=True)
class CurvePanel:
    """Curves of several rows in one panel.

    Attributes:
        title: data, classifier and sizes.
        curves: row -> curve with its band.
        areas: row -> area under the curve and the ends of its interval, shares; NaN where unknown.
        chance: height of the line of chance; None for the diagonal.
        area_name: what the area is called.
    """

    title: str
    curves: Mapping[str, Band]
    areas: Mapping[str, tuple[float, float, float]]
    chance: float | None
    area_name: str


def save_curve_figure(path_png: Path, panels: Sequence[CurvePanel], *, x_label: str, y_label: str) -> None:
    """Draw the panels beside each other, the area of each curve in the legend.

    Args:
        path_png: File to write; a PDF is written beside it.
        panels: At least one; with more than MOST_CURVES rows in one of them, every row gets a panel of its own.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
    """
    most = max(len(panel.curves) for panel in panels)
    if most > MOST_CURVES:
        bands: dict[str, Band | None] = {
            f"{row}\n{panel.title.splitlines()[0]}": band for panel in panels for row, band in panel.curves.items()
        }
        save_band_figure(path_png, bands, x_label=x_label, y_label=y_label, chance=panels[0].chance)
        return
    rows = list(dict.fromkeys(row for panel in panels for row in panel.curves))  # a row has one colour in all panels
    figure, axes_of = panel_grid(len(panels), 3.9, 3.9 + 0.19 * most, 3, shared_axes=False)
    for axes, panel in zip(axes_of, panels, strict=True):
        chance = panel.chance
        axes.plot([0, 1], [0, 1] if chance is None else [chance, chance], color="0.5", linewidth=0.8, linestyle=":")
        for row, band in panel.curves.items():
            number = rows.index(row)
            colour, style = _COLOURS[number % len(_COLOURS)], _STYLES[number // len(_COLOURS) % len(_STYLES)]
            if len(panel.curves) <= _MOST_BANDS:
                axes.fill_between(band.x_G, band.low_G, band.high_G, color=colour, alpha=0.12, linewidth=0)
            label = f"{short_name(row, 30)}  {_area(panel.areas[row])}".rstrip()
            axes.plot(band.x_G, band.y_G, color=colour, linestyle=style, linewidth=1.5, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_title("\n".join(wrapped(line, 44) for line in panel.title.split("\n")), fontsize=9)
        axes.set_xlabel(x_label, fontsize=9)
        axes.set_ylabel(y_label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False, handlelength=1.6,
                    title=f"{panel.area_name}, % [95 % interval]", title_fontsize=8)  # fmt: skip
    save(figure, path_png)


def _area(area: tuple[float, float, float]) -> str:
    value, low, high = (100 * number for number in area)
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def save_confusion_figure(path_png: Path, matrices: Mapping[str, tuple[Mapping[str, int], tuple[str, str]]]) -> None:
    """Draw confusion matrices, true classes in rows.

    Args:
        path_png: File to write; a PDF is written beside it.
        matrices: Row, line feed and classifier -> counts "tn", "fp", "fn", "tp", and names of negatives and positives.
    """
    figure, axes_of = panel_grid(len(matrices), 2.3, 2.3, 4, shared_axes=False)
    for axes, (title, (counts, names)) in zip(axes_of, matrices.items(), strict=True):
        _draw_confusion(axes, counts, names)
        total = sum(counts.values())
        name, _, classifier = title.rpartition("\n")
        size = f"n = {total}, {counts['tp'] + counts['fn']} positive"
        axes.set_title(f"{wrapped(name, 26)}\n{classifier}, {size}", fontsize=8)
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    save(figure, path_png)


def _draw_confusion(axes: Axes, counts: Mapping[str, int], names: tuple[str, str]) -> None:
    rows = [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]]
    shares = [[count / max(1, sum(row)) for count in row] for row in rows]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true in range(2):
        for predicted in range(2):
            share = shares[true][predicted]
            text = f"{rows[true][predicted]}\n{100 * share:.0f} %"
            axes.text(
                predicted, true, text, ha="center", va="center", fontsize=9, color="white" if share > 0.6 else "0.1"
            )
    short = [short_name(name, 12) for name in names]
    axes.set_xticks([0, 1], short, fontsize=7)
    axes.set_yticks([0, 1], short, fontsize=7, rotation=90, va="center")
    axes.tick_params(length=0)
