"""Text of external results, groups and subgroups, in lines of at most 100 columns."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ttc.evaluation.elsewhere.measure import at_path
from ttc.results.clinic.rough import MARK, basis_line, mark_of, rough_words
from ttc.run.escape import counted, plain

LARGE_GROUP = 20
"""A table by group is for sites: groups with fewer images of a class are told of in one line."""

ROWS = (
    ("AUROC %", "auroc", 100.0),
    ("AUPRC %", "auprc", 100.0),
    ("bal. acc. % (at 0.5)", "balanced_accuracy", 100.0),
    ("sensitivity % (Youden)", "operating_points/youden/sensitivity", 100.0),
    ("specificity % (Youden)", "operating_points/youden/specificity", 100.0),
    ("PPV % (Youden)", "operating_points/youden/ppv", 100.0),
    ("NPV % (Youden)", "operating_points/youden/npv", 100.0),
    ("Brier", "calibration/after/brier", 1.0),
    ("calibration intercept", "calibration/after/intercept", 1.0),
    ("calibration slope", "calibration/after/slope", 1.0),
)

PER_GROUP = (*ROWS[:1], *ROWS[3:5], *ROWS[8:])
"""What is said of one score per group."""

_MANY_CLASSES = {"balanced_accuracy": "balanced accuracy %"}
"""Titles where the most probable of more than two classes is called, without a threshold."""


def cell(metrics: object, path: str, scale: float, mark: str = "") -> str:
    """Format an estimate; an interval that rests on few positives, by the metrics' own word or `mark`, is marked."""
    found = at_path(metrics, path) if isinstance(metrics, Mapping) else None
    if not isinstance(metrics, Mapping) or found is None or found["value"] is None:
        return "-"
    digits = 1 if scale == 100.0 else 3
    text = f"{scale * found['value']:.{digits}f}"
    if found["low"] is None or found["high"] is None:
        return text
    interval = f"[{scale * found['low']:.{digits}f}, {scale * found['high']:.{digits}f}]"
    return f"{text} {interval}{mark or mark_of(metrics, path)}"


def side_by_side(
    parts: Sequence[object], rows: Sequence[tuple[str, str, float]] = ROWS
) -> Iterator[tuple[str, list[str]]]:
    """Yield title and cells of every metric that one of the parts has.

    Args:
        parts: metrics, None where there are none; a third is the difference of the first two, and rough where one of
            them is.
        rows: title, path and scale of each metric.
    """
    for title, path, scale in rows:
        marks = [mark_of(part, path) if isinstance(part, Mapping) else "" for part in parts[:2]]
        joined = ["", "", max(marks)][: len(parts)]
        cells = [cell(part, path, scale, mark) for part, mark in zip(parts, joined, strict=True)]
        if any(text != "-" for text in cells):
            many = any(isinstance(part, Mapping) and len(part.get("class_counts") or ()) > 2 for part in parts)
            yield _MANY_CLASSES.get(path, title) if many else title, cells


def _lines(parts: Sequence[tuple[object, int]], rows: Sequence[tuple[str, str, float]] = ROWS) -> list[str]:
    """Return the lines of `side_by_side` for a terminal; each part comes with its width."""
    widths = [width for _, width in parts]
    return [
        f"{title:<22}" + "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True))
        for title, cells in side_by_side([part for part, _ in parts], rows)
    ]


def share_of(metrics: object, positive_class: int) -> str:
    """Return the percentage of positives among the samples of two classes, as text; "" where it is not known."""
    counts = metrics.get("class_counts") if isinstance(metrics, Mapping) else None
    if not isinstance(counts, Sequence) or len(counts) != 2:
        return ""
    return f"{100 * counts[positive_class] / sum(counts):.3g}"


def _heading(internal: object, external: object, positive_class: int) -> list[str]:
    """Return the heading, with the shares of positives where there are two classes."""
    heading = f"{'':<22}{'internal test':>24}{'external':>26}{'external - internal':>28}"
    shares = [share_of(part, positive_class) for part in (internal, external)]
    if not shares[1]:
        return [heading]
    note = "AUPRC, PPV and NPV are at each set's share of positives; Youden: the threshold chosen on validation"
    return [note, heading, f"{'positive %':<22}{shares[0] or '-':>24}{shares[1]:>26}"]


def _deployed(internal: object, external: Mapping[str, object]) -> list[str]:
    """Return what holds at the prevalences of --deploy-prevalence."""
    lines: list[str] = []
    deployment = external.get("deployment")
    for key in deployment if isinstance(deployment, Mapping) else ():
        rows = [(f"{name.upper()} % (Youden)", f"deployment/{key}/youden/{name}", 100.0) for name in ("ppv", "npv")]
        lines.append(f"the same threshold where {100 * float(key):g} % are positive:")
        lines += _lines([(internal, 24), (external, 26)], [*rows, ("AUPRC %", f"deployment/{key}/auprc", 100.0)])
    return lines


def format_external(result: Mapping[str, object]) -> list[str]:
    """Put internal test and external set side by side, a block per head; several heads begin with one table.

    Args:
        result: of scripts/evaluate.py.
    """
    probes, heads = result["probes"], result["heads"]
    assert isinstance(probes, Mapping)
    assert isinstance(heads, Mapping)
    external, lines = probes["external"], []
    if len(external) > 1:
        lines.append(f"{'external':<28}" + "".join(f"{title:>24}" for title, _, _ in (ROWS[0], ROWS[3], ROWS[9])))
        for name, metrics in external.items():
            row = "".join(f"{cell(metrics, path, scale):>24}" for _, path, scale in (ROWS[0], ROWS[3], ROWS[9]))
            lines.append(f"{plain(name, 27):<28}{row}")
    for name, metrics in external.items():
        internal = probes.get("internal", {}).get(name)
        gap = probes.get("difference", {}).get(name)
        fact = heads[name]
        own = f", {internal['n']} of the internal test" if internal else ""
        lines.append(f"{plain(name, 40)}: {counted(metrics['n'], 'external sample')}{own}")
        if not internal and fact["source"] != "--scores":
            lines.append("no predictions of the run's own test split beside the head: nothing to compare with")
        positive = int(str(result["positive_class"]))
        if fact["probabilities_hold_at"] is not None:
            stated = f"{100 * fact['probabilities_hold_at'][positive]:.3g}"
            lines.append(f"external probabilities: frozen, stated at {stated} % positive ({fact['prevalence_of']})")
            if (measured := share_of(metrics, positive)) not in (stated, ""):
                lines.append(f"Brier and intercept are measured where {measured} % are: that gap counts as an error")
        lines += _heading(internal, metrics, positive)
        lines += _lines([(internal, 24), (metrics, 26), (gap, 28)])
        lines += _deployed(internal, metrics)
        lines += [basis_line(metrics["intervals"]["rests_on"], "external ")]
        lines += [basis_line(internal["intervals"]["rests_on"], "internal ")] if internal else []
        if metrics["calibration"].get("in_the_large"):
            mended = [cell(metrics, f"calibration/in_the_large/{part}", 1.0) for part in ("brier", "slope")]
            lines.append("recalibration in the large (a new intercept, fitted on these external labels, not frozen):")
            lines.append(f"  Brier {mended[0]}, slope {mended[1]}")
        lines += format_per_group(metrics.get("per_group"), internal.get("per_group") if internal else None)
        lines += format_subgroups(metrics["details"].get("subgroups"))
    return lines


def format_per_group(metrics: object, internal: object = None) -> list[str]:
    """Return what one score per group reaches."""
    if not isinstance(metrics, Mapping):
        return []
    pool, rule = metrics.get("pool", ""), metrics.get("group_label", "")
    lines = [f"per group ({pool} of its images, positive if {rule} is):" if pool else "per group:"]
    lines += [f"  {line}" for line in _lines([*([(internal, 24)] if internal else []), (metrics, 26)], PER_GROUP)]
    lines.append(basis_line(metrics["intervals"]["rests_on"], "external " if internal else ""))
    if isinstance(internal, Mapping):
        lines.append(basis_line(internal["intervals"]["rests_on"], "internal "))
    return lines


def format_subgroups(columns: object) -> list[str]:
    """Return a table per column, and the largest gaps between its parts."""
    lines: list[str] = []
    for name, table in columns.items() if isinstance(columns, Mapping) else ():
        title = plain(name, 18)
        lines.append(f"{title:<20}{'n':>6}{'pos.':>6}{'AUROC %':>22}{'sensitivity %':>23}{'specificity %':>23}")
        for row in table["rows"][:12]:
            lines.append(
                f"{plain(row['value'], 18):<20}{row['n']:>6}{row['positives']:>6}{cell(row, 'auroc', 100.0):>22}"
                f"{cell(row, 'sensitivity', 100.0):>23}{cell(row, 'specificity', 100.0):>23}"
            )
        if len(table["rows"]) > 12:
            lines.append(f"and {len(table['rows']) - 12} smaller parts, see result.json")
        few = [(row["value"], row["intervals"]["rests_on"]) for row in table["rows"][:12] if row.get("intervals")]
        words = "; ".join(f"{plain(value, 18)}: {text}" for value, text in few if rough_words(text, ""))
        lines += textwrap.wrap(f"{MARK} intervals rest on {words}", 100, subsequent_indent="  ") if words else []
        gaps = [
            f"{'AUROC' if metric == 'auroc' else metric} {gap['value'] * (1 if metric == 'intercept' else 100):.1f} "
            f"({plain(gap['highest'], 12)} - {plain(gap['lowest'], 12)})"
            for metric, gap in table["gaps"].items()
            if gap is not None
        ]
        if gaps:
            lines.append("largest gaps: " + ", ".join(gaps[:2]))
            lines += ["              " + ", ".join(gaps[2:])] * (len(gaps) > 2)
    return lines


def site_rows(groups: Sequence[Mapping[str, object]]) -> tuple[list[Mapping[str, object]], list[str]]:
    """Return the groups that are sites, with enough images of each class, and one line about how the others spread.

    Args:
        groups: rows of `group_rows`.
    """
    sites = [
        row
        for row in groups
        if "positives" not in row
        or min(int(str(row["positives"])), int(str(row["n"])) - int(str(row["positives"]))) >= LARGE_GROUP
    ]
    others = [row for row in groups if not any(row is site for site in sites)]
    if not others:
        return sites, []
    shares = []
    for name in ("accuracy", "sensitivity", "specificity"):
        values = [100 * float(str(row[name])) for row in others if row.get(name) is not None]
        if len(values) > 1:
            low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
            shares.append(f"{name} {middle:.0f} [{low:.0f}, {high:.0f}]")
    count = f"{counted(len(others), 'group')} with fewer than {LARGE_GROUP} images of a class"
    return sites, [f"{count}; median [quartiles] %:", "  " + (", ".join(shares) or "too few to spread")]
