"""Figures for those who act on a result: ROC here and there, reliability, decision curve, subgroups.

Shape suffixes: N samples, K classes, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttc.evaluation.elsewhere.measure import Scored
from ttc.metrics.curves import ranking_curves
from ttc.results.clinic.rough import mark_of
from ttc.results.figure_style import COLOURS, drawing, save, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FOREST = (("auroc", "AUROC"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))


def draw_clinical(
    folder: Path,
    prefix: str,
    external: Scored,
    internal: Scored | None,
    parts: Mapping[str, Mapping[str, object]],
    positive_class: int,
) -> None:
    """Draw all figures of a head on other data.

    Args:
        folder: where they go: roc, reliability, decision_curve and subgroups, as PNG and PDF.
        prefix: name of the head where there are several, else "".
        external: scores there.
        internal: scores of the run's own test split, or None.
        parts: of `evaluate_elsewhere`.
        positive_class: of two classes; figures of more classes are left out.
    """
    if external.scores_NK.shape[1] != 2:
        return
    start = "".join(letter if letter.isalnum() else "-" for letter in prefix) + "-" if prefix else ""
    metrics = parts["external"]
    path = folder / f"{start}roc.png"
    with drawing(path):
        samples = {"external": external} | ({"internal test": internal} if internal is not None else {})
        values = {"external": metrics, "internal test": parts["internal"]}
        curves = {name: (each, _auroc(values[name])) for name, each in samples.items()}
        save(roc_figure(curves, positive_class, _threshold(metrics)), path)
    draw_summary(folder, start, metrics)


def draw_summary(folder: Path, start: str, metrics: Mapping[str, object]) -> None:
    """Draw what is in the metrics of any head: reliability, decision curve, subgroups."""
    details = metrics["details"]
    if not isinstance(details, Mapping):
        return
    if details.get("reliability_calibrated"):
        path = folder / f"{start}reliability.png"
        with drawing(path):
            save(reliability_figure(details), path)
    curve = details.get("decision_curve")
    if isinstance(curve, Mapping) and curve:
        path = folder / f"{start}decision_curve.png"
        with drawing(path):
            save(decision_figure(curve), path)
    subgroups = details.get("subgroups")
    if isinstance(subgroups, Mapping) and subgroups:
        path = folder / f"{start}subgroups.png"
        with drawing(path):
            save(subgroup_figure(subgroups, metrics), path)


def _auroc(metrics: Mapping[str, object]) -> str:
    entry = metrics["auroc"]
    assert isinstance(entry, Mapping)
    value, low, high = entry.get("value", entry.get("mean")), entry.get("low"), entry.get("high")
    if value is None:
        return ""
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]{mark_of(metrics, 'auroc')}"
    return f"{value:.3f}{interval}"


def _threshold(metrics: Mapping[str, object]) -> float | None:
    """Return the threshold that validation chose for the largest sensitivity + specificity, or None."""
    details = metrics["details"]
    thresholds = details.get("thresholds") if isinstance(details, Mapping) else None
    found = thresholds.get("youden") if isinstance(thresholds, Mapping) else None
    return found if isinstance(found, float) else None


def _square(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    return figure, axes


def roc_figure(
    samples: Mapping[str, tuple[Scored, str]], positive_class: int, threshold: float | None = None
) -> Figure:
    """Draw the ROC curves of several sets.

    Args:
        samples: name -> scores, and the words for its AUROC.
        positive_class: of two classes.
        threshold: of the score, whose points are marked; None marks none.
    """
    figure, axes = _square("ROC of the same frozen head")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    for number, (name, (each, words)) in enumerate(samples.items()):
        positive_N = each.labels_N == positive_class
        if positive_N.all() or not positive_N.any():
            continue
        curve = ranking_curves(positive_N, each.scores_NK[:, positive_class])(np.ones((1, len(positive_N))))
        false_T = 1.0 - np.concatenate([[1.0], curve.specificity_RT[0]])
        label = f"{name}: AUROC {words}\n{int(positive_N.sum())} of {len(positive_N)} positive"
        axes.plot(false_T, np.concatenate([[0.0], curve.sensitivity_RT[0]]), color=COLOURS[number], label=label)
        if threshold is not None:
            called_N = each.scores_NK[:, positive_class] >= threshold
            point = [called_N[~positive_N].mean()], [called_N[positive_N].mean()]
            axes.plot(*point, "o", color=COLOURS[number], markeredgecolor="black", zorder=3)
    if threshold is not None:
        axes.plot([], [], "o", color="white", markeredgecolor="black", label="at the frozen threshold")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


def reliability_figure(details: Mapping[str, object]) -> Figure:
    """Draw observed frequency against probability: raw scores, calibrated, and with a new intercept where known."""
    figure, axes = _square("Reliability before and after calibration")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="ideal")
    curves = (
        ("reliability", "raw score (before)", "o", COLOURS[1]),
        ("reliability_calibrated", "probability (after)", "s", COLOURS[0]),
        ("reliability_in_the_large", "with a new intercept, fitted here", "^", COLOURS[2]),
    )
    for key, label, marker, colour in curves:
        bins = details.get(key)
        points = [each for each in bins if each["n"]] if isinstance(bins, list) else []
        if points:
            size = [12 + 60 * np.sqrt(each["n"] / max(one["n"] for one in points)) for each in points]
            x, y = [each["mean_score"] for each in points], [each["observed"] for each in points]
            axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.8)
            axes.scatter(x, y, s=size, color=colour, marker=marker, label=label, alpha=0.8)
    axes.set(xlabel="predicted", ylabel="observed share of positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    # Points may lie anywhere in the square.
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    return figure


def decision_figure(curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Figure:
    """Draw the net benefit of the model with its band, of treating all and of treating none.

    Args:
        curves: prevalence -> "thresholds", "model", "low", "high", "treat_all"; "own" is that of the samples.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(curves), 4.4), layout="constrained")
    for panel, (key, curve) in zip(figure.subplots(1, len(curves), squeeze=False).flat, curves.items(), strict=True):
        at_T = np.array(curve["thresholds"], dtype=float)
        model_T, low_T, high_T, all_T = (
            np.array([np.nan if value is None else value for value in curve[name]], dtype=float)
            for name in ("model", "low", "high", "treat_all")
        )
        panel.fill_between(at_T, low_T, high_T, color=COLOURS[0], alpha=0.18, linewidth=0, label="95 % band")
        panel.plot(at_T, model_T, color=COLOURS[0], label="model")
        panel.plot(at_T, all_T, color=COLOURS[1], linestyle="--", label="treat all")
        panel.axhline(0.0, color="0.4", linewidth=1, linestyle=":", label="treat none")
        top = max(0.01, float(np.nanmax([np.nanmax(high_T) if np.isfinite(high_T).any() else 0.0, np.nanmax(model_T)])))
        panel.set(xlabel="decision threshold (probability)", ylabel="net benefit", ylim=(-0.35 * top, 1.15 * top))
        panel.set_title(
            "at the prevalence of these samples" if key == "own" else f"where {100 * float(key):g} % are positive",
            fontsize=11,
        )
        panel.grid(alpha=0.25)
        panel.legend(fontsize=8, frameon=False)
    return figure


def subgroup_figure(columns: Mapping[str, Mapping[str, object]], metrics: Mapping[str, object]) -> Figure:
    """Draw a forest plot: AUROC, sensitivity and specificity of every subgroup, and of all samples as a line."""
    from matplotlib.figure import Figure

    rows = [(name, row) for name, table in columns.items() for row in table["rows"]]  # type: ignore[attr-defined]  # rows
    figure = Figure(figsize=(11.0, 1.7 + 0.34 * len(rows)), layout="constrained")
    panels = list(figure.subplots(1, len(_FOREST), sharey=True, squeeze=False).flat)
    labels = [
        f"{short_name(name, 16)} = {short_name(row['value'], 16)}  ({row['positives']}/{row['n']})"
        for name, row in rows
    ]
    for panel, (key, title) in zip(panels, _FOREST, strict=True):
        for place, (_, row) in enumerate(rows):
            entry = row[key]
            if entry["value"] is None:
                panel.text(0.5, place, "not defined", fontsize=7, color="0.5", va="center", ha="center")
                continue
            if entry["low"] is not None:
                panel.plot([entry["low"], entry["high"]], [place, place], color=COLOURS[0], linewidth=1.4)
            rough = mark_of(row, key) and entry["low"] is not None
            panel.plot(
                [entry["value"]], [place], "s", color=COLOURS[0], markersize=4.5,
                markerfacecolor="white" if rough else COLOURS[0],
            )  # fmt: skip
        whole = _whole(metrics, key)
        if whole is not None:
            panel.axvline(whole, color=COLOURS[1], linewidth=1, linestyle="--", label="all samples")
        panel.set(title=title, xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
        panel.grid(alpha=0.25, axis="x")
    panels[0].set_yticks(range(len(rows)), labels, fontsize=8)
    panels[0].plot([], [], "s-", color=COLOURS[0], markersize=4.5, label="subgroup (positives/n) with 95 % interval")
    if any(mark_of(row, key) for _, row in rows for key, _ in _FOREST):
        panels[0].plot(
            [], [], "s", color=COLOURS[0], markersize=4.5, markerfacecolor="white", label="rests on few positives"
        )
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return figure


def _whole(metrics: Mapping[str, object], key: str) -> float | None:
    entry: object = metrics["auroc"] if key == "auroc" else None
    points = metrics.get("operating_points")
    if key != "auroc" and isinstance(points, Mapping):
        entry = points["youden"][key]
    value = entry.get("value", entry.get("mean")) if isinstance(entry, Mapping) else None
    return value if isinstance(value, float) else None
