"""The table in five columns that need no glossary."""

from __future__ import annotations

import math
import statistics
import textwrap

import pandas

from ttc.results.floor.rows import MARK, MARK_MEANING, ROW, with_floor
from ttc.results.floor.rows import MEANING as MEANING_OF_FLOOR
from ttc.results.ledger_lines import of_rows
from ttc.results.table_parts import WIDTH
from ttc.results.table_parts.collapse import MEANING, collapse_words
from ttc.run import escape

ACCURACY, AUROC = "encoder/minority/balanced_accuracy", "encoder/minority/auroc"
_ALIGNMENT = ("projection/SAA/majority", "projection/SAA/minority")

HEADS = ("run", "accuracy, %", "AUROC, %", "finds its own other view, %", "collapsed")
LEGEND = (
    "accuracy and AUROC: of a linear classifier on the frozen features, taught with as many images of each class as "
    "there are rare ones (accuracy: mean of both classes); finds its own other view: how often the nearest neighbour "
    f"of an augmented image is another augmentation of the same image; collapsed: {MEANING}."
)


def rows_of(lines: pandas.DataFrame) -> list[list[str]]:
    """Return the cells of each row, means and standard deviations over seeds, in the order of first appearance.

    Args:
        lines: that `ledger_lines.check` accepts.
    """
    lines = with_floor(of_rows(lines))
    words, rows, aurocs = collapse_words(lines.assign(group=""))[""], [], dict[str, float]()
    for run, members in lines.groupby("run", sort=False):
        values = (
            members.dropna(subset="value")
            .pivot_table("value", "seed", "metric")
            .reindex(columns=[ACCURACY, AUROC, *_ALIGNMENT])
        )
        alignment = values[list(_ALIGNMENT)].mean(axis=1, skipna=False)
        cells = [_mean(100 * values[ACCURACY]), _mean(100 * values[AUROC]), _mean(alignment)]
        rows.append([str(run), *cells, words[run]])
        aurocs[str(run)] = values[AUROC].mean()
    for row in rows:
        if row[0] != ROW and aurocs[row[0]] <= aurocs.get(ROW, -math.inf):
            row[2] += MARK
    return rows


def legend(lines: pandas.DataFrame) -> str:
    """Say what the columns mean, and the floor where it was measured."""
    measured = with_floor(lines) is not lines
    return LEGEND.removesuffix(".") + f"; {MEANING_OF_FLOOR}; {MARK_MEANING}." if measured else LEGEND


def _mean(values: pandas.Series) -> str:
    numbers = values.dropna().tolist()
    if not numbers:
        return "-"
    deviation = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.1f}{deviation}"


def as_markdown(lines: pandas.DataFrame) -> str:
    """Lay the rows out in Markdown, with what the columns mean; see `rows_of` for the argument."""
    rows = [[escape.markdown(cell) for cell in row] for row in rows_of(lines)]
    table = ["| " + " | ".join(row) + " |" for row in (HEADS, ["---"] * len(HEADS), *rows)]
    return "\n".join([*table, "", legend(lines).replace(MARK, "&lt;"), ""])


def as_text(lines: pandas.DataFrame) -> str:
    """Lay the rows out for a terminal of 100 columns, with what the columns mean; see `rows_of` for the argument."""
    rows = [HEADS, *([escape.plain(row[0]), *row[1:]] for row in rows_of(lines))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADS))]
    table = []
    for run, *cells in rows:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        table.append("  ".join([f"{run:<{widths[0]}}", *aligned]))
    return "\n".join([*table, *textwrap.wrap(legend(lines), WIDTH), ""])
