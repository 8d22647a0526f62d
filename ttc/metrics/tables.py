"""The printed table of representation metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ttc.metrics.representation import RepresentationMetrics, Summary

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
    heads = [*names, "macro", "all"]
    rows = _table_rows(metrics)
    sizes = metrics["class_rows"]
    cosine = metrics["mean_cosine"]
    lines = [
        f"{metrics['samples']} samples in {metrics['views']} views = {metrics['rows']} rows; "
        f"CAC: the {metrics['neighbours']} nearest other rows",
        f"* minority: {_shorten(class_names[minority], 40)}, {sizes[minority]} rows",
    ]
    for first in range(0, len(heads), _COLUMNS_PER_PART):
        part = slice(first, first + _COLUMNS_PER_PART)
        lines.append(f"{'':<20}{'better':<8}" + "".join(f"{head:>{_NAME_WIDTH}}" for head in heads[part]))
        for title, direction, digits, summary in rows:
            values = [*summary["per_class"], summary["macro"], summary["all"]]
            cells = "".join(f"{_cell(value, digits):>{_NAME_WIDTH}}" for value in values[part])
            lines.append(f"{title:<20}{direction:<8}{cells}")
    lines.append(
        f"mean cosine within classes: {_cell(cosine['within'], 4)}; between classes: {_cell(cosine['between'], 4)}"
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


def format_probes(results: Mapping[str, Mapping[str, Mapping[str, object]]], positive_name: str) -> list[str]:
    """Format linear probes as lines of at most 100 columns, in percent.

    Args:
        results: by layer and probe, each with "train_samples" and a summary per metric (mean, std, low, high).
        positive_name: name of the positive class.
    """
    names = {"accuracy": "accuracy", "balanced_accuracy": "bal. acc.", "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}
    lines = [
        f"positive class: {_shorten(positive_name, 40)}; percent, mean over draws [95 % interval of the test sample]",
        f"{'layer':<11}{'probe':<9}{'n':>6}" + "".join(f"{head:>14}" for head in names.values()),
    ]
    for layer, probes in results.items():
        for probe, metrics in probes.items():
            cells = [_percent(metrics.get(name)) for name in names]
            lines.append(f"{layer:<11}{probe:<9}{metrics['train_samples']:>6}" + "".join(f"{c:>14}" for c in cells))
    return lines


def _percent(summary: object) -> str:
    if not isinstance(summary, Mapping) or summary["mean"] is None:
        return "-"
    text = f"{100 * summary['mean']:.1f}"
    return text if summary["low"] is None else f"{text} [{100 * summary['low']:.0f},{100 * summary['high']:.0f}]"
