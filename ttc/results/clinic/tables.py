"""Text of external results, groups and subgroups, in lines of at most 100 columns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ttc.evaluation.elsewhere.measure import at_path
from ttc.run.escape import plain

LARGE_GROUP = 20
"""A table by group is for sites: groups with fewer images of a class are told of in one line."""

_ROWS = (
    ("AUROC %", "auroc", 100.0),
    ("AUPRC %", "auprc", 100.0),
    ("balanced accuracy %", "balanced_accuracy", 100.0),
    ("sensitivity %", "operating_points/youden/sensitivity", 100.0),
    ("specificity %", "operating_points/youden/specificity", 100.0),
    ("PPV %", "operating_points/youden/ppv", 100.0),
    ("NPV %", "operating_points/youden/npv", 100.0),
    ("Brier", "calibration/after/brier", 1.0),
    ("calibration intercept", "calibration/after/intercept", 1.0),
    ("calibration slope", "calibration/after/slope", 1.0),
)


def _cell(metrics: object, path: str, scale: float) -> str:
    found = at_path(metrics, path) if isinstance(metrics, Mapping) else None
    if found is None or found["value"] is None:
        return "-"
    digits = 1 if scale == 100.0 else 3
    text = f"{scale * found['value']:.{digits}f}"
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} [{scale * found['low']:.{digits}f}, {scale * found['high']:.{digits}f}]"


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
        lines.append(f"{'external':<28}" + "".join(f"{title:>24}" for title, _, _ in (_ROWS[0], _ROWS[3], _ROWS[9])))
        for name, metrics in external.items():
            row = "".join(f"{_cell(metrics, path, scale):>24}" for _, path, scale in (_ROWS[0], _ROWS[3], _ROWS[9]))
            lines.append(f"{plain(name, 27):<28}{row}")
    for name, metrics in external.items():
        internal = probes.get("internal", {}).get(name)
        gap = probes.get("difference", {}).get(name)
        fact, basis = heads[name], metrics["intervals"]
        lines.append(f"{plain(name, 40)}: external intervals rest on {basis['rests_on']}")
        if internal:
            lines.append(f"internal test: {internal['intervals']['rests_on']}")
        elif fact["source"] != "--scores":
            lines.append("no predictions of the run's own test split beside the head: nothing to compare with")
        if fact["probabilities_hold_at"] is not None:
            share = fact["probabilities_hold_at"][int(str(result["positive_class"]))]
            lines.append(
                f"external probabilities: frozen, stated at {100 * share:.3g} % positive ({fact['prevalence_of']})"
            )
        lines.append(f"{'':<22}{'internal test':>24}{'external':>26}{'external - internal':>28}")
        for title, path, scale in _ROWS:
            cells = [_cell(part, path, scale) for part in (internal, metrics, gap)]
            if any(cell != "-" for cell in cells):
                lines.append(f"{title:<22}{cells[0]:>24}{cells[1]:>26}{cells[2]:>28}")
        if metrics["calibration"].get("in_the_large"):
            mended = [_cell(metrics, f"calibration/in_the_large/{part}", 1.0) for part in ("brier", "slope")]
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
    words = f"per group ({pool} of its images, positive if {rule} is): " if pool else "per group: "
    lines = [words + metrics["intervals"]["rests_on"]]
    for title, path, scale in (*_ROWS[:1], *_ROWS[3:5], *_ROWS[8:]):
        cells = [_cell(part, path, scale) for part in (internal, metrics)]
        lines.append(f"  {title:<22}" + (f"{cells[0]:>26}" if internal else "") + f"{cells[1]:>28}")
    return lines


def format_subgroups(columns: object) -> list[str]:
    """Return a table per column, and the largest gaps between its parts."""
    lines: list[str] = []
    for name, table in columns.items() if isinstance(columns, Mapping) else ():
        title = plain(name, 18)
        lines.append(f"{title:<20}{'n':>6}{'pos.':>6}{'AUROC %':>19}{'sensitivity %':>23}{'specificity %':>23}")
        for row in table["rows"][:12]:
            lines.append(
                f"{plain(row['value'], 18):<20}{row['n']:>6}{row['positives']:>6}{_cell(row, 'auroc', 100.0):>19}"
                f"{_cell(row, 'sensitivity', 100.0):>23}{_cell(row, 'specificity', 100.0):>23}"
            )
        if len(table["rows"]) > 12:
            lines.append(f"and {len(table['rows']) - 12} smaller parts, see result.json")
        gaps = [
            f"{metric} {gap['value'] * (1 if metric == 'intercept' else 100):.1f} "
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
    count = f"{len(others)} groups with fewer than {LARGE_GROUP} images of a class"
    return sites, [f"{count}; median [quartiles] %:", "  " + (", ".join(shares) or "too few to spread")]
