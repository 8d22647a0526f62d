"""Tables of several runs: mean and standard deviation over seeds, for terminals, Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import itertools
import math
import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from ttc.results.clinic.rough import MARK, explanation, rough_words
from ttc.results.floor import rows as floor
from ttc.results.ledger_lines import of_rows
from ttc.results.table_parts import WIDTH
from ttc.results.table_parts.collapse import collapse_words
from ttc.results.table_parts.columns import COLLAPSED, COLUMNS, Column
from ttc.run import files
from ttc.run.checkpoint import write_text
from ttc.run.escape import latex, markdown, plain


@dataclass(frozen=True)
class Table:
    """Means over seeds: rows are (group, run), columns the titles of `columns`.

    Attributes:
        columns: what is shown.
        seeds: number of seeds of each row.
        mean: scaled; NaN where no seed has a value.
        deviation: standard deviation over the seeds, scaled; NaN for fewer than two values.
        low: mean of the lower ends of the 95 % intervals, scaled; NaN where one of the values has none.
        high: of the upper ends.
        count: number of seeds that have a value.
        best: whether a mean is the best of its group, as it is printed; the floor is no method.
        below: whether a mean is not above that of the floor.
        words: title -> the cells of a column that shows a word instead of a number.
        rough: what the intervals rest on where that is few, "" elsewhere.
        name_groups: whether a single group is named too.
    """

    columns: Sequence[Column]
    seeds: pandas.Series
    mean: pandas.DataFrame
    deviation: pandas.DataFrame
    low: pandas.DataFrame
    high: pandas.DataFrame
    count: pandas.DataFrame
    best: pandas.DataFrame
    below: pandas.DataFrame
    words: Mapping[str, pandas.Series]
    rough: pandas.DataFrame
    name_groups: bool = False

    def cells(
        self,
        plus_minus: str = "+-",
        mark: Callable[[str], str] = str,
        *,
        below: str = floor.MARK,
        interval_digits: int | None = None,
    ) -> pandas.DataFrame:
        """Return each cell as text: mean, deviation, interval, and (k) where only k of the seeds have a value.

        Args:
            plus_minus: between mean and deviation.
            mark: sets the best means apart.
            below: marks means that are not above the floor.
            interval_digits: of the ends of intervals; None for as many as the mean has.
        """
        texts = {}
        for column in self.columns:
            title = column.title
            if title in self.words:
                texts[title] = self.words[title].tolist()
                continue
            numbers = (
                frame[title] for frame in (self.mean, self.deviation, self.low, self.high, self.count, self.rough)
            )
            digits = column.digits if interval_digits is None else min(interval_digits, column.digits)
            texts[title] = [
                _text(column, plus_minus, mark if best else str, digits, below if low else "", seeds, *values)
                for best, low, seeds, *values in zip(
                    self.best[title], self.below[title], self.seeds, *numbers, strict=True
                )
            ]
        return pandas.DataFrame(texts, index=self.seeds.index)

    def sections(self, cells: pandas.DataFrame) -> Iterator[tuple[str | None, list[list[str]]]]:
        """Yield the name of a group, None if there is one only, and its rows: run, seeds and the cells."""
        several = self.name_groups or self.seeds.index.get_level_values("group").nunique() > 1
        for group, members in cells.groupby("group", sort=False):
            rows = [[run, str(self.seeds[group, run]), *texts] for (_, run), *texts in members.itertuples()]
            yield (group if several else None), rows


def _text(
    column: Column, plus_minus: str, mark: Callable[[str], str], interval_digits: int, below: str, seeds: int,
    mean: float, deviation: float, low: float, high: float, count: int, rough: str,
) -> str:  # fmt: skip
    if not count:
        return "-"
    text = f"{mean:.{column.digits}f}"
    if count > 1 and column.deviation:
        text += f"{plus_minus}{deviation:.{column.digits}f}"
    text = mark(text) + below
    if column.interval and not math.isnan(low):
        comma = "," if interval_digits < column.digits else ", "
        text += f" [{low:.{interval_digits}f}{comma}{high:.{interval_digits}f}]{MARK if rough else ''}"
    return text if count == seeds else f"{text} ({count})"


def build_table(lines: pandas.DataFrame, columns: Sequence[Column] = COLUMNS, *, name_groups: bool = False) -> Table:
    """Average the lines of a ledger over seeds, groups and rows in the order of first appearance.

    Args:
        lines: that `ledger_lines.check` accepts, or `paper.paper_lines` made of them; of experiments in folds only the
            lines over all folds are shown.
        columns: what is shown, see `further_columns.all_columns` for those that there are; optional ones only where a
            run has a value.
        name_groups: whether a single group is named too.
    """
    lines = floor.with_floor(of_rows(lines))
    groups = {group: place for place, group in enumerate(lines["group"].unique())}
    seeds = lines.groupby(["group", "run"], sort=False)["seed"].nunique()
    seeds = seeds.sort_index(level="group", key=lambda names: names.map(groups), sort_remaining=False, kind="stable")
    defined = lines.dropna(subset="value")
    columns = [column for column in columns if column.metric in set(defined["metric"]) or not column.optional]
    metrics = {column.metric: column for column in columns}
    defined = defined[defined["metric"].isin(metrics)]
    scales = defined["metric"].map({metric: column.scale for metric, column in metrics.items()})
    titles = defined["metric"].map({metric: column.title for metric, column in metrics.items()})

    def grid(values: pandas.Series, statistic: Callable[[pandas.Series], object]) -> pandas.DataFrame:
        table = values.groupby([defined["group"], defined["run"], titles]).agg(statistic).unstack()
        return table.reindex(index=seeds.index, columns=[column.title for column in columns])

    # Sums without rounding errors: equal runs give equal tables, to the last digit, in any order and on any machine.
    scaled = {part: defined[part] * scales for part in ("value", "low", "high")}
    mean, low, high = (grid(values, statistics.fmean) for values in scaled.values())
    deviation, count = grid(scaled["value"], _deviation), grid(scaled["value"], len).fillna(0).astype(int)
    rough = grid(
        defined["metric"].combine(defined["rests_on"], lambda name, text: rough_words(text, name)), max
    ).astype(object)
    words = {column.title: collapse_words(lines).reindex(seeds.index) for column in columns if column is COLLAPSED}
    return Table(
        columns,
        seeds,
        mean,
        deviation,
        low,
        high,
        count,
        best=_best(columns, mean),
        below=floor.below_floor(columns, mean),
        words=words,
        rough=rough.where(rough.notna(), ""),
        name_groups=name_groups,
    )


def _deviation(values: pandas.Series) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _best(columns: Sequence[Column], mean: pandas.DataFrame) -> pandas.DataFrame:
    """Tell which means are the best of their group; rows that look equal are equally good, a single one is no best."""
    best = {}
    for column in columns:
        methods = mean[column.title].where(mean.index.get_level_values("run") != floor.ROW)
        rounded = methods.map(lambda value, digits=column.digits: round(value, digits))
        by_group = rounded.groupby("group")
        best[column.title] = (rounded == by_group.transform("max")) & (by_group.transform("count") > 1) & column.best
    return pandas.DataFrame(best, index=mean.index)


def as_text(table: Table) -> str:
    """Lay the table out for a terminal of 100 columns; columns that do not fit, and their meaning, continue below."""
    cells = table.cells(interval_digits=0)
    name_width = max(len(plain(run)) for _, run in cells.index) + 1
    widths = [max(6, len(column.heading) + 1, cells[column.title].str.len().max() + 1) for column in table.columns]
    parts: list[list[int]] = [[]]
    for number in range(len(widths)):
        if parts[-1] and name_width + 5 + sum(widths[place] for place in parts[-1]) + widths[number] > WIDTH:
            parts.append([])
        parts[-1].append(number)
    lines = []
    for part in parts:
        lines.append(" " * (name_width + 5) + _group_headings([(table.columns[n].group, widths[n]) for n in part]))
        headings = "".join(f"{table.columns[number].heading:>{widths[number]}}" for number in part)
        lines.append(f"{'run':<{name_width}}{'seeds':>5}{headings}")
        for group, rows in table.sections(cells):
            lines += [] if group is None else [f"-- {plain(group)}"]
            for run, seeds, *texts in rows:
                line_cells = "".join(f"{texts[number]:>{widths[number]}}" for number in part)
                lines.append(f"{plain(run):<{name_width}}{seeds:>5}{line_cells}")
    meaning = textwrap.wrap(f"{_meanings(table)}. {_statistics(table, '+-')}.", WIDTH)
    return "\n".join(line.rstrip() for line in [*lines, *meaning]) + "\n"


def _group_headings(columns: Sequence[tuple[str, int]]) -> str:
    """Return the headings that columns share, each over its first column, or over all of them where it is longer."""
    line = ""
    for group, members in itertools.groupby(columns, key=lambda column: column[0]):
        widths = [width for _, width in members]
        name = plain(group) if len(plain(group)) < widths[0] else plain(group, sum(widths) - 1)
        line += f"{name:>{widths[0]}}" if len(name) < widths[0] else f" {name}"
        line += " " * (sum(widths) - max(widths[0], len(name) + (len(name) >= widths[0])))
    return line


def as_markdown(table: Table) -> str:
    """Lay the table out in Markdown, the best of each group in bold, with the meaning of the columns below."""
    cells = table.cells(" ± ", "**{}**".format, below="&lt;")
    headings = ["run", "seeds", *map(markdown, cells)]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for group, rows in table.sections(cells):
        lines += [] if group is None else [f"| *{markdown(group)}* " + "| " * (len(headings) - 1) + "|"]
        lines += ["| " + " | ".join([markdown(run), *texts]) + " |" for run, *texts in rows]
    return "\n".join([*lines, "", legend(table, markdown).replace(floor.MARK, "&lt;"), ""])


def legend(table: Table, escape: Callable[[str], str] = plain) -> str:
    """Say in one paragraph what the columns mean; `escape` is for their names."""
    return f"{_meanings(table, escape)}. {_statistics(table, ' ± ')}; the best mean of a column in bold."


def _meanings(table: Table, escape: Callable[[str], str] = plain) -> str:
    return "; ".join(f"{escape(column.title)}: {column.meaning}" for column in table.columns)


def _statistics(table: Table, plus_minus: str) -> str:
    interval = " [95 % interval of the test set, mean over seeds]"
    shown = interval if any(column.interval for column in table.columns) else ""
    few = explanation(table.rough[column.title].max() for column in table.columns if column.interval)
    compared = [floor.MEANING] if floor.ROW in table.seeds.index.get_level_values("run") else []
    compared += [floor.MARK_MEANING] if table.below.any(axis=None) else []
    return "; ".join([f"Mean{plus_minus}standard deviation over seeds{shown}", *few, *compared])


def as_latex(table: Table) -> str:
    r"""Lay the table out in LaTeX, to be included with \input; it needs the package booktabs."""
    cells = table.cells(r" $\pm$ ", r"\textbf{{{}}}".format, below="$<$")
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{lr{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["run", "seeds", *(latex(title) for title in cells)]) + r" \\",
    ]
    for group, rows in table.sections(cells):
        lines.append(r"\midrule")
        if group is not None:
            lines.append(rf"\multicolumn{{{len(table.columns) + 2}}}{{l}}{{\emph{{{latex(group)}}}}} \\")
        lines += [
            " & ".join([latex(run), *(text.replace(MARK, r"$\sim$") for text in texts)]) + r" \\"
            for run, *texts in rows
        ]
    meaning = textwrap.wrap(legend(table), WIDTH, initial_indent="% ", subsequent_indent="% ")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *meaning, ""])


def as_csv(table: Table) -> str:
    """Write mean, standard deviation, number of values and interval of each column, unrounded."""
    numbers: dict[str, pandas.Series] = {}
    for column in table.columns:
        title = column.title
        if title in table.words:
            numbers[title] = table.words[title]
            continue
        parts = {"mean": table.mean, "std": table.deviation, "n": table.count}
        parts |= {"low": table.low, "high": table.high} if column.interval else {}
        numbers |= {f"{title} {part}": frame[title] for part, frame in parts.items()}
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
