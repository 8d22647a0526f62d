"""The ledger of the fair study, a line per finished run, and the choices of rate and length that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas

from study.fair import grid
from study.fair.grid import Run
from ttc.run import readers
from ttc.run.manifest import RESULT_FILES
from ttc.run.readers import Source

PROBES = ("i", "ii")
"""Probe i learns from as many images per class as the minority has in training, probe ii from more; see `Task`."""
OF_PROBES = ("auroc", "balanced_accuracy", "auprc")
HEADS = {"balanced-all": "", "logit-adjusted": "logit-adjusted "}
"""Column -> name, before the layer, of heads that learn from all images: with balanced weights, adjusted afterwards."""
OF_EMBEDDINGS = tuple(
    f"projection/{name}"
    for name in (
        "SAA/majority",
        "SAA/minority",
        "CAC/majority",
        "CAC/minority",
        "CAC/macro",
        "CAC_over_cap/minority",
        "effective_rank/all",
        "mean_cosine/all",
    )
)
BAD_STEP = "bad_step.json"
"""What a training leaves behind whose loss is not finite."""
_NAME = re.compile(
    r"(?P<task>[\w-]+)/(?P<row>[\w-]+)-lr(?P<rate>[\d.]+)-e(?P<epochs>\d+)-seed(?P<seed>\d+)(-fold(?P<fold>\d+))?"
)


def run_of(name: str) -> Run:
    """Return the run that a folder of results holds.

    Raises:
        ValueError: the folder is none of this study.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name} is no run of the fair study, TASK/ROW-lrLR-eEPOCHS-seedSEED[-foldFOLD]")
    fold = None if parts["fold"] is None else int(parts["fold"])
    return Run(parts["task"], parts["row"], float(parts["rate"]), int(parts["epochs"]), int(parts["seed"]), fold)


def _measured(run: Run) -> Iterator[tuple[str, str]]:
    """Yield column of the ledger and metric of the results, without those of test images that nobody may see yet."""
    layer = grid.TASKS[run.task].probed
    for probe, samples in zip(PROBES, grid.TASKS[run.task].probes, strict=True):
        for metric in OF_PROBES[:2]:
            yield f"val/{probe}/{metric}", f"{layer}/{samples}/validation/{metric}"
        if run.reported:
            for metric in OF_PROBES:
                yield f"test/{probe}/{metric}", f"{layer}/{samples}/{metric}"
                yield f"floor/{probe}/{metric}", f"floor/{samples}/{metric}"
    if run.reported:
        for head, place in HEADS.items():
            for metric in OF_PROBES:
                yield f"test/{head}/{metric}", f"{place}{layer}/all/{metric}"
        for metric in OF_EMBEDDINGS:
            yield metric, metric


def finished(folder: Path, run: Run) -> dict[str, object] | None:
    """Return the line of a run; None if a step of it has not ended.

    A tuning run whose loss was not finite has ended, without values: it is not to be chosen and not to be repeated.

    Args:
        folder: that of the run.
        run: what it is.

    Raises:
        ValueError: a result is damaged.
    """
    results = [folder / RESULT_FILES[step] for step in run.line().steps]
    if not run.reported and (folder / BAD_STEP).is_file():
        return {"run": run.name}
    if not all(path.is_file() for path in results):
        return None
    texts = [readers.read_result(path) for path in results]
    values: dict[str, float] = {}
    for text, path in zip(texts, results, strict=True):
        measures = Source(path, readers.AGAIN).mapping(text["measures"], "measures")
        values |= {name: measure["value"] for name, measure in measures.items()}  # type: ignore[index]
    task = grid.TASKS[run.task]
    positives = values.get(f"{task.probed}/{task.probes[0]}/positives")
    record = Source(results[0], readers.AGAIN).mapping(texts[0]["record"], "record")
    return {
        "run": run.name,
        "commit": record["git"]["commit"],  # type: ignore[index]
        "seconds": values.get("train/seconds"),
        "positives": positives if run.reported else None,
        "loss": values.get("train/loss"),
        **{column: values.get(metric) for column, metric in _measured(run)},
    }


def collect(results: Path, known: pandas.DataFrame) -> pandas.DataFrame:
    """Return a ledger with all runs of a folder that have ended; what it knows of other runs stays."""
    lines = {str(line["run"]): line for line in known.to_dict("records")}
    for folder in sorted({path.parent for name in ("result.json", BAD_STEP) for path in results.glob(f"*/*/{name}")}):
        run = run_of(folder.relative_to(results).as_posix())
        if line := finished(folder, run):
            lines[run.name] = line
    columns = dict.fromkeys(["run", *(column for line in lines.values() for column in line)])
    return pandas.DataFrame(list(lines.values()), columns=list(columns)).sort_values("run", ignore_index=True)


def read(path: Path) -> pandas.DataFrame:
    """Read a ledger and say of each run what it is: columns task, row, rate, epochs, seed, fold and reported.

    Raises:
        ValueError: a run in it is none of this study.
    """
    ledger = pandas.read_csv(path) if path.is_file() else pandas.DataFrame({"run": []}, dtype=str)
    runs = [run_of(name) for name in ledger["run"]]
    parts = {name: [getattr(run, name) for run in runs] for name in ("task", "row", "rate", "epochs", "seed", "fold")}
    parts["reported"] = [run.reported for run in runs]
    return ledger.assign(**parts)


BASELINES = tuple(f"{name}-balanced" for name in ("ce", "cutmix", "supcon", "supmin", "supproto", "joint"))
"""Rows beside which a candidate recipe is put."""
COMPARED = (*BASELINES, *(name for name, row in grid.ROWS.items() if "candidate" in row.kinds))
"""Those rows and the candidates."""
SCORE = [f"val/{probe}/auroc" for probe in PROBES]
"""Their mean chooses."""


def scores(ledger: pandas.DataFrame) -> dict[str, float]:
    """Return run -> mean of both probes' AUROC on validation images; of a run without one, less than any other."""
    values = ledger.set_index("run").reindex(columns=SCORE).mean(axis=1, skipna=False)
    return {str(run): float(value) for run, value in values.fillna(-np.inf).items()}


def choose(scored: Mapping[str, float], runs: Sequence[Run]) -> Run | None:
    """Return the run with the largest score, the earlier one of equals.

    Args:
        scored: of `scores`.
        runs: what is chosen from.

    Returns:
        None as long as one of them is not in the ledger.
    """
    if not all(run.name in scored for run in runs):
        return None
    return max(runs, key=lambda run: scored[run.name])


def rates(ledger: pandas.DataFrame, tasks: Iterable[str]) -> Iterator[tuple[Run, Run]]:
    """Yield, for each task, row and fold whose rate is chosen, the short run of that rate and its long sibling."""
    scored = scores(ledger)
    for task in tasks:
        for row in grid.rows_of(task):
            epochs = grid.short_epochs(task, row)
            for seed, fold in grid.tuning_seeds(task):
                tried = [Run(task, row, rate, epochs, seed, fold) for rate in grid.RATES]
                if chosen := choose(scored, tried):
                    yield chosen, Run(task, row, chosen.rate, grid.LONGER * epochs, seed, fold)


def settings(ledger: pandas.DataFrame, tasks: Iterable[str]) -> Iterator[Run]:
    """Yield the tuning run that has the chosen rate and length, for each task, row and fold that is decided."""
    scored = scores(ledger)
    for short, long in rates(ledger, tasks):
        if chosen := choose(scored, [short, long] if grid.TASKS[short.task].longer else [short]):
            yield chosen


def further(ledger: pandas.DataFrame, tasks: Iterable[str]) -> Iterator[Run]:
    """Yield the runs with further seeds by which a candidate recipe is chosen: of candidates and balanced baselines."""
    for chosen in settings(ledger, [task for task in tasks if "candidate" in grid.TASKS[task].kinds]):
        if chosen.row in COMPARED:
            yield from (replace(chosen, seed=seed) for seed in grid.FURTHER_SEEDS)


def reported(ledger: pandas.DataFrame, tasks: Sequence[str]) -> Iterator[Run]:
    """Yield the runs that are reported, as far as their settings are chosen, and the untrained encoders."""
    yield from grid.untrained_runs(tasks)
    for chosen in settings(ledger, tasks):
        for seed, fold in grid.reported_seeds(chosen.task):
            if chosen.fold in (None, fold):
                yield Run(chosen.task, chosen.row, chosen.rate, chosen.epochs, seed, fold)
