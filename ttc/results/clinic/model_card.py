"""A model card in Markdown, filled from a run's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ttc.models.description import Description
from ttc.results.clinic import summary
from ttc.run import ledger, readers
from ttc.run.escape import markdown, markdown_code

_PROBE_METRICS = ("balanced_accuracy", "auroc", "auprc", "mcc")
_SPACE_METRICS = ("SAA", "CAC")


def model_card(run: Path, description: Description, feature_dim: int) -> str:
    """Describe a run for those who receive its encoder.

    Args:
        run: the run folder.
        description: from the run's checkpoint.
        feature_dim: F of the encoder.

    Returns:
        Markdown, which also says what was not measured.
    """
    arguments = readers.read_arguments(path, run) if (path := _existing(run, "args.json")) else {}
    environment = readers.read_environment(path, run) if (path := _existing(run, "env.json")) else {}
    name, size = description.encoder["name"], description.encoder["image_size"]
    channels, preprocessing = description.encoder["channels"], description.preprocessing
    lines = [
        f"# {markdown(str(name))} encoder, {markdown(description.method)} on {markdown(str(description.data['name']))}",
        "",
        f"Maps images of {size} x {size} px with {channels} channel{'s' if channels != 1 else ''}, values in [0, 1], "
        f"to {feature_dim} features. Normalisation is part of the exported module: mean "
        f"{_numbers(preprocessing.mean)}, standard deviation {_numbers(preprocessing.std)}.",
        "",
        "## Data",
        "",
        *_data(run, description),
        "",
        "## Training",
        "",
        *_training(arguments, _result(run, "result.json"), environment),
        "",
        "## Evaluation",
        "",
        *_evaluation(run),
        "",
        *_sections(run),
        "## Before use",
        "",
        "The numbers hold for this data set, these splits and this seed; other scanners, sites or shares of the rare "
        "class need a new evaluation. Class names are those of the training data. The model was not tested as a "
        "medical device.",
        "",
    ]
    return "\n".join(lines)


def _existing(run: Path, *names: str) -> Path | None:
    path = run.joinpath(*names)
    return path if path.is_file() else None


def _result(run: Path, *names: str) -> readers.Object:
    """Return a result of the run; nothing where there is none yet."""
    path = _existing(run, *names)
    return {} if path is None else readers.read_result(path, run)


def _measures(run: Path, *names: str) -> Mapping[str, ledger.Measure]:
    """Return the measures of a result; nothing where there is none yet."""
    result, source = _result(run, *names), readers.Source(run.joinpath(*names))
    return source.using(lambda: ledger.measures(result)) if result else {}


def _data(run: Path, description: Description) -> Iterator[str]:
    rare = description.minority_class
    yield "| label | class | train | val | test |"
    yield "|---|---|---|---|---|"
    counts: Counter[tuple[str, str]] = Counter()
    if (path := _existing(run, "split.csv")) is not None:
        columns = readers.read_table(readers.Source(path, within=run), ("label", "split"))
        counts.update(zip(columns["label"], columns["split"], strict=True))
    for label, name in enumerate(description.class_names):
        cells = [str(counts[str(label), split]) if counts else "-" for split in ("train", "val", "test")]
        if not counts:
            cells[0] = str(description.class_counts[label])
        yield f"| {label} | {markdown(name)}{' (minority)' if label == rare else ''} | {' | '.join(cells)} |"


def _training(
    arguments: Mapping[str, object], result: Mapping[str, object], environment: Mapping[str, object]
) -> Iterator[str]:
    settings = {name: entry for name, entry in arguments.items() if isinstance(entry, Mapping)}
    changed = [
        markdown_code(f"--{name.replace('_', '-')} {_words(entry['value'])}")
        for name, entry in settings.items()
        if entry["source"] != "default" and name not in ("output", "data_root", "num_workers", "device")
    ]
    yield f"Settings other than the defaults: {', '.join(changed) or 'none'}."
    yield ""
    if result:
        loss, collapse = result.get("train/loss"), result.get("collapse_value")
        yield f"{result.get('epochs')} epochs, {result.get('steps')} steps, {result.get('seconds')} s."
        if isinstance(loss, float) and isinstance(collapse, float):
            yield f"Last loss {loss:.3f}; it would be {collapse:.3f} if all embeddings were equal."
    else:
        yield "The run is not finished."
    git = environment.get("git")
    if isinstance(git, Mapping):
        uncommitted = ", with uncommitted changes" if git["dirty"] else ""
        commit, python, torch, device = (
            markdown(str(value or "unknown"))
            for value in (git["commit"], *(environment[name] for name in ("python", "torch", "device")))
        )
        yield f"Commit {commit}{uncommitted}; Python {python}, torch {torch}, {device}."


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _evaluation(run: Path) -> Iterator[str]:
    probes, measured = _measures(run, "linear_eval", "result.json"), _measures(run, "metrics", "metrics.json")
    if not probes:
        yield "Linear probe: not measured (linear_eval.py)."
    else:
        yield "Linear probes on the frozen features, 95 % interval of the test sample:"
        yield ""
        yield "| metric | value | interval | split | n |"
        yield "|---|---|---|---|---|"
        for name, measure in probes.items():
            if name.split("/", 2)[-1] in _PROBE_METRICS and measure["value"] is not None:
                low, high = measure["low"], measure["high"]
                interval = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
                split = markdown(str(measure["split"]))
                yield f"| {markdown(name)} | {measure['value']:.3f} | {interval} | {split} | {measure['n']} |"
    yield ""
    if not measured:
        yield "Arrangement of the embeddings: not measured (compute_metrics.py)."
        return
    phrases = []
    for metric in _SPACE_METRICS:
        for part in ("majority", "minority"):
            value = _value(measured, f"projection/{metric}/{part}")
            phrases.append(f"{metric} of the {part} {'not defined' if value is None else f'{value:.1f} %'}")
    cosine = _value(measured, "projection/mean_cosine/all")
    phrases.append(f"mean cosine {'not defined' if cosine is None else f'{cosine:.3f}'}")
    yield f"Embeddings after the projection head: {', '.join(phrases)}. SAA near 0 and a cosine near 1 are a collapse."


def _sections(run: Path) -> Iterator[str]:
    """Yield what the run says to those who act on it: other data, patients, subgroups, probabilities, report cards."""
    for section in summary.sections([(run.name, run, summary.step_results(run))]):
        # All rows are of this run.
        yield from (f"## {section.title}", "", section.intro, "", _row(section.header[1:]))
        yield "|---" * (len(section.header) - 1) + "|"
        yield from (_row(row[1:]) for row in section.rows)
        yield ""
        if section.notes:
            yield "\\\n".join(map(markdown, dict.fromkeys(section.notes)))
            yield ""


def _row(cells: Sequence[str | summary.Page]) -> str:
    texts = (
        markdown_code(cell.file.as_posix()) if isinstance(cell, summary.Page)
        else markdown(cell) if isinstance(cell, summary.Name) else cell
        for cell in cells
    )  # fmt: skip
    return f"| {' | '.join(texts)} |"


def _value(measures: Mapping[str, ledger.Measure], name: str) -> float | None:
    return measures[name]["value"] if name in measures else None
