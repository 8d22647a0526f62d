"""ROC, precision-recall, reliability and confusion of the classifiers of a sweep: one probe, and whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas

from ttc.evaluation.predictions import Predictions, read_predictions
from ttc.results import curve_figures
from ttc.results.figures.members import Figure, Member, Planned, existing, laid_out, name_of, rows_of
from ttc.results.figures.panels import MOST_CURVES, CurvePanel, save_confusion_figure, save_curve_figure
from ttc.results.floor.rows import ROW, with_floor
from ttc.run.escape import plain
from ttc.run.readers import read_positive_class, read_result


@dataclass(frozen=True)
class Classifier:
    """A classifier that runs may have.

    Attributes:
        name: in titles.
        folder: of its results in a run.
        predictions: what predictions.csv calls it.
        section: of the result, and probe: where its metrics are.
    """

    name: str
    folder: str
    predictions: str
    section: str
    probe: str

    @property
    def metrics(self) -> str:
        """What its metrics in the ledger begin with."""
        place = f"{self.section}/{self.probe}"
        return place if self.folder == "linear_eval" else f"{self.folder}/{place}"


def classifiers_of(probe: str) -> list[Classifier]:
    """Return what is drawn: the probe of the page, and networks that were trained whole."""
    return [
        Classifier(f"probe {probe}", "linear_eval", probe, "encoder", probe),
        Classifier("fine-tuned", "finetune", "own", "own", "classifier"),
        Classifier("from scratch", "from_scratch", "own", "own", "classifier"),
    ]


def _read(members: Sequence[Member], classifier: Classifier) -> dict[str, list[Predictions]]:
    """Return the test predictions of a classifier by row, named as `rows_of` does; the floor beside it comes last."""
    out: dict[str, list[Predictions]] = {}
    for name, row in rows_of(members).items():
        for member in row:
            file = member.path / classifier.folder / "predictions.csv"
            path = existing(member, classifier.folder, "predictions.csv") if classifier.section == "encoder" else file
            if path is not None and path.is_file():
                positive = read_positive_class(path.parent / "result.json", member.path)
                predictions = read_predictions(path, classifier.predictions, positive, within=member.path)
                if predictions is not None:
                    out.setdefault(name, []).append(predictions)
    return out | (_read_floor(members, classifier) if out else {})


def _read_floor(members: Sequence[Member], classifier: Classifier) -> dict[str, list[Predictions]]:
    """Return the predictions of each group's floor, for each seed those of the first run that has it."""
    measured = [member for member in members if (member.path / "linear_eval" / ROW / "predictions.csv").is_file()]
    first = {(member.group, member.seed): member for member in reversed(measured)}
    several, out = len({member.group for member in members}) > 1, dict[str, list[Predictions]]()
    for member in reversed(first.values()):
        path = member.path / "linear_eval" / ROW / "predictions.csv"
        positive = read_positive_class(path.parent / "result.json", member.path)
        probe = classifier.predictions if classifier.section == "encoder" else "all"
        predictions = read_predictions(path, probe, positive, within=member.path)
        if predictions is not None:
            out.setdefault(name_of(ROW, member.group, several), []).append(predictions)
    return out


def _size(runs: Sequence[Predictions]) -> str:
    """Say how large the test sets of some runs are."""
    counts = [
        sorted({len(run.labels_N) for run in runs}),
        sorted({int((np.asarray(run.labels_N) == 1).sum()) for run in runs}),
    ]
    samples, positives = ("-".join(dict.fromkeys((str(numbers[0]), str(numbers[-1])))) for numbers in counts)
    return f"test n = {samples}, {positives} positive"


def _mean(lines: pandas.DataFrame, group: str, row: str, metric: str) -> tuple[float, float, float]:
    """Return value, low and high of a metric, the means over the seeds of a row; NaN where there is none."""
    rows = lines[(lines["group"] == group) & (lines["run"] == row) & (lines["metric"] == metric)]
    value, low, high = (float(rows[part].mean()) for part in ("value", "low", "high"))
    return value, low, high


def _panels(
    members: Sequence[Member], lines: pandas.DataFrame, classifier: Classifier
) -> list[tuple[str, str, dict[str, list[Predictions]]]]:
    """Return the group, the title and the predictions by row of each panel of a classifier."""
    panels = []
    for group in dict.fromkeys(member.group for member in members):
        read = _read([member for member in members if member.group == group], classifier)
        if read:
            learned = lines.loc[
                (lines["group"] == group) & (lines["metric"] == f"{classifier.metrics}/train_samples"), "value"
            ].dropna()
            taught = "" if learned.empty else f"; learned from {learned.min():.0f}"
            size = _size([run for runs in read.values() for run in runs])
            panels.append((group, f"{plain(group)}: {classifier.name}\n{size}{taught}", read))
    return panels


def discrimination(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    """Plan ROC and precision-recall: a panel per group and classifier, with all rows; a panel per row if too many."""
    lines = with_floor(lines)
    roc: list[CurvePanel] = []
    pr: list[CurvePanel] = []
    for classifier in classifiers_of(probe):
        for group, title, read in _panels(members, lines, classifier):
            prevalence = float(np.mean([run.labels_N.mean() for runs in read.values() for run in runs]))
            bands = {row: curve_figures.roc_and_pr(runs) for row, runs in read.items()}
            for number, (panels, metric, chance) in enumerate(((roc, "auroc", None), (pr, "auprc", prevalence))):
                curves = {row: pair[number] for row, pair in bands.items()}
                areas = {row: _mean(lines, group, row, f"{classifier.metrics}/{metric}") for row in curves}
                panels.append(CurvePanel(title, curves, areas, chance, metric.upper()))
    if not roc:
        return []
    reading = "Mean over seeds; in the legend the area under the curve, %, with its 95 % interval; dotted: chance."
    planned: Planned = []
    for kind, title, axes, panels in (
        ("roc", "ROC", ("false-positive rate", "true-positive rate"), roc),
        ("pr", "Precision and recall", ("recall", "precision"), pr),
    ):
        path = folder / f"{kind}.png"
        caption = f"Test images, first draw of a probe. {reading}"
        if max(len(panel.curves) for panel in panels) > MOST_CURVES:
            caption = "Test images. Blue: a row with its 95 % band; grey: the other rows; dotted: chance."
        names = ", ".join(dict.fromkeys(_classifier_in(panel.title) for panel in panels))
        figure = Figure(path, f"{title}: {names}", caption)
        planned.append((figure, partial(save_curve_figure, path, panels, x_label=axes[0], y_label=axes[1])))
    return planned


def _classifier_in(title: str) -> str:
    return title.split("\n")[0].rpartition(": ")[2]


def reliability(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    """Plan reliability curves: a figure per classifier, a panel per row."""
    planned: Planned = []
    for classifier in classifiers_of(probe):
        read = _read(members, classifier)
        if not read:
            continue
        runs = [run for its_runs in read.values() for run in its_runs]
        bins = min(curve_figures.bins_for(run.labels_N) for run in runs)
        grid, columns = laid_out(members, read)
        caption = (
            f"{bins} bins of equally many test images, {min(len(run.labels_N) for run in runs) // bins} at least; "
            f"{_size(runs)}. Scores as the classifier gives them, 95 % intervals; what lies on the dotted line can be "
            "believed, the rest needs the calibration that predict.py applies."
        )
        suffix = "" if classifier.section == "encoder" else f"_{classifier.folder}"
        figure = Figure(folder / f"reliability{suffix}.png", f"Reliability: {classifier.name}, {_size(runs)}", caption)
        save = partial(curve_figures.save_reliability_figure, figure.path, grid, columns=columns, bins=bins)
        planned.append((figure, save))
    return planned


def confusion(members: Sequence[Member], lines: pandas.DataFrame, folder: Path, probe: str) -> Planned:
    """Plan the confusion matrices at the threshold that validation chose: a panel per row and classifier."""
    matrices: dict[str, tuple[Mapping[str, int], tuple[str, str]]] = {}
    for classifier in classifiers_of(probe):
        for name, row in rows_of(members).items():
            member = min(row, key=lambda member: member.seed)
            path = member.path / classifier.folder / "result.json"
            result = read_result(path, member.path) if path.is_file() else {}
            entry: object = result.get("probes")
            for part in (classifier.section, classifier.probe, "details", "confusion", "youden"):
                entry = entry.get(part) if isinstance(entry, Mapping) else None
            if isinstance(entry, Mapping):
                names, positive = result["class_names"], int(str(result["positive_class"]))
                assert isinstance(names, list)
                counts = {cell: int(entry[cell]) for cell in ("tn", "fp", "fn", "tp")}
                matrices[f"{name}\n{classifier.name}"] = counts, (str(names[1 - positive]), str(names[positive]))
    if not matrices:
        return []
    caption = (
        "Test images of the lowest seed at the threshold that validation chose for the largest sensitivity + "
        "specificity; counts, and the share of the true class, which is also the shade."
    )
    figure = Figure(folder / "confusion.png", "Confusion at validation's threshold", caption)
    return [(figure, partial(save_confusion_figure, figure.path, matrices))]
