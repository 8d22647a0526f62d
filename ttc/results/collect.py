"""From run folders to ledger lines; runs whose settings cannot be compared are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pandas

from ttc.results import ledger_lines
from ttc.results.clinic.folds import MEAN_OF_FOLDS, lines_over_folds
from ttc.results.clinic.further_columns import is_further
from ttc.results.clinic.rough import rests_on
from ttc.results.floor import rows as floor
from ttc.results.table_parts.row_names import compared_with, places_of, recipe_of
from ttc.run import ledger, readers, roles
from ttc.run.folder import shorten
from ttc.run.readers import Source

STEPS = {
    "": "result.json",
    "linear_eval": "result.json",
    "metrics": "metrics.json",
    "finetune": "result.json",
    "from_scratch": "result.json",
}
"""Folder in the run -> its result."""

OPTIONAL = ("finetune", "from_scratch")
"""Steps that a finished run need not have; their metrics begin with the name of the step."""

EXTERNAL = "external"
"""Folder of the results of scripts/evaluate.py, one folder per set of other data: a step "external/SET" each."""


@dataclass(frozen=True)
class Run:
    """What was read from a run folder.

    Attributes:
        path: the folder.
        training: flag -> value as given.
        evaluations: step -> flag -> value as given.
        results: step -> result.
        recipe: name of the recipe that chose the method; None where the command line did, or nobody.
    """

    path: Path
    training: Mapping[str, object]
    evaluations: Mapping[str, Mapping[str, object]]
    results: Mapping[str, Mapping[str, object]]
    recipe: str | None = None


def read_run(path: Path) -> tuple[Run, list[Path]]:
    """Read a run folder.

    Returns:
        The run, and the results that are missing from it.

    Raises:
        ValueError: the folder holds no run, or a file is damaged.
    """
    if not (path / "args.json").is_file():
        raise ValueError(f"{path} holds no run (no args.json); pass run folders")
    results, evaluations, missing = {}, {}, []
    for step, name in STEPS.items():
        if (path / step / name).is_file():
            results[step] = readers.read_result(path / step / name, path)
            evaluations[step] = ledger.given_arguments(readers.read_arguments(path / step / "args.json", path))
        elif step not in OPTIONAL:
            missing.append(path / step / name)
    for file in sorted(path.glob(f"{EXTERNAL}/*/result.json")):
        step = f"{EXTERNAL}/{file.parent.name}"
        results[step] = readers.read_result(file, path)
        if results[step]["kind"] != EXTERNAL:
            Source(file, "move it elsewhere", path).refuse("is no result of scripts/evaluate.py")
        arguments = ledger.given_arguments(readers.read_arguments(file.with_name("args.json"), path))
        # Every run has heads of its own; which of them is meant is in the names of the metrics.
        evaluations[step] = {name: value for name, value in arguments.items() if name != "head"}
    entries = readers.read_training(path / "args.json", path)
    return Run(path, ledger.given_arguments(entries), evaluations, results, recipe_of(entries)), missing


def lines_of(
    runs: Sequence[Run],
    wanted: Sequence[str],
    *,
    also: Sequence[str] = (),
    compared: frozenset[str] | None = None,
    root: Path | None = None,
    complete: bool = True,
) -> pandas.DataFrame:
    """Return the ledger of runs, a line per run and metric, in the order of the runs; then experiments in folds.

    Args:
        runs: what `read_run` read.
        wanted: metrics that every run gets a line for, without a value where it has none.
        also: patterns (`*`, `?`) of further metrics, of those that a run has; those of `further_columns` always.
        compared: training flags in which the rows of one group may differ; those of `compared_with` by default.
        root: folder that the names of the runs are relative to; the nearest common one by default.
        complete: whether an experiment that lacks a fold is refused; see `lines_over_folds`.

    Raises:
        ValueError: a run outside of `root`, a missing fold, or runs that do not belong in one table; the message names
            two of them and the flags that differ.
    """
    compared = compared_with() if compared is None else compared
    places = places_of(runs, compared)
    _refuse_other_settings(runs, [group for group, _ in places], compared)
    _refuse_other_sets(runs)
    folders = _relative([run.path.resolve() for run in runs], root)
    entries: list[dict[str, object]] = []
    for run, (group, name), folder in zip(runs, places, folders, strict=True):
        common = {
            "group": group,
            "run": name,
            "folder": folder,
            "seed": run.training["seed"],
            "fold": run.training.get("fold") or "",
            "shared": ledger.short_digest(_shared(run.training, compared)),
            "training": ledger.short_digest(run.training),
        }
        measured = _measured(run)
        patterns = (*wanted, *also)
        further = {name for name in measured if is_kept(name, patterns)}
        for metric in [*wanted, *sorted(further - set(wanted))]:
            if metric.endswith(MEAN_OF_FOLDS):  # no single run has it
                continue
            entries.append({**common, "metric": metric, **measured.get(metric, _NOT_MEASURED)})
    entries += lines_over_folds(entries, dict(zip(folders, runs, strict=True)), complete=complete)
    lines = ledger_lines.from_rows(entries)
    ledger_lines.check(lines)
    return lines


def is_kept(metric: str, patterns: Sequence[str]) -> bool:
    """Tell whether a ledger holds a metric: by pattern, always, or as the floor of one that it holds."""
    if metric.startswith(floor.PREFIX):
        return any(is_kept(network, patterns) for network in floor.stands_for(metric)) or is_match(metric, patterns)
    return is_further(metric) or is_match(metric, patterns)


def is_match(metric: str, patterns: Sequence[str]) -> bool:
    """Tell whether one of the patterns fits."""
    return any(fnmatchcase(metric, pattern) for pattern in patterns)


def _relative(paths: Sequence[Path], root: Path | None) -> list[str]:
    """Return paths relative to a folder, the nearest one that all lie in by default."""
    if not paths:
        return []
    top = Path(os.path.commonpath([path.parent for path in paths])) if root is None else root.resolve()
    if outside := [path for path in paths if not path.is_relative_to(top)]:
        raise ValueError(f"{outside[0]} lies outside of --results {root}; name a folder that all runs lie in")
    return [path.relative_to(top).as_posix() for path in paths]


_NOT_MEASURED: Mapping[str, object] = {
    **dict.fromkeys(("value", "low", "high", "n")),
    **dict.fromkeys(("split", "evaluation", "commit", "dirty", "rests_on"), ""),
}


def _measured(run: Run) -> dict[str, Mapping[str, object]]:
    """Return metric -> its number and how it was measured, as columns of the ledger."""
    measured: dict[str, Mapping[str, object]] = {}
    for step, result in run.results.items():
        # Results of an earlier version have no ledger yet.
        file, stored = Source(run.path / step / STEPS.get(step, "result.json")), result.get("measures")
        measures = stored if isinstance(stored, dict) else file.using(partial(ledger.measures, result))
        measures = {**file.using(partial(ledger.sizes, result)), **measures}  # which earlier ledgers lack
        record = result.get("record")
        git = record["git"] if isinstance(record, dict) else {}
        dirty = git.get("dirty")
        source = {
            "evaluation": ledger.short_digest(run.evaluations[step]),
            "commit": git.get("commit") or "",
            "dirty": "" if dirty is None else str(dirty).lower(),
        }
        for metric, measure in measures.items():
            numbers = {part: measure[part] for part in ("value", "low", "high", "n")}
            rests = rests_on(result, metric) if measure["low"] is not None else ""
            line = {**numbers, "split": measure["split"] or "", "rests_on": rests, **source}
            if (name := _name(run, step, metric)) is not None:
                measured[name] = line
    return measured


def _name(run: Run, step: str, metric: str) -> str | None:
    """Return the name of a metric in the ledger; None for that of another run's head, tested in the same call."""
    if not step.startswith(f"{EXTERNAL}/"):
        return f"{step}/{metric}" if step in OPTIONAL else metric
    section, _, rest = metric.partition("/")
    head, _, path = rest.partition("/")
    tested = run.evaluations[step].get("checkpoint")
    if isinstance(tested, list) and len(tested) > 1:
        # Such heads are named after their runs.
        if not head.startswith(f"{run.path.resolve().name} "):
            return None
        head = head.removeprefix(f"{run.path.resolve().name} ")
    return "/".join((step, *(() if section == EXTERNAL else (section,)), head, path))


def _refuse_other_sets(runs: Sequence[Run]) -> None:
    """Raise ValueError when external sets of one name have other samples; each is a column for all runs."""
    first: dict[str, tuple[Run, object]] = {}
    for run in runs:
        for step, result in run.results.items():
            if not step.startswith(f"{EXTERNAL}/"):
                continue
            other, samples = first.setdefault(step, (run, result.get("test_samples")))
            if samples != result.get("test_samples"):
                raise ValueError(
                    f"{other.path / step} has {samples} samples, {run.path / step} {result.get('test_samples')}; "
                    "rename one of the folders, or evaluate both runs on the same set"
                )


def _shared(training: Mapping[str, object], compared: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in training.items() if name not in compared}


def _refuse_other_settings(runs: Sequence[Run], groups: Sequence[str], compared: frozenset[str]) -> None:
    """Raise ValueError when runs of one group were trained or evaluated with other settings than those compared."""
    first: dict[tuple[str, str], tuple[Run, Mapping[str, object]]] = {}
    for run, group in zip(runs, groups, strict=True):
        for step, values in {"pretrain": _shared(run.training, compared), **run.evaluations}.items():
            if not step:
                continue
            other, expected = first.setdefault((group, step), (run, values))
            differ = sorted(
                name for name in values.keys() | expected.keys() if not roles.same_result(name, values, expected)
            )
            if differ:
                flags = shorten(f"--{name.replace('_', '-')}" for name in differ)
                raise ValueError(
                    f"{run.path} and {other.path} differ in {flags} of {step}; put them in separate tables"
                )
