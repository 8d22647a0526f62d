"""The report card of a result: the items of TRIPOD+AI that it can answer, and those that it cannot.

Source: Collins et al., "TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use
regression or machine learning methods", BMJ 385 (2024), checklist of 27 items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ttc.evaluation.elsewhere.measure import Protocol, at_path
from ttc.evaluation.floor.measure import FloorResult
from ttc.models.description import FEATURES, Description
from ttc.results.clinic.figures import draw_summary
from ttc.results.clinic.tables import share_of
from ttc.results.metric_tables import Results, format_clinical, format_probes
from ttc.run import ledger
from ttc.run.checkpoint import write_text
from ttc.run.escape import markdown
from ttc.run.folder import RunFolder
from ttc.run.log import log, save_calibration, save_pr_curves

if TYPE_CHECKING:
    import pandas

UNANSWERED = (
    ("1, 2", "title and abstract"),
    ("3a-c, 4", "background, intended use and objectives"),
    ("5b, 6a-c", "dates, setting, eligibility and treatments of the participants"),
    ("8b, 8c", "who judged the outcome, and whether blinded to the images"),
    ("10", "how the study size was decided"),
    ("17, 18a-d, 19", "ethics, funding, protocol, registration, involvement of patients"),
    ("25, 26, 27a-c", "interpretation, limitations, use in practice"),
)
"""Items that need a person."""


_CALIBRATORS = {
    "platt": "Platt scaling",
    "prior": "offset for the share of the classes alone (few validation samples, or --calibration prior)",
    "isotonic": "isotonic regression",
}


def report_card(result: Mapping[str, object], description: Description | None) -> str:
    """Fill the sheet from a result.

    Args:
        result: of linear_eval.py, finetune.py or scripts/evaluate.py, complete with its record.
        description: of the run; None where only features or scores are known.

    Returns:
        Markdown: a table of items, and what has to be written by hand.
    """
    lines = [
        f"# Report card: {markdown(str(result['kind']))} on {markdown(str(result['dataset']))}",
        "",
        "Items of TRIPOD+AI (BMJ 2024) that this result answers; it is no complete report.",
        "",
        "| item | what | answer |",
        "|---|---|---|",
    ]
    for section, probe, metrics in _classifiers(result):
        title = f"{section} {probe}"
        lines += [
            f"| {item} | {what} | {answer} |" for item, what, answer in _items(result, title, metrics, description)
        ]
        break
    others = [f"{section} {probe}" for section, probe, _ in _classifiers(result)][1:]
    if others:
        lines += ["", f"The same result holds {len(others)} more: {markdown(', '.join(others[:12]))}; see result.json."]
    lines += ["", "## What it cannot answer", ""]
    lines += [f"* {item}: {what}" for item, what in (*UNANSWERED, *_missing(result, description))]
    return "\n".join([*lines, ""])


def write_evaluation(
    folder: RunFolder,
    result: Mapping[str, object],
    predictions: pandas.DataFrame,
    description: Description,
    protocol: Protocol,
    arguments: Mapping[str, object],
) -> dict[str, object]:
    """Write all that linear_eval.py and finetune.py leave of a finished evaluation, and log its tables.

    Args:
        folder: where predictions.csv, tb/, figures, report_card.md and, at the end, result.json go.
        result: with "probes", and "floor" where it was measured; not yet complete.
        predictions: of all heads.
        description: of the run.
        protocol: how it was measured.
        arguments: flag -> value as given.

    Returns:
        The result as it was written.
    """
    positive, probes = protocol.positive_class, cast("Results", result["probes"])
    write_text(folder.path / "predictions.csv", predictions.to_csv(index=False))
    save_pr_curves(folder.path / "tb", predictions, positive)
    save_calibration(folder.path / "tb", probes)
    complete = ledger.complete(result, arguments)
    names = description.class_names
    floor = cast("FloorResult | None", result.get("floor"))
    lines = format_probes(probes, names[positive], floor) + format_clinical(probes, protocol.deploy_prevalence)
    for line in lines:
        log.info("%s", line)
    write_text(folder.path / "report_card.md", report_card(complete, description))
    if arguments.get("figures") != "none":
        draw_result(folder.path, complete)
    folder.save_json("result.json", complete)
    return complete


def draw_result(folder: Path, result: Mapping[str, object]) -> None:
    """Draw the figures of the classifier that the report card describes, the result's first."""
    for _, _, metrics in _classifiers(result):
        draw_summary(folder, "", metrics)
        break


def _classifiers(result: Mapping[str, object]) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Yield section, probe and metrics; of external results the external ones."""
    probes = result.get("probes")
    for section, entries in probes.items() if isinstance(probes, Mapping) else ():
        if result["kind"] == "external" and section != "external":
            continue
        for probe, metrics in entries.items():
            yield section, probe, metrics


def _number(metrics: Mapping[str, object], path: str, digits: int = 3) -> str:
    found = at_path(metrics, path)
    if found is None or found["value"] is None:
        return "not defined"
    text = f"{found['value']:.{digits}f}"
    if found["low"] is None or found["high"] is None:
        return f"{text} (no interval)"
    return f"{text} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _part(metrics: Mapping[str, object], name: str) -> Mapping[str, object]:
    entry = metrics.get(name)
    return entry if isinstance(entry, Mapping) else {}


def _items(
    result: Mapping[str, object], title: str, metrics: Mapping[str, object], description: Description | None
) -> Iterator[tuple[str, str, str]]:
    names, positive = result["class_names"], result["positive_class"]
    assert isinstance(names, list)
    assert isinstance(positive, int)
    basis, details = _part(metrics, "intervals"), _part(metrics, "details")
    yield "5a", "source of the data", markdown(f"{result['dataset']}; classes {', '.join(names)}")
    if description is not None:
        encoder = description.encoder
        channels = f"{encoder['channels']} channel{'s' if encoder['channels'] != 1 else ''}"
        prepared = f"images of {encoder['image_size']} px, {channels}, normalised by the training data"
        if encoder["name"] == FEATURES:
            prepared = "features in a file, which an encoder made of the images"
        yield "7, 9a", "predictors and their preparation", prepared
        yield "12c", "type of model", markdown(f"{encoder['name']}, {description.method}; {title}")
    yield "8a", "outcome", markdown(f"class {names[positive]}")
    yield "12d, 13", "class imbalance and the recalibration after it", _imbalance(result, metrics, description)
    yield "12e", "measures of performance", "discrimination, calibration and net benefit with 95 % intervals, see 23a"
    yield "14, 23a", "fairness: performance in subgroups", _subgroups(details)
    yield "15", "output and threshold", _threshold(details)
    yield "16", "training against evaluation data", _separation(result)
    yield "20a", "participants and events", markdown(f"{metrics.get('n')} samples; {basis.get('rests_on', 'not told')}")
    yield "23a", "discrimination", f"AUROC {_number(metrics, 'auroc')}, AUPRC {_number(metrics, 'auprc')}"
    after = "calibration/after"
    yield (
        "23a",
        "calibration",
        (
            f"intercept {_number(metrics, f'{after}/intercept', 2)}, slope {_number(metrics, f'{after}/slope', 2)}, "
            f"Brier {_number(metrics, f'{after}/brier')} (before: {_number(metrics, 'calibration/before/brier')})"
            f"{_stated(metrics, details, positive)}"
        ),
    )
    yield from _deployed(metrics)
    yield "23a", "clinical utility", _utility(metrics)
    if (patients := _part(metrics, "per_group")) != {}:
        yield (
            "23a",
            "per group (patient)",
            (
                f"{patients.get('n')} groups: AUROC {_number(patients, 'auroc')}, "
                f"calibration intercept {_number(patients, f'{after}/intercept', 2)}; "
                f"{markdown(str(_part(patients, 'intervals').get('rests_on')))}"
            ),
        )
    if "in_the_large" in _part(metrics, "calibration"):
        yield (
            "24",
            "updating",
            (
                f"recalibration in the large would give Brier {_number(metrics, 'calibration/in_the_large/brier')}; "
                "the frozen model was not updated"
            ),
        )
    record = _part(result, "record")
    git = _part(record, "git")
    yield "18e, 18f", "code", markdown(f"commit {git.get('commit') or 'unknown'}, versions in result.json")


def _stated(metrics: Mapping[str, object], details: Mapping[str, object], positive: int) -> str:
    """Say at which share of positives probabilities hold that are measured at another one."""
    held = details.get("calibrated_at")
    if not isinstance(held, list) or len(held) != 2:
        return ""
    stated, measured = f"{100 * held[1]:.3g}", share_of(metrics, positive)  # the positive class is the second one there
    return "" if measured in (stated, "") else f"; stated at {stated} % positive, measured where {measured} % are"


def _deployed(metrics: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Yield what holds at the prevalences of --deploy-prevalence."""
    for key in _part(metrics, "deployment"):
        ppv, npv = (_number(metrics, f"deployment/{key}/youden/{name}") for name in ("ppv", "npv"))
        auprc = _number(metrics, f"deployment/{key}/auprc")
        what = f"the same threshold where {100 * float(key):g} % are positive"
        yield "23a", what, f"PPV {ppv}, NPV {npv}, AUPRC {auprc}"


def _imbalance(result: Mapping[str, object], metrics: Mapping[str, object], description: Description | None) -> str:
    parts = []
    if description is not None:
        total = sum(description.class_counts)
        shares = ", ".join(
            f"{name} {100 * count / total:.3g} %"
            for name, count in zip(description.class_names, description.class_counts, strict=True)
        )
        parts.append(f"training: {shares}")
    calibrator = metrics.get("calibrator")
    heads = result.get("heads")
    kind = str(calibrator.get("kind")) if isinstance(calibrator, Mapping) else None
    if isinstance(heads, Mapping) and heads:
        first = next(iter(heads.values()))
        kind = first.get("calibrator")
    parts.append(
        f"scores recalibrated on validation: {_CALIBRATORS.get(kind, kind)}" if kind else "scores were not recalibrated"
    )
    return markdown("; ".join(parts))


def _subgroups(details: Mapping[str, object]) -> str:
    tables = details.get("subgroups")
    if not isinstance(tables, Mapping) or not tables:
        return "not measured; name columns with --subgroup-columns"
    words = []
    for name, table in tables.items():
        gaps = [f"{metric} {gap['value']:.3f}" for metric, gap in table["gaps"].items() if gap is not None]
        words.append(f"{name} ({len(table['rows'])} parts): largest gaps {', '.join(gaps) or 'not defined'}")
    return markdown("; ".join(words))


def _threshold(details: Mapping[str, object]) -> str:
    thresholds = details.get("thresholds")
    if not isinstance(thresholds, Mapping):
        return "the most probable class"
    if thresholds.get("youden") is None:
        return "score, threshold 0.5: there were no validation scores to choose one on"
    return (
        f"score and calibrated probability; threshold {thresholds['youden']:.4g} of the score, the largest sensitivity "
        "+ specificity on validation; others in result.json"
    )


def _separation(result: Mapping[str, object]) -> str:
    if result["kind"] == "external":
        return "other data than the run's; thresholds and calibrators frozen by the run's validation split"
    return "splits by group where there are groups; validation chose, the test split was used once"


def _utility(metrics: Mapping[str, object]) -> str:
    own = _part(_part(metrics, "net_benefit"), "own")
    words = [
        f"at {limit}: {_number(own, f'{limit}/model')} (treat all {entry['treat_all']:.3f})"
        for limit, entry in own.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("treat_all"), float)
    ]
    return "net benefit " + "; ".join(words) if words else "not measured: it needs calibrated probabilities"


def _missing(result: Mapping[str, object], description: Description | None) -> Iterator[tuple[str, str]]:
    if result["kind"] != "external":
        yield "16, 23b", "performance in other places: scripts/evaluate.py"
    if description is None:
        yield "5a, 7, 9, 12, 21, 22", "the training of the model, of which only scores or features are known"
    yield "11", "missing data: images that could not be read are listed in the log only"
