"""Ledger lines of experiments in folds: predictions of all folds pooled, and the mean over folds of everything else."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ttc.evaluation.folds import check_folds, pool_folds
from ttc.results.clinic.rough import rests_on
from ttc.run import ledger

if TYPE_CHECKING:
    from ttc.results.collect import Run

log = logging.getLogger("ttc")

POOLED = "pooled"
"""In the column fold: of the predictions of all folds together."""
MEAN_OF_FOLDS = "auroc_mean_of_folds"
"""Metric that only pooled predictions have."""

STEPS = {"linear_eval": "", "linear_eval/floor": "floor", "finetune": "", "from_scratch": ""}
"""Folder with predictions -> name of their section, where it is not that of the layer; metrics of the last two begin
with their name."""

Entry = dict[str, object]
"""A line of the ledger."""


def lines_over_folds(entries: Sequence[Entry], runs: Mapping[str, Run], *, complete: bool) -> list[Entry]:
    """Return further lines for every experiment that was run in folds: one per metric, seed and row.

    Args:
        entries: of single runs, with "I/K" in "fold" where a run is a fold.
        runs: "folder" of an entry -> its run.
        complete: whether missing folds are refused; without, they leave their experiment without values.

    Returns:
        Lines whose "fold" says how the folds were joined: POOLED, with intervals, or "mean of K".

    Raises:
        ValueError: folds that are missing, overlap, or are of different data.
    """
    experiments: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        if entry["fold"]:
            experiments.setdefault((entry["group"], entry["run"], entry["seed"]), []).append(entry)
    further: list[Entry] = []
    for (group, row, seed), members in experiments.items():
        parts = sorted({(_number(entry), str(entry["fold"]), str(entry["folder"])) for entry in members})
        count = int(parts[0][1].partition("/")[2])
        if not (whole := complete or len(parts) == count):
            log.warning("%s, %s, seed %s: %d of %d folds; the table shows '-'", group, row, seed, len(parts), count)
        if whole:
            check_folds(f"{group}, {row}, seed {seed}", {fold: runs[folder].path for _, fold, folder in parts})
        folders = [folder for _, _, folder in parts]
        pooled = _pooled([runs[folder] for folder in folders]) if whole else {}
        by_metric: dict[object, list[Entry]] = {}
        for entry in members:
            by_metric.setdefault(entry["metric"], []).append(entry)
        first = {metric: min(same, key=_number) for metric, same in by_metric.items()}
        for metric, template in first.items():
            joined = pooled.get(str(metric)) or _mean(by_metric[metric], count)
            further.append({**template, "folder": folders[0], **joined})
        for metric in (name for name in pooled if name.endswith(MEAN_OF_FOLDS)):
            alike = first.get(metric.replace(MEAN_OF_FOLDS, "auroc"))
            if alike is not None:
                further.append({**alike, "folder": folders[0], "metric": metric, **pooled[metric]})
    return further


def _number(entry: Entry) -> int:
    return int(str(entry["fold"]).partition("/")[0])


def _pooled(runs: Sequence[Run]) -> dict[str, Entry]:
    """Return metric -> its columns, of all predictions that every fold has."""
    found: dict[str, Entry] = {}
    for place, only_section in STEPS.items():
        files, step = [run.path / place / "predictions.csv" for run in runs], place.partition("/")[0]
        if not all(step in run.results and file.is_file() for run, file in zip(runs, files, strict=True)):
            continue
        positive, flags = [run.results[step].get("positive_class") for run in runs], runs[0].evaluations[step]
        if any(label != positive[0] for label in positive):
            raise ValueError(
                f"{runs[0].path} and further folds differ in the class that {step} calls positive ({positive}); "
                "evaluate them again with --positive-class"
            )
        draws, seed = (int(str(flags[name])) for name in ("bootstrap", "seed"))
        reports = pool_folds(files, int(str(positive[0])), bootstrap=draws, seed=seed)
        probes: dict[str, dict[str, object]] = {}
        for name, report in reports.items():
            section, probe = _place(name, flags)
            probes.setdefault(only_section or section, {})[probe] = report
        result = {"kind": step, "probes": probes}
        for metric, measure in ledger.measures(result).items():
            rests = rests_on(result, metric) if measure["low"] is not None else ""
            numbers = {part: measure[part] for part in ("value", "low", "high", "n")}
            found[metric if step == "linear_eval" else f"{step}/{metric}"] = {
                **numbers,
                "rests_on": rests,
                "fold": POOLED,
            }
    return found


def _place(name: str, flags: Mapping[str, object]) -> tuple[str, str]:
    """Return the section and the name in the result of a head that predictions call so."""
    if name in ("own", "prototype"):
        return name, "classifier"
    layers = flags.get("layers")
    layer = str(layers[0]) if isinstance(layers, list) else "encoder"
    head, _, probe = name.rpartition(" ")
    return f"{head} {layer}".strip(), probe


def _mean(entries: Sequence[Entry], count: int) -> Entry:
    """Return the mean over the folds; without a value where a fold has none."""
    values = [float(str(entry["value"])) for entry in entries if entry["value"] is not None]
    return {
        "value": statistics.fmean(values) if len(values) == count else None,
        **dict.fromkeys(("low", "high", "n")),
        "rests_on": "",
        "fold": f"mean of {count}",
    }
