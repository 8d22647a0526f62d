"""Predictions of runs that are compared: read, aligned sample by sample, and matched by seed and fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ttc.evaluation.predictions import DecisionRule, read_predictions_table
from ttc.metrics.clinic.matched import Pair
from ttc.run import ledger, readers
from ttc.run.folder import shorten
from ttc.run.readers import Source, read_positive_class, read_result


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run.

    Attributes:
        path: the file.
        name: of the probe.
        test: rows of the test split by sample id, with the columns label, score and group.
        threshold: a sample is called positive if its score reaches it.
        positive_class: the class whose probability the scores are.
        classes: how many classes the run has.
    """

    path: Path
    name: str
    test: pandas.DataFrame
    threshold: float
    positive_class: int
    classes: int


def predictions_file(run: str, probe: str | None) -> Path:
    """Return the file that a run folder, an evaluation folder or a path names.

    Of a run that was probed and fine-tuned it is the one of the two that alone has the probe.

    Raises:
        ValueError: there is none, or there are several.
    """
    path = Path(run)
    if path.exists() and not path.is_dir():
        return path
    folders = [
        folder for folder in (path, path / "linear_eval", path / "finetune") if (folder / "predictions.csv").is_file()
    ]
    if len(folders) > 1 and probe is not None:
        tables = [read_predictions_table(folder / "predictions.csv", path) for folder in folders]
        having = [folder for folder, table in zip(folders, tables, strict=True) if probe in set(table.get("probe", ()))]
        folders = having or folders
    if len(folders) != 1:
        what = "no predictions.csv" if not folders else "several predictions.csv"
        inside = sorted(path.glob("*/predictions.csv")) + sorted(path.glob("external/*/predictions.csv"))
        example = inside[0].parent if inside else path / "linear_eval"
        raise ValueError(f"{run} has {what}; name the evaluation folder, such as {example}")
    return folders[0] / "predictions.csv"


def choose_probe(table: pandas.DataFrame, probe: str | None, path: Path) -> tuple[str, pandas.DataFrame]:
    """Return the name and the predictions of one probe.

    Raises:
        ValueError: it is not there, or there are several to choose from.
    """
    if "probe" not in table and probe is None:
        return "", table
    names = list(table["probe"].unique()) if "probe" in table else []
    if probe is not None and probe not in names:
        raise ValueError(f"--probe {probe} is not in {path}; choose from {shorten(names)}")
    if probe is None and len(names) > 1:
        raise ValueError(f"{path} holds several probes; choose one with --probe: {shorten(names, 10)}")
    name = probe or names[0]
    return name, table[table["probe"] == name]


def load_predictions(run: str, probe: str | None, rule: DecisionRule, positive_class: int | None) -> Predictions:
    """Read the predictions of a run and choose its threshold.

    Raises:
        ValueError: no predictions, several probes to choose from, or samples that occur twice.
    """
    path = predictions_file(run, probe)
    within = Path(run) if Path(run).is_dir() else None
    name, table = choose_probe(read_predictions_table(path, within), probe, path)
    result = path.parent / "result.json"
    content = read_result(result, within) if result.is_file() else {}
    stored = read_positive_class(result, within) if content else 1
    positive = stored if positive_class is None else positive_class
    classes = sum(column.startswith("score_") for column in table.columns) or 2
    if positive >= classes:
        raise ValueError(f"--positive-class {positive} is not in {path}, which has the classes 0 to {classes - 1}")
    if classes > 2:
        table = table.assign(score=table[f"score_{positive}"])
    elif content and positive != stored:
        raise ValueError(f"--positive-class {positive}: the scores in {path} are of class {stored}; leave it out")
    table = table.assign(group=table.get("group", "")).set_index("id")
    test, val = table[table["split"] == "test"], table[table["split"] == "val"]
    if test.empty or test.index.has_duplicates:
        raise ValueError(f"{path} must hold every test sample once; evaluate the run again in a new folder")
    if rule.pool is not None and not table["group"].all():
        raise ValueError(f"--per-group: {path} has samples without a group; leave it out, or evaluate with groups")
    if content.get("kind") == "external":
        probes: Any = content.get("probes")
        threshold = Source(result, within=within).using(lambda: rule.frozen(probes["external"][name]))
    else:
        threshold = rule.on_validation(val, positive)
    if threshold is None:
        raise ValueError(f"--threshold {rule.threshold}: the validation behind {path} allows none; use half")
    return Predictions(path, name, test, threshold, positive, classes)


def aligned(first: Predictions, second: Predictions) -> tuple[np.ndarray, list[np.ndarray], list[str] | None]:
    """Return whether each sample is positive, its two scores, and its group where the data have groups.

    Raises:
        ValueError: the runs were not tested on the same samples with the same labels and groups.
    """
    if first.classes != second.classes:
        raise ValueError(
            f"{first.path} has {first.classes} classes, {second.path} {second.classes}; compare runs of equal classes"
        )
    if first.positive_class != second.positive_class:
        raise ValueError(
            f"the scores are of class {first.positive_class} in {first.path}, of class {second.positive_class} in "
            f"{second.path}; evaluate one of them again with --positive-class"
        )
    unmatched = first.test.index.symmetric_difference(second.test.index)
    if len(unmatched):
        raise ValueError(
            f"{first.path} and {second.path} were tested on different samples ({len(unmatched)} are in one only, such "
            f"as {unmatched[0]}); compare runs with the same data, seed and split"
        )
    second_test = second.test.loc[first.test.index]
    for column in ("label", "group"):
        if (first.test[column] != second_test[column]).any():
            raise ValueError(
                f"{first.path} and {second.path} give a sample different {column}s; compare runs on the same data and "
                "classes"
            )
    positive = (first.test["label"] == first.positive_class).to_numpy()
    if positive.all() or not positive.any():
        raise ValueError(f"{first.path} has test samples of one class only; a comparison needs both")
    groups = first.test["group"].tolist()
    scores = [predictions["score"].to_numpy(float) for predictions in (first.test, second_test)]
    return positive, scores, groups if any(groups) else None


def per_group(
    positive: np.ndarray, scores: list[np.ndarray], groups: list[str] | None, rule: DecisionRule, path: Path
) -> tuple[np.ndarray, list[np.ndarray], list[str] | None]:
    """Return what `aligned` does, by group where that is wanted.

    Raises:
        ValueError: all groups are of one class.
    """
    if rule.pool is None:
        return positive, scores, groups
    assert groups is not None
    pairs = [rule.pooled(positive, score, groups) for score in scores]
    if pairs[0][0].all() or not pairs[0][0].any():
        raise ValueError(f"--per-group: {path} has groups of one class only; try --group-label, or leave it out")
    return pairs[0][0], [score for _, score in pairs], None


@dataclass(frozen=True)
class Place:
    """Which repetition of an experiment a run is.

    Attributes:
        folder: of the run.
        seed: of its training.
        fold: "I/K", or "" without folds.
        training: digest of what makes another result.
    """

    folder: Path
    seed: int
    fold: str
    training: str

    @property
    def words(self) -> str:
        """Seed and fold, for a message."""
        return f"seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")


def place_of(predictions: Predictions) -> Place:
    """Return the seed and the fold of the run that predictions lie in.

    Raises:
        ValueError: they lie in no run folder.
    """
    for folder in predictions.path.resolve().parents[:3]:
        entries = readers.read_arguments(folder / "args.json") if (folder / "args.json").is_file() else {}
        if "method" in entries and "seed" in entries:
            values = ledger.given_arguments(entries)
            fold, digest = str(values.get("fold") or ""), ledger.arguments_digest(values)
            return Place(folder, int(str(values["seed"])), fold, digest)
    raise ValueError(
        f"{predictions.path} lies in no run folder, whose args.json says seed and fold; without --against two files "
        "can be compared"
    )


def match(first: Sequence[Predictions], second: Sequence[Predictions]) -> list[tuple[Place, Predictions, Predictions]]:
    """Match the runs of two methods by seed and fold.

    Raises:
        ValueError: a run has no partner, occurs twice, or one side mixes settings.
    """
    sides: list[Mapping[tuple[int, str], tuple[Place, Predictions]]] = []
    for runs in (first, second):
        side: dict[tuple[int, str], tuple[Place, Predictions]] = {}
        for predictions in runs:
            place = place_of(predictions)
            earlier, _ = side.setdefault((place.seed, place.fold), (place, predictions))
            if earlier.folder != place.folder:
                raise ValueError(
                    f"{earlier.folder} and {place.folder} are both {place.words} of one side; leave one out"
                )
            if earlier is not place:
                raise ValueError(f"{place.folder} is named twice on one side; name each run once")
            before, _ = next(iter(side.values()))
            if before.training != place.training:
                raise ValueError(
                    f"{before.folder} and {place.folder} on one side differ in more than seed and fold; compare one "
                    "setting with one other"
                )
        sides.append(side)
    for here, there in (sides, sides[::-1]):
        for key, (place, _) in here.items():
            if key not in there:
                raise ValueError(
                    f"{place.folder} ({place.words}) has no partner on the other side; add it, or leave it out"
                )
    return [(place, predictions, sides[1][key][1]) for key, (place, predictions) in sides[0].items()]


def pair_of(place: Place, first: Predictions, second: Predictions, rule: DecisionRule) -> Pair:
    """Return two matched runs as what is tested.

    Raises:
        ValueError: they were not tested on the same samples.
    """
    positive, scores, groups = aligned(first, second)
    units = first.test.index.tolist() if groups is None else groups
    positive, scores, _ = per_group(positive, scores, groups, rule, first.path)
    if rule.pool is not None:
        units = list(dict.fromkeys(units))
    decisions = [score >= run.threshold for score, run in zip(scores, (first, second), strict=True)]
    return Pair(place.seed, positive, (scores[0], scores[1]), (decisions[0], decisions[1]), units)
