"""Which model of an experiment validation chooses, and whether it is better than what needs no training.

Candidates are the heads of each row of the table (a method, repeated over seeds or folds). Validation AUROC, on average
over the repetitions, decides; the test split only says how good the chosen one is.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ttc.evaluation.predictions import read_predictions_table
from ttc.run import readers
from ttc.run.checkpoint import write_text

if TYPE_CHECKING:
    import pandas

PROBE, TUNED, FLOOR = "probe", "fine-tuned", "floor"
HEADS = (("linear_eval", "all", PROBE), ("linear_eval/floor", "all", FLOOR), ("finetune", "own", TUNED))
"""Step, name of the head in its predictions, and what a reader calls it; all of them learn from all training images."""

FIRST = (
    "pretrained weights (--encoder resnet18 --weights default), a larger --image-size, more steps (--steps) where a "
    "flag made them fewer than the rule's, and milder crops (--crop-scale 0.6 1)"
)
"""What to change where a model stays below the floor; steps and crops last: docs/budget.md saw them gain little."""


@dataclass(frozen=True)
class Candidate:
    """A head of a row.

    Attributes:
        row: of the table; "" for a floor, which is the same for all rows.
        head: PROBE, TUNED or FLOOR.
        runs: its run folders.
        validation: AUROC in [0, 1] of each run.
        test: the same on the test split.
    """

    row: str
    head: str
    runs: tuple[Path, ...]
    validation: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def name(self) -> str:
        """Return what a reader calls it."""
        return f"{self.row}, {self.head}" if self.row else self.head

    @property
    def means(self) -> tuple[float, float]:
        """Return the mean AUROC on validation and on test."""
        return statistics.fmean(self.validation), statistics.fmean(self.test)

    @property
    def best(self) -> int:
        """Return the number of the run that validation likes best."""
        return max(range(len(self.runs)), key=lambda number: self.validation[number])


def read_candidates(rows: Mapping[str, Sequence[Path]]) -> list[Candidate]:
    """Read the predictions of all runs.

    Args:
        rows: row of the table -> its run folders.

    Returns:
        The heads that all runs of their row have; a floor, which is the same for all rows, is read from one of them.
    """
    candidates: dict[str, Candidate] = {}
    for row, runs in rows.items():
        values = [_aurocs(run) for run in runs]
        for head in values[0] if values else ():
            if all(head in entry for entry in values):
                validation, test = zip(*(entry[head] for entry in values), strict=True)
                candidate = Candidate("" if head == FLOOR else row, head, tuple(runs), validation, test)
                candidates.setdefault(candidate.name, candidate)
    return list(candidates.values())


def _aurocs(run: Path) -> dict[str, tuple[float, float]]:
    """Return head -> AUROC on validation and on test."""
    values: dict[str, tuple[float, float]] = {}
    for step, name, head in HEADS:
        path = run / step / "predictions.csv"
        if not path.is_file():
            continue
        table = read_predictions_table(path, run)
        positive = readers.read_result(path.with_name("result.json"), run)["positive_class"]
        of_head = table[table["probe"] == name] if "probe" in table else table[:0]
        parts = [of_head[of_head["split"] == split] for split in ("val", "test")]
        if all(part["label"].nunique() > 1 for part in parts):
            validation, test = (_auroc(part, positive) for part in parts)
            values[head] = (validation, test)
    return values


def _auroc(predictions: pandas.DataFrame, positive: object) -> float:
    """Return the AUROC of predictions of a split; of more than two classes the mean of one against the rest."""
    from sklearn.metrics import roc_auc_score

    if "score" in predictions:
        return float(roc_auc_score(predictions["label"] == positive, predictions["score"]))
    scores = predictions[[name for name in predictions if str(name).startswith("score_")]].to_numpy()
    labels = predictions["label"].to_numpy()
    return statistics.fmean(float(roc_auc_score(labels == label, scores[:, label])) for label in sorted(set(labels)))


def choose(candidates: Sequence[Candidate], baselines: Sequence[str]) -> Candidate:
    """Return the candidate with the highest mean AUROC on validation.

    Args:
        candidates: of `read_candidates`.
        baselines: rows whose encoder was not trained, so that their probe is out of the question; so is the floor.

    Raises:
        ValueError: there is none.
    """
    eligible = [c for c in candidates if c.row and (c.head == TUNED or c.row not in baselines)]
    if not eligible:
        raise ValueError("no run has a head with predictions of both classes on validation and test; see the logs")
    return max(eligible, key=lambda candidate: candidate.means[0])


def verdict(chosen: Candidate, candidates: Sequence[Candidate], repetitions: str, rare: int) -> list[str]:
    """Say what was chosen, how good it is, and whether it clears the floor.

    Args:
        chosen: of `choose`.
        candidates: that it was chosen from.
        repetitions: what the numbers are means of, such as "3 seeds".
        rare: images of the rarest class in validation.

    Returns:
        Sentences.
    """
    validation, test = (100 * value for value in chosen.means)
    lines = [
        f"Validation chose {chosen.name}: mean AUROC over {repetitions} {validation:.1f} % on validation, {test:.1f} % "
        "on test."
    ]
    floor = next((candidate for candidate in candidates if candidate.head == FLOOR), None)
    if floor is None:
        return [*lines, "There is no floor to compare it with: linear_eval.py measured no classifier of raw pixels."]
    low, floor_test = (100 * value for value in floor.means)
    lines.append(f"The floor, classifiers of raw pixels: {low:.1f} % on validation, {floor_test:.1f} % on test.")
    higher = sum(ours > its for ours, its in zip(chosen.test, floor.test, strict=False))
    counted = f" in {higher} of {len(chosen.test)} runs" if len(chosen.test) > 1 else ""
    if test <= floor_test:
        missed = f"test{f' (it is{counted})' if counted else ''}{'' if validation > low else ' and validation'}"
        worth = f"as it is, it is not worth its effort. Change first: {FIRST}."
        return [*lines, f"The chosen model is NOT above the floor on {missed}: {worth}"]
    if validation <= low:
        why = (
            f"Why: the floor is the best of several classifiers on these validation images, {rare} of them of the "
            "rarest class, which flatters it; the test images chose nothing. Before you rely on the model, test it on "
            f"other data; to clear the floor on both, change first: {FIRST}."
        )
        return [*lines, f"The chosen model is above the floor on test{counted}, but NOT on validation. {why}"]
    return [*lines, f"The chosen model is above the floor on validation and on test{counted}."]


def copy_model(chosen: Candidate, folder: Path) -> tuple[Path, str]:
    """Copy the run that validation likes best, weights and head, to a folder that scripts use like a run.

    Args:
        chosen: of `choose`.
        folder: to write to; what an earlier choice left in it is replaced.

    Returns:
        The checkpoint, and the value of `--head` that belongs to it ("" for the probe's, the default).
    """
    run = chosen.runs[chosen.best]
    tuned = chosen.head == TUNED
    source, checkpoint = (run / "finetune", "best.pt") if tuned else (run, "last.pt")
    if folder.is_dir():
        shutil.rmtree(folder)
    (folder / "checkpoints").mkdir(parents=True)
    parts = [source / "checkpoints" / checkpoint, source / "checkpoints" / f"{checkpoint}.sha256"]
    parts += [path for path in source.iterdir() if path.suffix in (".json", ".csv", ".md")]
    if tuned:
        parts.append(run / "split.csv")
    else:
        parts += [
            path
            for path in (run / "linear_eval").iterdir()
            if path.suffix in (".json", ".csv", ".md", ".pt", ".sha256")
        ]
    for path in parts:
        if path.is_file():
            inside = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / inside)
    write_text(folder / "from.txt", f"{chosen.name}, of {run}\n")
    return folder / "checkpoints" / checkpoint, "own" if tuned else ""
