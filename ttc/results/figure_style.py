"""What all figures share: colours, legend, the grid of small panels, and how they are saved.

Every figure is written as PNG and as vector PDF, without a time stamp, so that equal input gives equal files.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttc.run import files
from ttc.run.escape import plain
from ttc.run.log import log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Okabe and Ito's colours, which people with the common colour-vision deficiencies tell apart; vermilion for class 1.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_PADDING = 0.06
"""Inches."""
PAIR_COLOUR = "#7F7F7F"


def colour_of(label: int) -> str:
    """Return the colour of a class."""
    return COLOURS[label % len(COLOURS)]


def panel_grid(count: int, width: float, height: float, most: int, *, shared_axes: bool) -> tuple[Figure, list[Axes]]:
    """Make a figure with `count` panels in rows of at most `most`.

    Args:
        count: panels, at least 1.
        width: of a panel in inches.
        height: of a panel in inches.
        most: panels in a row.
        shared_axes: whether all panels have the same axes.

    Returns:
        The figure, and its panels row by row; places that are left over are invisible.
    """
    from matplotlib.figure import Figure

    rows = -(-count // most)
    columns = -(-count // rows)
    # Panels of a fixed shape leave gaps in the constrained layout.
    figure = Figure(figsize=(max(4.5, width * columns), height * rows + 0.6), layout="compressed")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=shared_axes, sharey=shared_axes).flat)
    for panel in panels[count:]:
        panel.axis("off")
    for panel in panels[max(0, count - columns) : count]:
        panel.tick_params(labelbottom=True)  # also above a place that is left over
    return figure, panels[:count]


def without_common_words(names: Sequence[str]) -> list[str]:
    """Leave out the words that begin or end all names: beside a figure there is room for what differs."""
    words = [name.split() for name in names]
    first = _common(words)
    last = _common([name_words[first:][::-1] for name_words in words])
    short_names = (" ".join(name_words[first : len(name_words) - last]).strip(",") for name_words in words)
    return [short or name for short, name in zip(short_names, names, strict=True)]


def _common(lists: Sequence[Sequence[str]]) -> int:
    """Return how many words at the beginning all lists share."""
    count = 0
    for words in zip(*lists, strict=False):
        if len(set(words)) > 1:
            break
        count += 1
    return count


def no_data(axes: Axes) -> None:
    """Say that a place of a grid has nothing to show."""
    axes.axis("off")
    axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", fontsize=8, color="0.5")


def class_legend(
    figure: Figure, labels_N: Ints, class_names: Sequence[str], *, prototypes: bool = False, between: bool = False
) -> None:
    """Add the legend of the classes below the panels."""
    from matplotlib.lines import Line2D

    def dot(colour: str, name: str, marker: str = "o") -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, label=name)

    counts = np.bincount(labels_N, minlength=len(class_names))
    handles = [
        dot(colour_of(number), f"{short_name(name)} ({counts[number]})")
        for number, name in enumerate(class_names)
        if counts[number]
    ]
    if prototypes:
        handles.append(dot("0.3", "prototype", "*"))
    if between:
        handles.append(dot(PAIR_COLOUR, "pairs between classes", "s"))
    # Long names would not fit beside each other.
    columns = 4 if sum(len(short_name(name)) for name in class_names) < 60 else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def save(figure: Figure, path_png: Path) -> None:
    """Save a figure as PNG and, beside it, as PDF; dollar signs in names are dollar signs, not mathematics."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
    box: str | Bbox = "tight"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")  # a box is drawn in its place
        for suffix, settings in ((".png", {"dpi": 150}), (".pdf", {"metadata": {"CreationDate": None}})):
            packed = io.BytesIO()
            figure.savefig(packed, format=suffix[1:], bbox_inches=box, pad_inches=_PADDING, **settings)
            files.replace(Path(path_png).with_suffix(suffix), packed.getbuffer())
            if box == "tight":  # the places are found; finding them again takes as long as drawing
                figure.set_layout_engine("none")
                box = figure.get_tightbbox().padded(_PADDING)


@contextlib.contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Turn the failure of a picture into one warning: the numbers that it shows are written and complete."""
    try:
        yield
    except Exception as error:  # names, fonts and numbers can fail in matplotlib in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        log.warning("%s could not be drawn (%s); the numbers are complete", path, reason)


def short_name(name: str, most: int = 40) -> str:
    """Return a name for a figure: control characters are escaped, and what is long is cut."""
    return plain(name, most)


def wrapped(name: str, width: int, *, at_hyphens: bool = False) -> str:
    """Return a name for a figure in lines of at most `width` letters, six at the most; line feeds in it are kept."""
    lines = [short_name(line, 3 * width) for line in name.split("\n")[:2]]
    lines = [textwrap.fill(line, width, break_on_hyphens=at_hyphens) for line in lines]
    return "\n".join(lines)
