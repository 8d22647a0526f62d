"""The mark of intervals that rest on few positive samples or patients, and the line that explains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ttc.run import ledger

MARK = "~"

_OTHER_SAMPLES = ("accuracy", "ppv", "npv")
"""Shares with exact intervals, of which most samples are not of the rare class."""


def rough_words(rests_on: object, metric: str) -> str:
    """Return what a rough interval rests on; "" where the interval needs no mark.

    Args:
        rests_on: words of `intervals.basis`, such as "11 positives of 9 patients: rough".
        metric: name of the metric, perhaps with a path before it; specificity does not rest on positives, nor
            sensitivity on negatives.
    """
    if not isinstance(rests_on, str) or not rests_on.endswith(": rough"):
        return ""
    other_side = "sensitivity" if "negatives" in rests_on else "specificity"
    return "" if metric.rpartition("/")[2] in (*_OTHER_SAMPLES, other_side) else rests_on


def mark_of(metrics: Mapping[str, object], path: str) -> str:
    """Return the mark of a metric in a result, or "".

    Args:
        metrics: of `clinical_metrics`, or a summary of several.
        path: of the metric, such as "operating_points/youden/sensitivity".
    """
    made = metrics.get("intervals")
    return MARK if isinstance(made, Mapping) and rough_words(made.get("rests_on"), path) else ""


def basis_line(rests_on: str, whose: str = "") -> str:
    """Return the line that says what intervals rest on, behind the mark where that is few; `whose` precedes it."""
    mark = f"{MARK} " if rough_words(rests_on, "") else ""
    return f"{mark}{whose}intervals rest on {rests_on}"


def explanation(words: Iterable[str]) -> list[str]:
    """Return a line for every kind of rough interval that a table marks; "" stands for none."""
    return [basis_line(text) for text in dict.fromkeys(words) if text]


def rests_on(result: Mapping[str, object], metric: str) -> str:
    """Return what the interval of a metric of a result rests on, in words; "" where the result does not say."""
    parts = metric.split("/")
    if parts[0] == "difference":
        both = [rests_on(result, "/".join([section, *parts[1:]])) for section in ("external", "internal")]
        return next((words for words in both if words.endswith("rough")), both[0])
    words = ""
    entry: object = dict(ledger.classifiers(result))
    for part in parts:
        entry = entry.get(part) if isinstance(entry, Mapping) else None
        intervals = entry.get("intervals") if isinstance(entry, Mapping) else None
        if isinstance(intervals, Mapping) and isinstance(intervals.get("rests_on"), str):
            words = intervals["rests_on"]
    return words
