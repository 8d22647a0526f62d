"""The printed table of representation metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ttc.evaluation.floor.measure import FloorResult
from ttc.metrics.representation import RepresentationMetrics, Summary, collapse_word
from ttc.results.clinic.rough import basis_line, mark_of
from ttc.results.clinic.tables import format_subgroups, site_rows
from ttc.results.floor.words import explained, marked, row_title

_COLUMNS_PER_PART = 5
_NAME_WIDTH = 13


def format_table(metrics: RepresentationMetrics, class_names: Sequence[str], minority: int) -> list[str]:
    """Format the metrics as lines of at most 100 columns.

    Args:
        metrics: Result of `representation_metrics`.
        class_names: One name per class, in label order.
        minority: Label of the minority class.

    Returns:
        The lines: what was measured, then one row per metric with each class, the mean of the classes and all rows.
        More than three classes continue in further parts.

    Raises:
        ValueError: If the number of names is not the number of classes.
    """
    classes = len(metrics["class_rows"])
    if len(class_names) != classes:
        raise ValueError(f"class_names has {len(class_names)} names, but the metrics have {classes} classes")
    names = [_shorten(name, _NAME_WIDTH - 1) for name in class_names]
    names[minority] = _shorten(class_names[minority], _NAME_WIDTH - 2) + "*"
    headings = [*names, "macro", "all"]
    rows = _table_rows(metrics)
    sizes = metrics["class_rows"]
    cosine = metrics["mean_cosine"]
    lines = [
        f"{metrics['samples']} samples in {metrics['views']} views = {metrics['rows']} rows; "
        f"CAC: the {metrics['neighbours']} nearest other rows",
        f"* minority: {_shorten(class_names[minority], 40)}, {sizes[minority]} row{'s' * (sizes[minority] != 1)}",
    ]
    for first in range(0, len(headings), _COLUMNS_PER_PART):
        part = slice(first, first + _COLUMNS_PER_PART)
        lines.append(f"{'':<20}{'better':<8}" + "".join(f"{heading:>{_NAME_WIDTH}}" for heading in headings[part]))
        for title, direction, digits, summary in rows:
            values = [*summary["per_class"], summary["macro"], summary["all"]]
            cells = "".join(f"{_cell(value, digits):>{_NAME_WIDTH}}" for value in values[part])
            lines.append(f"{title:<20}{direction:<8}{cells}")
    lines.append(
        f"mean cosine within classes: {_cell(cosine['within'], 4)}; between classes: {_cell(cosine['between'], 4)}; "
        f"collapsed: {collapse_word(cosine['all'], None) or '-'}"
    )
    return lines


def _table_rows(metrics: RepresentationMetrics) -> list[tuple[str, str, int, Summary]]:
    """Return title, better direction, digits and values of each row."""
    rows = [
        ("SAA %", "higher", 2, metrics["SAA"]),
        ("SAD", "lower", 4, metrics["SAD"]),
        ("CAC %", "higher", 2, metrics["CAC"]),
        ("CAC cap %", "", 2, metrics["CAC_cap"]),
        ("CAC / cap %", "higher", 2, metrics["CAC_over_cap"]),
        ("CAD", "lower", 4, metrics["CAD"]),
        ("Gaussian potential", "lower", 4, metrics["gaussian_potential"]),
        ("effective rank", "higher", 2, metrics["effective_rank"]),
        ("mean cosine", "lower", 4, metrics["mean_cosine"]),
    ]
    if metrics["PEU"] is not None:
        rows.insert(7, ("PEU %", "higher", 2, metrics["PEU"]))
    return rows


def _shorten(text: str, width: int) -> str:
    """Cut a text that is too wide and mark the cut."""
    return text if len(text) <= width else text[: width - 2] + ".."


def _cell(value: float | None, digits: int) -> str:
    """Format one value."""
    return "not defined" if value is None else f"{value:.{digits}f}"


Results = Mapping[str, Mapping[str, Mapping[str, object]]]
"""By section (layer or head) and probe: "train_samples", a summary per metric (mean, std, low, high), "details"."""

_MOST_GROUPS = 10
_DECISIONS = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
_CELL = 17
"""Columns of "100.0 [100,100]", the mark and a space."""


def format_probes(results: Results, positive_name: str, floor: FloorResult | None = None) -> list[str]:
    """Format probes and other heads as lines of at most 100 columns, in percent.

    Args:
        results: what was measured.
        positive_name: name of the positive class.
        floor: of raw pixels, whose rows come last; what does not clear it is marked.
    """
    results = _different(results)
    marks = {(section, probe) for section in results for probe in results[section] if marked(floor, section, probe)}
    if floor is not None:
        results = {**results, "floor": floor["probes"]}
    first = {"balanced_accuracy": "bal. acc.", "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}
    second = {
        "accuracy": "accuracy",
        "mcc": "MCC",
        "sensitivity_at_specificity_90": "sens@90",
        "specificity_at_sensitivity_90": "spec@90",
    }
    return [
        f"positive class: {_shorten(positive_name, 28)}; percent, mean over draws [95 % interval{_units(results)}]",
        *_rows(results, (), first, marks),
        *_sizes(results),
        *(explained(floor) if floor is not None else ()),
        "sens@90: sensitivity at 90 % specificity; spec@90: the reverse",
        *_rows(results, (), second),
        *format_calibration(results),
        *_basis(results),
    ]


def format_calibration(results: Results) -> list[str]:
    """Format the calibration of scores and probabilities as lines of at most 100 columns; none where it is missing."""
    names = {"brier": "Brier", "log_loss": "log loss", "ece": "ECE", "intercept": "intercept", "slope": "slope"}
    widths = (7, 10, 7, 21, 19)
    lines = []
    for section, probes in results.items():
        for probe, summary in probes.items():
            calibration = summary.get("calibration")
            for when, title in (("before", "score"), ("after", "probability")):
                entries = calibration.get(when, {}) if isinstance(calibration, Mapping) else {}
                cells = [
                    _number(entries.get(name), name in ("intercept", "slope"), mark_of(summary, name)) for name in names
                ]
                if any(cell != "-" for cell in cells):
                    row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
                    lines.append(f"{_shorten(f'{section} {probe}', 23):<24}{title:<12}{row}")
    if not lines:
        return []
    heads = "".join(f"{head:>{width}}" for head, width in zip(names.values(), widths, strict=True))
    return [
        "calibration; intercept 0 and slope 1 [95 % interval] are right, slope below 1 is too extreme",
        f"{'':<36}{heads}",
        *lines,
    ]


def _number(summary: object, interval: bool, mark: str) -> str:
    """Format an estimate, or the summary of several, as it is; the mark goes behind an interval."""
    value = summary.get("mean", summary.get("value")) if isinstance(summary, Mapping) else None
    if not isinstance(summary, Mapping) or not isinstance(value, int | float):
        return "-"
    if not interval or summary["low"] is None:
        return f"{value:.3f}"
    return f"{value:.2f} [{summary['low']:.1f},{summary['high']:.1f}]{mark}"


def format_clinical(results: Results, prevalences: Sequence[float]) -> list[str]:
    """Format what the decisions reach on the test split, elsewhere and by group, as lines of at most 100 columns.

    Args:
        results: what was measured, for two classes.
        prevalences: shares of the positive class for which predictive values were asked.
    """
    results = _different(results)
    lines = [
        "at the threshold that validation chose for the largest sensitivity + specificity (Youden):",
        *_rows(results, ("operating_points", "youden"), _DECISIONS),
    ]
    for prevalence in prevalences:
        lines.append(f"the same threshold where {100 * prevalence:g} % are positive:")
        lines += _rows(results, ("deployment", f"{prevalence:g}", "youden"), {"ppv": "PPV", "npv": "NPV"})
        lines += _rows(results, ("deployment", f"{prevalence:g}"), {"auprc": "AUPRC"})
    for section, probes in results.items():
        for probe, metrics in probes.items():
            details = metrics["details"]
            if isinstance(details, Mapping):
                title = f"{section} {probe}, first draw: "
                parts = [*_by_group(details["groups"], title), *format_subgroups(details.get("subgroups"))]
                return [*lines, *_per_group(results), *parts]
    return lines


def _per_group(results: Results) -> list[str]:
    """Return what one score per group reaches; nothing where groups were not measured."""
    groups: dict[str, dict[str, Mapping[str, object]]] = {}
    for section, probes in results.items():
        for probe, summary in probes.items():
            metrics = summary.get("per_group")
            if isinstance(metrics, Mapping):
                groups.setdefault(section, {})[probe] = {**metrics, "train_samples": summary["train_samples"]}
    if not groups:
        return []
    first = next(iter(next(iter(groups.values())).values()))
    return [
        f"one score per group ({first['pool']} of its images, positive if {first['group_label']} is), {first['n']} "
        "groups (thresholds from validation):",
        *_rows(groups, (), {"balanced_accuracy": "bal. acc.", "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}),
        *_rows(groups, ("operating_points", "youden"), _DECISIONS),
        *_basis(groups),
        *format_calibration(groups),
    ]


def _by_group(groups: Sequence[Mapping[str, object]] | None, title: str) -> list[str]:
    """Return a table of the groups that are sites, and a line about how metrics spread over the others."""
    if groups is None:
        return []
    sites, spread = site_rows(groups)
    if not sites:
        return [f"{title.rstrip(', :')}:", *spread]
    return [f"{title}by group:", *_group_lines(sites), *spread]


def _different(results: Results) -> Results:
    """Leave out sections that repeat an earlier one: without projection head, both layers are one."""
    kept: dict[str, Mapping[str, Mapping[str, object]]] = {}
    for section, probes in results.items():
        if probes not in kept.values():
            kept[section] = probes
    return kept


def _sizes(results: Results) -> list[str]:
    """Say what the column "train" counts, and how large the test set is."""
    summary = next((summary for probes in results.values() for summary in probes.values()), {})
    counts, positive = summary.get("class_counts"), summary.get("positive_class")
    known = isinstance(counts, list) and len(counts) == 2 and isinstance(positive, int)
    positives = f", {counts[positive]} positive" if known else ""  # type: ignore[index]  # known says so
    return [f"train: images that a head learned from; test: {summary.get('n', '-')} images{positives}"]


def _units(results: Results) -> str:
    """Say what the intervals take as independent where it is not the single sample."""
    for summary in (summary for probes in results.values() for summary in probes.values()):
        intervals = summary.get("intervals")
        if isinstance(intervals, Mapping) and intervals["draws"] and intervals["resampled"] == "groups":
            return f" over {intervals['units']} groups"
    return ""


def _basis(results: Results) -> list[str]:
    """Say in words what the intervals rest on, for each test set once; behind the mark where that is few."""
    words: dict[str, None] = {}
    for summary in (summary for probes in results.values() for summary in probes.values()):
        made = summary.get("intervals")
        if isinstance(made, Mapping) and made["draws"] and isinstance(made.get("rests_on"), str):
            words[made["rests_on"]] = None
    return [basis_line(text) for text in words]


def _rows(
    results: Results, path: Sequence[str], names: Mapping[str, str], marks: Collection[tuple[str, str]] = ()
) -> list[str]:
    """Return the header and a line per section and probe; `path` leads to the metrics within a probe's summary."""
    lines = [f"{'layer':<15}{'probe':<11}{'train':>6}" + "".join(f"{heading:>{_CELL}}" for heading in names.values())]
    for section, probes in results.items():
        for probe, summary in probes.items():
            entry: object = summary
            for step in path:
                entry = entry.get(step) if isinstance(entry, Mapping) else None
            metrics = entry if isinstance(entry, Mapping) else {}
            cells = "".join(f"{_percent(metrics.get(name), mark_of(summary, name)):>{_CELL}}" for name in names)
            title = row_title(section, probe, marked=(section, probe) in marks)
            lines.append(f"{title}{summary['train_samples']:>6}{cells}")
    return lines


def _group_lines(groups: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the largest groups, one a line."""
    lines = [f"{'group':<32}{'n':>7}{'positive':>10}{'accuracy':>10}{'AUROC':>16}{'sens.':>9}{'spec.':>9}"]
    for row in groups[:_MOST_GROUPS]:
        shares = [_share(row.get(name)) for name in ("accuracy", "sensitivity", "specificity")]
        lines.append(
            f"{_shorten(str(row['group']), 31):<32}{row['n']:>7}{row.get('positives', '-'):>10}{shares[0]:>10}"
            f"{_percent(row.get('auroc')):>16}{shares[1]:>9}{shares[2]:>9}"
        )
    if (more := len(groups) - _MOST_GROUPS) > 0:
        lines.append(f"and {more} smaller group{'s' * (more > 1)}, see result.json")
    return lines


def _share(value: object) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) else "-"


def _percent(summary: object, mark: str = "") -> str:
    """Format an estimate, or the summary of several, in percent; the mark goes behind an interval."""
    if not isinstance(summary, Mapping):
        return "-"
    text = _share(summary.get("mean", summary.get("value")))
    if summary["low"] is None:
        return text
    return f"{text} [{100 * summary['low']:.0f},{100 * summary['high']:.0f}]{mark}"
