"""Tables of several runs: mean and standard deviation over seeds, for terminals, Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from ttc.results.ledger_lines import of_rows
from ttc.run import files
from ttc.run.checkpoint import write_text
from ttc.run.escape import latex, markdown, plain

WIDTH = 100
"""Columns of a terminal."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        metric: what it shows, as in the ledger.
        group: heading that several columns share.
        heading: of this column alone.
        meaning: one line for the legend.
        scale: factor before printing.
        digits: after the point.
        best: whether the highest value of a group is set in bold.
        deviation: whether the standard deviation over seeds says anything.
        optional: left out where no run has it.
    """

    metric: str
    group: str
    heading: str
    meaning: str
    scale: float = 1.0
    digits: int = 1
    best: bool = True
    deviation: bool = True
    optional: bool = False

    @property
    def title(self) -> str:
        """Both headings."""
        return f"{self.group} {self.heading}"


_SMALL = "balanced accuracy of a probe on as many images per class as the minority has, %"
_LARGE = "balanced accuracy of a probe on a balanced share of the pool, %"
_OF_FOLDS = (
    "mean of the folds' AUROCs, %; all other numbers of a classifier are of the pooled predictions of all folds, each "
    "with the calibrator and the thresholds of its own fold"
)
_TUNED = "balanced accuracy of the whole network, trained on from the checkpoint, %"
_SCRATCH = "balanced accuracy of the same training from random weights, %"
COLUMNS = (
    Column("encoder/minority/balanced_accuracy", "probe i", "acc", _SMALL, 100),
    Column("encoder/minority/auroc", "probe i", "AUC", "AUROC of this probe, %", 100),
    Column("encoder/minority/auroc_mean_of_folds", "probe i", "fold AUC", _OF_FOLDS, 100, optional=True),
    Column("encoder/fraction/balanced_accuracy", "probe ii", "acc", _LARGE, 100),
    Column("encoder/fraction/auroc", "probe ii", "AUC", "AUROC of this probe, %", 100),
    Column(
        "encoder/fraction/auroc_mean_of_folds", "probe ii", "fold AUC", "mean of the folds' AUROCs, %", 100,
        optional=True,
    ),
    Column(
        "encoder/minority/calibration/after/intercept", "calibr.", "icpt",
        "calibration intercept of probe i; 0 is right",
        digits=2, best=False, optional=True,
    ),
    Column(
        "encoder/minority/calibration/after/slope", "calibr.", "slope", "calibration slope of probe i; 1 is right",
        digits=2, best=False, optional=True,
    ),
    Column("finetune/own/classifier/balanced_accuracy", "fine-tuned", "acc", _TUNED, 100, optional=True),
    Column("finetune/own/classifier/auroc", "fine-tuned", "AUC", "its AUROC, %", 100, optional=True),
    Column(
        "finetune/own/classifier/auroc_mean_of_folds", "fine-tuned", "fold AUC", "mean of the folds' AUROCs, %", 100,
        optional=True,
    ),
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
class Table:
    """Means over seeds: rows are (group, run), columns the titles of `columns`.

    Attributes:
        columns: what is shown.
        seeds: number of seeds of each row.
        mean: scaled; NaN where no seed has a value.
        deviation: standard deviation over the seeds, scaled; NaN for fewer than two values.
        count: number of seeds that have a value.
        best: whether a mean is the best of its group, as it is printed.
    """

    columns: Sequence[Column]
    seeds: pandas.Series
    mean: pandas.DataFrame
    deviation: pandas.DataFrame
    count: pandas.DataFrame
    best: pandas.DataFrame

    def cells(self, plus_minus: str = "+-", mark: Callable[[str], str] = str) -> pandas.DataFrame:
        """Return each cell as text: mean, deviation, and (k) where only k of the seeds have a value.

        Args:
            plus_minus: between mean and deviation.
            mark: sets the best means apart.
        """
        texts = {}
        for column in self.columns:
            numbers = (frame[column.title] for frame in (self.mean, self.deviation, self.count, self.best))
            texts[column.title] = [
                mark(text) if best else text
                for seeds, mean, deviation, count, best in zip(self.seeds, *numbers, strict=True)
                for text in [_text(column, plus_minus, mean, deviation, count, seeds)]
            ]
        return pandas.DataFrame(texts, index=self.seeds.index)

    def sections(self, cells: pandas.DataFrame) -> Iterator[tuple[str | None, list[list[str]]]]:
        """Yield the name of a group, None if there is one only, and its rows: run, seeds and the cells."""
        several = self.seeds.index.get_level_values("group").nunique() > 1
        for group, members in cells.groupby("group", sort=False):
            rows = [[run, str(self.seeds[group, run]), *texts] for (_, run), *texts in members.itertuples()]
            yield (group if several else None), rows


def _text(column: Column, plus_minus: str, mean: float, deviation: float, count: int, seeds: int) -> str:
    if not count:
        return "-"
    text = f"{mean:.{column.digits}f}"
    if count > 1 and column.deviation:
        text += f"{plus_minus}{deviation:.{column.digits}f}"
    return text if count == seeds else f"{text} ({count})"


def build_table(lines: pandas.DataFrame, columns: Sequence[Column] = COLUMNS) -> Table:
    """Average the lines of a ledger over seeds, groups and rows in the order of first appearance.

    Args:
        lines: that `ledger_lines.check` accepts; of experiments in folds, only the lines over all folds are shown.
        columns: of the table, see `further_columns.all_columns` for those that there are.
    """
    lines = of_rows(lines)
    groups = {group: place for place, group in enumerate(lines["group"].unique())}
    seeds = lines.groupby(["group", "run"], sort=False)["seed"].nunique()
    seeds = seeds.sort_index(level="group", key=lambda names: names.map(groups), sort_remaining=False, kind="stable")
    defined = lines.dropna(subset="value")
    columns = [column for column in columns if column.metric in set(defined["metric"]) or not column.optional]
    metrics = {column.metric: column for column in columns}
    defined = defined[defined["metric"].isin(metrics)]
    scaled = defined["value"] * defined["metric"].map({metric: column.scale for metric, column in metrics.items()})
    titles = defined["metric"].map({metric: column.title for metric, column in metrics.items()})
    values = scaled.groupby([defined["group"], defined["run"], titles])

    def grid(statistic: pandas.Series) -> pandas.DataFrame:
        return statistic.unstack().reindex(index=seeds.index, columns=[column.title for column in columns])

    # Sums without rounding errors: equal runs give equal tables, to the last digit, in any order and on any machine.
    mean, deviation = grid(values.agg(statistics.fmean)), grid(values.agg(_deviation))
    count = grid(values.size()).fillna(0).astype(int)
    return Table(columns, seeds, mean, deviation, count, best=_best(columns, mean))


def _deviation(values: pandas.Series) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _best(columns: Sequence[Column], mean: pandas.DataFrame) -> pandas.DataFrame:
    """Tell which means are the best of their group; rows that look equal are equally good, a single one is no best."""
    best = {}
    for column in columns:
        rounded = mean[column.title].map(lambda value, digits=column.digits: round(value, digits))
        by_group = rounded.groupby("group")
        best[column.title] = (rounded == by_group.transform("max")) & (by_group.transform("count") > 1) & column.best
    return pandas.DataFrame(best, index=mean.index)


def as_text(table: Table) -> str:
    """Lay the table out for a terminal of 100 columns; columns that do not fit, and their meaning, continue below."""
    cells = table.cells()
    name_width = max(len(plain(run)) for _, run in cells.index) + 1
    widths = [max(6, cells[title].str.len().max() + 1) for title in cells]
    parts: list[list[int]] = [[]]
    for number in range(len(widths)):
        if name_width + 3 + sum(widths[place] for place in parts[-1]) + widths[number] > WIDTH:
            parts.append([])
        parts[-1].append(number)
    lines = []
    for part in parts:
        groups = [table.columns[number].group for number in part]
        group_headings = ["" if place and groups[place - 1] == group else group for place, group in enumerate(groups)]
        lines.append(
            " " * (name_width + 3) + "".join(f"{g:>{widths[n]}}" for g, n in zip(group_headings, part, strict=True))
        )
        headings = "".join(f"{table.columns[number].heading:>{widths[number]}}" for number in part)
        lines.append(f"{'run':<{name_width}}{'n':>3}{headings}")
        for group, rows in table.sections(cells):
            lines += [] if group is None else [f"-- {plain(group)}"]
            for run, seeds, *texts in rows:
                line_cells = "".join(f"{texts[number]:>{widths[number]}}" for number in part)
                lines.append(f"{plain(run):<{name_width}}{seeds:>3}{line_cells}")
    meaning = textwrap.wrap(f"{_meanings(table)}. Mean+-standard deviation over n seeds.", WIDTH)
    return "\n".join(line.rstrip() for line in [*lines, *meaning]) + "\n"


def as_markdown(table: Table) -> str:
    """Lay the table out in Markdown, the best of each group in bold, with the meaning of the columns below."""
    cells = table.cells(" ± ", "**{}**".format)
    headings = ["run", "seeds", *cells]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for group, rows in table.sections(cells):
        lines += [] if group is None else [f"| *{markdown(group)}* " + "| " * (len(headings) - 1) + "|"]
        lines += ["| " + " | ".join([markdown(run), *texts]) + " |" for run, *texts in rows]
    return "\n".join([*lines, "", legend(table), ""])


def legend(table: Table) -> str:
    """Say in one paragraph what the columns mean."""
    return f"{_meanings(table)}. Mean ± standard deviation over seeds; the best mean of a column in bold."


def _meanings(table: Table) -> str:
    return "; ".join(f"{column.title}: {column.meaning}" for column in table.columns)


def as_latex(table: Table) -> str:
    r"""Lay the table out in LaTeX, to be included with \input; it needs the package booktabs."""
    cells = table.cells(r" $\pm$ ", r"\textbf{{{}}}".format)
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{lr{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["run", "$n$", *(latex(title) for title in cells)]) + r" \\",
    ]
    for group, rows in table.sections(cells):
        lines.append(r"\midrule")
        if group is not None:
            lines.append(rf"\multicolumn{{{len(table.columns) + 2}}}{{l}}{{\emph{{{latex(group)}}}}} \\")
        lines += [" & ".join([latex(run), *texts]) + r" \\" for run, *texts in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_csv(table: Table) -> str:
    """Write mean, standard deviation and number of values of each column, unrounded."""
    parts = {"mean": table.mean, "std": table.deviation, "n": table.count}
    numbers = {
        f"{column.title} {part}": frame[column.title] for column in table.columns for part, frame in parts.items()
    }
    return str(pandas.DataFrame({"seeds": table.seeds, **numbers}).to_csv(lineterminator="\n"))


def replace_block(path: Path, block: str, text: str) -> None:
    """Replace what stands between the comments of a block in a Markdown file.

    Raises:
        ValueError: the file has no such block, or several.
    """
    try:
        before, rest = files.read_bytes(path).decode().split(f"<!-- {block}: begin -->")
        _, after = rest.split(f"<!-- {block}: end -->")
    except (OSError, ValueError):
        raise ValueError(f"--readme {path} has no single block {block!r}; add its begin and end comments") from None
    write_text(path, f"{before}<!-- {block}: begin -->\n{text}<!-- {block}: end -->{after}")
