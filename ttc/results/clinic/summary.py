"""What runs say to those who act on them, as tables for any format: other data, patients, subgroups, probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ttc.evaluation.decoupled import NATURAL_HEADS
from ttc.evaluation.elsewhere.measure import at_path
from ttc.results.clinic.rough import basis_line, rough_words
from ttc.results.clinic.tables import PER_GROUP, cell, side_by_side
from ttc.run import readers

EVALUATIONS = ("linear_eval", "finetune", "from_scratch")
_SECTIONS = ("encoder", *(f"{head} encoder" for head in NATURAL_HEADS), "own")
_CALIBRATION = (("Brier", "brier"), ("log loss", "log_loss"), ("ECE", "ece"), ("intercept", "intercept"),
                ("slope", "slope"))  # fmt: skip
_MOST_PARTS = 12


class Name(str):
    """Text that anybody may have chosen, which a page has to escape."""


@dataclass(frozen=True)
class Page:
    """A file that a page refers to: the folder of the run, and the file's place in it."""

    run: Path
    file: Path


@dataclass
class Section:
    """A table with a title; cells are numbers as text, names, or files.

    Attributes:
        title: of the section.
        intro: one sentence about how to read it.
        header: of the columns.
        rows: cells.
        notes: lines below the table.
    """

    title: str
    intro: str
    header: Sequence[str]
    rows: list[list[str | Page]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Classifier:
    """The metrics of one classifier on one set of samples.

    Attributes:
        run: name of the run, or of its row.
        name: of the classifier, and of the external set that it was tested on.
        metrics: of `clinical_metrics`, or a summary of several.
        internal: of an external result: the same of the run's own test split.
        difference: external minus internal.
        external: whether this is an external result.
    """

    run: str
    name: str
    metrics: Mapping[str, object]
    internal: Mapping[str, object] | None = None
    difference: Mapping[str, object] | None = None
    external: bool = False

    @property
    def names(self) -> list[str | Page]:
        """The first cells of a row."""
        return [Name(self.run), Name(self.name)]


def step_results(run: Path) -> dict[str, readers.Object]:
    """Read the results of a run folder that classify: step -> result."""
    steps = [step for step in EVALUATIONS if (run / step / "result.json").is_file()]
    steps += [f"external/{file.parent.name}" for file in sorted(run.glob("external/*/result.json"))]
    return {step: readers.read_result(run / step / "result.json", run) for step in steps}


def sections(runs: Sequence[tuple[str, Path, Mapping[str, Mapping[str, object]]]]) -> list[Section]:
    """Return the sections that have something to say.

    Args:
        runs: name, folder, and step -> result of each.

    Raises:
        ValueError: a result is damaged.
    """
    cards = Section("Report cards", "Items of TRIPOD+AI that each result answers.", ["run", "result", "report card"])
    joined: dict[str, Section] = {}
    for name, folder, results in runs:
        for step, result in results.items():
            source = readers.Source(folder / step / "result.json", within=folder)
            for part in source.using(partial(_parts, name, step, result)):
                section = joined.setdefault(part.title, replace(part, rows=[], notes=[]))
                section.rows += part.rows
                section.notes += part.notes
            if (folder / step / "report_card.md").is_file():
                cards.rows.append([Name(name), Name(step), Page(folder, Path(step) / "report_card.md")])
    return [section for section in (*joined.values(), cards) if section.rows]


def _parts(run: str, step: str, result: Mapping[str, object]) -> list[Section]:
    """Return what one result adds to the sections."""
    classifiers = list(_of(run, step, result))
    return [build(classifiers) for build in (_external, _patients, _subgroups, _calibration, _benefit)]


def _of(run: str, step: str, result: Mapping[str, object]) -> Iterator[Classifier]:
    probes = result.get("probes")
    if not isinstance(probes, Mapping):
        return
    if step.startswith("external/"):
        for head, metrics in probes["external"].items():
            internal, gap = (probes.get(section, {}).get(head) for section in ("internal", "difference"))
            yield Classifier(run, f"{step.partition('/')[2]}: {head}", metrics, internal, gap, external=True)
    elif step in EVALUATIONS:
        words = {"finetune": "fine-tuned", "from_scratch": "from scratch"}
        for section in _SECTIONS:
            for probe, metrics in probes.get(section, {}).items():
                head = "own" if section == "own" else f"{section.removesuffix('encoder') or 'probe '}{probe}"
                yield Classifier(run, words.get(step, head), metrics)


def _basis(classifier: Classifier, metrics: object, whose: str = "") -> list[str]:
    """Return a note where intervals rest on few."""
    made = metrics.get("intervals") if isinstance(metrics, Mapping) else None
    words = made.get("rests_on") if isinstance(made, Mapping) else None
    if not isinstance(words, str) or not rough_words(words, ""):
        return []
    return [f"{basis_line(words, whose)} ({classifier.run}, {classifier.name})"]


def _external(classifiers: Sequence[Classifier]) -> Section:
    section = Section(
        "Other data",
        "Thresholds and calibrators are frozen, as the run's validation chose them; the difference has the 95 % "
        "interval of independent samples.",
        ["run", "set: head", "metric", "internal test", "external", "external - internal"],
    )
    for each in classifiers:
        if not each.external:
            continue
        sizes = [str(part["n"]) if part else "-" for part in (each.internal, each.metrics)]
        section.rows.append([*each.names, "samples", *sizes, "-"])
        parts = [each.internal, each.metrics, each.difference]
        section.rows += [["", "", title, *cells] for title, cells in side_by_side(parts)]
        mended = cell(each.metrics, "calibration/in_the_large/brier", 1.0)
        if mended != "-":
            section.rows.append(["", "", "Brier with a new intercept, fitted on these labels", "-", mended, "-"])
        section.notes += _basis(each, each.metrics, "external ") + _basis(each, each.internal, "internal ")
    return section


def _patients(classifiers: Sequence[Classifier]) -> Section:
    section = Section(
        "Patients",
        "One score per group (patient, site); thresholds and calibrators come from the groups of validation, if any.",
        ["run", "classifier", "score", "groups", "positive", *(title for title, _, _ in PER_GROUP)],
    )
    for each in classifiers:
        pooled = each.metrics.get("per_group")
        if isinstance(pooled, Mapping):
            how = f"{pooled.get('pool')}, positive if {pooled.get('group_label')}"
            numbers = [cell(pooled, path, scale) for _, path, scale in PER_GROUP]
            counts, positive = pooled.get("class_counts"), pooled.get("positive_class")
            positives = str(counts[positive]) if isinstance(counts, list) and isinstance(positive, int) else "-"
            section.rows.append([*each.names, how, str(pooled["n"]), positives, *numbers])
            section.notes += _basis(each, pooled)
    return section


def _subgroups(classifiers: Sequence[Classifier]) -> Section:
    section = Section(
        "Subgroups",
        "Sensitivity and specificity at the threshold that validation chose for all; subgroups without positives say "
        "nothing.",
        ["run", "classifier", "subgroup", "n", "positives", "AUROC %", "sensitivity %", "specificity %", "intercept"],
    )
    for each in classifiers:
        details = each.metrics.get("details")
        columns = details.get("subgroups") if isinstance(details, Mapping) else None
        for name, table in columns.items() if isinstance(columns, Mapping) else ():
            for row in table["rows"][:_MOST_PARTS]:
                shares = [cell(row, metric, 100.0) for metric in ("auroc", "sensitivity", "specificity")]
                counts = [str(row["n"]), str(row["positives"])]
                title = Name(f"{name} = {row['value']}")
                section.rows.append([*each.names, title, *counts, *shares, cell(row, "intercept", 1.0)])
                section.notes += _basis(each, row, f"{name} = {row['value']}: ")
            gaps = [
                "-" if gap is None else f"{gap['value'] * scale:.{digits}f} ({gap['highest']} - {gap['lowest']})"
                for metric, scale, digits in (
                    ("auroc", 100, 1), ("sensitivity", 100, 1), ("specificity", 100, 1), ("intercept", 1, 2)
                )
                for gap in [table["gaps"].get(metric)]
            ]  # fmt: skip
            section.rows.append([*each.names, Name(f"{name}: largest gap"), "", "", *map(Name, gaps)])
    return section


def _calibration(classifiers: Sequence[Classifier]) -> Section:
    section = Section(
        "Calibration",
        "Before: the raw score; after: the probability. Intercept 0 and slope 1 are right; a slope below 1 is too "
        "extreme.",
        ["run", "classifier", "", *(title for title, _ in _CALIBRATION)],
    )
    for each in classifiers:
        for when in ("before", "after"):
            numbers = [cell(each.metrics, f"calibration/{when}/{name}", 1.0) for _, name in _CALIBRATION]
            if any(number != "-" for number in numbers):
                section.rows.append([*each.names, when, *numbers])
    return section


def _benefit(classifiers: Sequence[Classifier]) -> Section:
    section = Section(
        "Net benefit",
        "TP/n - FP/n t/(1 - t) of acting from probability t on, at the prevalence of the samples (own) or another one; "
        "treating none has 0.",
        ["run", "classifier", "prevalence", "t", "model", "treat all"],
    )
    for each in classifiers:
        benefits = each.metrics.get("net_benefit")
        for share, entries in benefits.items() if isinstance(benefits, Mapping) else ():
            for limit, entry in entries.items():
                path = f"net_benefit/{share}/{limit}/model"
                found = at_path(each.metrics, path)
                if found is not None and found["value"] is not None:
                    numbers = [cell(each.metrics, path, 1.0), f"{entry['treat_all']:.3f}"]
                    section.rows.append([*each.names, share, limit, *numbers])
    return section
