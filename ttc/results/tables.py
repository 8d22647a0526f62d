"""Tables of several runs: mean and standard deviation over seeds, for terminals, Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import csv
import io
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttc.results.ledger_lines import Line
from ttc.run.checkpoint import write_text

WIDTH = 100
"""Columns of a terminal."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        metric: what it shows, as in the ledger.
        group: heading that several columns share.
        head: heading of its own.
        meaning: one line for the legend.
        scale: factor before printing.
        digits: after the point.
        best: whether the highest value of a group is set in bold.
        deviation: whether the standard deviation over seeds says anything.
        optional: left out where no run has it.
    """

    metric: str
    group: str
    head: str
    meaning: str
    scale: float = 1.0
    digits: int = 1
    best: bool = True
    deviation: bool = True
    optional: bool = False

    @property
    def title(self) -> str:
        """Both headings."""
        return f"{self.group} {self.head}"


_SMALL = "balanced accuracy of a probe on as many images per class as the minority has, %"
_LARGE = "balanced accuracy of a probe on a balanced share of the pool, %"
_TUNED = "balanced accuracy of the whole network, trained on from the checkpoint, %"
_SCRATCH = "balanced accuracy of the same training from random weights, %"
COLUMNS = (
    Column("encoder/minority/balanced_accuracy", "probe i", "acc", _SMALL, 100),
    Column("encoder/minority/auroc", "probe i", "AUC", "AUROC of this probe, %", 100),
    Column("encoder/fraction/balanced_accuracy", "probe ii", "acc", _LARGE, 100),
    Column("encoder/fraction/auroc", "probe ii", "AUC", "AUROC of this probe, %", 100),
    Column("finetune/own/classifier/balanced_accuracy", "fine-tuned", "acc", _TUNED, 100, optional=True),
    Column("finetune/own/classifier/auroc", "fine-tuned", "AUC", "its AUROC, %", 100, optional=True),
    Column("from_scratch/own/classifier/balanced_accuracy", "from scratch", "acc", _SCRATCH, 100, optional=True),
    Column("from_scratch/own/classifier/auroc", "from scratch", "AUC", "its AUROC, %", 100, optional=True),
    Column("projection/SAA/majority", "SAA", "maj", "sample alignment accuracy of the majority, %"),
    Column("projection/SAA/minority", "SAA", "min", "sample alignment accuracy of the minority, %"),
    Column("projection/CAC/majority", "CAC", "maj", "class alignment consistency of the majority, %"),
    Column("projection/CAC/minority", "CAC", "min", "class alignment consistency of the minority, %"),
    Column(
        "projection/mean_cosine/all", "cosine", "mean", "mean cosine of all pairs of embeddings; 1 = one point",
        digits=2, best=False,
    ),
    Column("train/loss", "loss", "end", "training loss of the last steps", digits=2, best=False),
    Column(
        "train/collapse_value", "loss", "coll.", "what the loss would be if all embeddings were equal",
        digits=2, best=False, deviation=False,
    ),
    Column("train/seconds", "time", "s", "seconds of pretraining", digits=0, best=False, deviation=False),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Values of one metric over the seeds of a row.

    Attributes:
        column: where it stands.
        values: scaled; None where a seed has no value.
        best: whether it is the best of its group.
    """

    column: Column
    values: Sequence[float | None]
    best: bool = False

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]

    def text(self, plus_minus: str = "+-") -> str:
        """Return mean, standard deviation of several seeds, and (k) where only k of the seeds have a value."""
        if not self.known:
            return "-"
        text = f"{statistics.fmean(self.known):.{self.column.digits}f}"
        if len(self.known) > 1 and self.column.deviation:
            text += f"{plus_minus}{statistics.stdev(self.known):.{self.column.digits}f}"
        return text if len(self.known) == len(self.values) else f"{text} ({len(self.known)})"


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed."""

    group: str
    run: str
    seeds: int
    cells: Sequence[Cell]


def build_rows(lines: Sequence[Line]) -> list[Row]:
    """Aggregate lines to rows, groups and rows in the order of first appearance.

    Args:
        lines: that `ledger_lines.check` accepts.
    """
    values: dict[tuple[str, str], dict[str, dict[int, float | None]]] = {}
    for line in lines:
        values.setdefault((line.group, line.run), {}).setdefault(line.metric, {})[line.seed] = line.value
    present = {line.metric for line in lines if line.value is not None}
    columns = [column for column in COLUMNS if column.metric in present or not column.optional]
    groups = list(dict.fromkeys(group for group, _ in values))
    rows = []
    for group in groups:
        found = {run: metrics for (its_group, run), metrics in values.items() if its_group == group}
        seeds = {run: sorted({seed for each in metrics.values() for seed in each}) for run, metrics in found.items()}
        grid = [[_cell(column, found[run], seeds[run]) for column in columns] for run in found]
        best = [_best([cells[position] for cells in grid]) for position in range(len(columns))]
        for run, cells in zip(found, grid, strict=True):
            marked = [
                Cell(cell.column, cell.values, best=top is not None and _shown(cell) == top)
                for cell, top in zip(cells, best, strict=True)
            ]
            rows.append(Row(group, run, len(seeds[run]), marked))
    return rows


def _cell(column: Column, metrics: dict[str, dict[int, float | None]], seeds: Sequence[int]) -> Cell:
    found = [metrics.get(column.metric, {}).get(seed) for seed in seeds]
    return Cell(column, [None if value is None else column.scale * value for value in found])


def _shown(cell: Cell) -> float | None:
    """Return the mean as it is printed: rows that look equal are equally good."""
    return round(statistics.fmean(cell.known), cell.column.digits) if cell.known else None


def _best(cells: Sequence[Cell]) -> float | None:
    """Return the best mean of a column; None where nothing is compared."""
    means = [mean for mean in map(_shown, cells) if mean is not None]
    return max(means) if cells[0].column.best and len(means) > 1 else None


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [cell.column for cell in rows[0].cells]


def _sections(rows: Sequence[Row]) -> list[tuple[str | None, list[Row]]]:
    """Return the rows by group, with the group's name where there are several."""
    groups = list(dict.fromkeys(row.group for row in rows))
    return [(group if len(groups) > 1 else None, [row for row in rows if row.group == group]) for group in groups]


def as_text(rows: Sequence[Row]) -> str:
    """Lay the table out for a terminal of 100 columns; columns that do not fit, and their meaning, continue below."""
    columns = _columns(rows)
    name_width = max(len(row.run) for row in rows) + 1
    widths = [max(6, *(len(row.cells[number].text()) + 1 for row in rows)) for number in range(len(columns))]
    parts: list[list[int]] = [[]]
    for number in range(len(columns)):
        if name_width + 3 + sum(widths[each] for each in parts[-1]) + widths[number] > WIDTH:
            parts.append([])
        parts[-1].append(number)
    lines = []
    for part in parts:
        groups = [columns[number].group for number in part]
        shown = ["" if place and groups[place - 1] == group else group for place, group in enumerate(groups)]
        lines.append(" " * (name_width + 3) + "".join(f"{g:>{widths[n]}}" for g, n in zip(shown, part, strict=True)))
        lines.append(f"{'run':<{name_width}}{'n':>3}" + "".join(f"{columns[n].head:>{widths[n]}}" for n in part))
        for group, members in _sections(rows):
            lines += [] if group is None else [f"-- {group}"]
            for row in members:
                cells = "".join(f"{row.cells[number].text():>{widths[number]}}" for number in part)
                lines.append(f"{row.run:<{name_width}}{row.seeds:>3}{cells}")
    meaning = textwrap.wrap(f"{_meanings(columns)}. Mean+-standard deviation over n seeds.", WIDTH)
    return "\n".join(line.rstrip() for line in [*lines, *meaning]) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """Lay the table out in Markdown, the best of each group in bold, with the meaning of the columns below."""
    columns = _columns(rows)
    heads = ["run", "seeds", *(column.title for column in columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for group, members in _sections(rows):
        lines += [] if group is None else [f"| *{group}* " + "| " * (len(heads) - 1) + "|"]
        for row in members:
            cells = [f"**{cell.text(' ± ')}**" if cell.best else cell.text(" ± ") for cell in row.cells]
            lines.append("| " + " | ".join([row.run, str(row.seeds), *cells]) + " |")
    return "\n".join([*lines, "", legend(columns), ""])


def legend(columns: Sequence[Column]) -> str:
    """Say in one paragraph what the columns mean."""
    return f"{_meanings(columns)}. Mean ± standard deviation over seeds; the best mean of a column in bold."


def _meanings(columns: Sequence[Column]) -> str:
    return "; ".join(f"{column.title}: {column.meaning}" for column in columns)


def as_latex(rows: Sequence[Row]) -> str:
    r"""Lay the table out in LaTeX, to be included with \input; it needs the package booktabs."""
    columns = _columns(rows)
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{lr{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["run", "$n$", *(_tex(column.title) for column in columns)]) + r" \\",
    ]
    for group, members in _sections(rows):
        lines.append(r"\midrule")
        if group is not None:
            lines.append(rf"\multicolumn{{{len(columns) + 2}}}{{l}}{{\emph{{{_tex(group)}}}}} \\")
        for row in members:
            cells = [cell.text(r" $\pm$ ") for cell in row.cells]
            cells = [rf"\textbf{{{text}}}" if cell.best else text for cell, text in zip(row.cells, cells, strict=True)]
            lines.append(" & ".join([_tex(row.run), str(row.seeds), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex(text: str) -> str:
    escaped = "".join(rf"\{letter}" if letter in r"&%$#_{}" else letter for letter in text)
    return escaped.replace(">=", r"$\geq$")


def as_csv(rows: Sequence[Row]) -> str:
    """Write mean, standard deviation and number of values of each column, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    parts = ("mean", "std", "n")
    writer.writerow(["group", "run", "seeds", *(f"{c.title} {part}" for c in _columns(rows) for part in parts)])
    for row in rows:
        numbers: list[object] = []
        for known in (cell.known for cell in row.cells):
            numbers += [
                statistics.fmean(known) if known else "", statistics.stdev(known) if len(known) > 1 else "", len(known)
            ]  # fmt: skip
        writer.writerow([row.group, row.run, row.seeds, *numbers])
    return file.getvalue()


def replace_block(path: Path, block: str, text: str) -> None:
    """Replace what stands between the comments of a block in a Markdown file.

    Raises:
        ValueError: the file has no such block, or several.
    """
    try:
        before, rest = path.read_text().split(f"<!-- {block}: begin -->")
        _, after = rest.split(f"<!-- {block}: end -->")
    except (OSError, ValueError):
        raise ValueError(f"--readme {path} has no single block {block!r}; add its begin and end comments") from None
    write_text(path, f"{before}<!-- {block}: begin -->\n{text}<!-- {block}: end -->{after}")
