"""A model card in Markdown, filled from a run's own files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ttc.models.description import Description
from ttc.run import ledger

_PROBE_METRICS = ("balanced_accuracy", "auroc", "auprc", "mcc")
_SPACE_METRICS = ("SAA", "CAC")


def model_card(run: Path, description: Description, feature_dim: int) -> str:
    """Describe a run for those who get its encoder.

    Args:
        run: the run folder.
        description: from the run's checkpoint.
        feature_dim: F of the encoder.

    Returns:
        Markdown; what was not measured is said to be missing.
    """
    arguments = _read(run / "args.json")
    result, environment = _read(run / "result.json"), _read(run / "env.json")
    name, size = description.encoder["name"], description.encoder["image_size"]
    channels = description.encoder["channels"]
    lines = [
        f"# {name} encoder, {description.method} on {description.data['name']}",
        "",
        f"Maps images of {size} x {size} px with {channels} channel{'s' if channels != 1 else ''}, values in [0, 1], "
        f"to {feature_dim} features. Normalisation is part of the exported module: mean {_numbers(description.mean)}, "
        f"standard deviation {_numbers(description.std)}.",
        "",
        "## Data",
        "",
        *_data(run, description),
        "",
        "## Training",
        "",
        *_training(arguments, result, environment),
        "",
        "## Evaluation",
        "",
        *_evaluation(run),
        "",
        "## Before use",
        "",
        "The numbers hold for this data set, these splits and this seed; other scanners, sites or shares of the rare "
        "class need a new evaluation. Class names are those of the training data. The model was not tested as a "
        "medical device.",
        "",
    ]
    return "\n".join(lines)


def _read(path: Path) -> Mapping[str, object]:
    """Return the content of a JSON file of the run; nothing where there is none yet."""
    try:
        found: dict[str, object] = json.loads(path.read_text())
    except OSError:
        return {}
    except ValueError:
        raise ValueError(f"{path} is damaged; run that step again in a new folder") from None
    return found


def _data(run: Path, description: Description) -> Iterator[str]:
    rare = description.minority_class
    yield "| label | class | train | val | test |"
    yield "|---|---|---|---|---|"
    counts: Counter[tuple[str, str]] = Counter()
    if (run / "split.csv").is_file():
        with (run / "split.csv").open(newline="") as file:
            counts.update((row["label"], row["split"]) for row in csv.DictReader(file))
    for label, name in enumerate(description.class_names):
        cells = [str(counts[str(label), split]) if counts else "-" for split in ("train", "val", "test")]
        if not counts:
            cells[0] = str(description.class_counts[label])
        yield f"| {label} | {name}{' (minority)' if label == rare else ''} | {' | '.join(cells)} |"


def _training(
    arguments: Mapping[str, object], result: Mapping[str, object], environment: Mapping[str, object]
) -> Iterator[str]:
    given = {name: entry for name, entry in arguments.items() if isinstance(entry, Mapping)}
    chosen = [
        f"`--{name.replace('_', '-')} {_words(entry['value'])}`"
        for name, entry in given.items()
        if entry["source"] != "default" and name not in ("output", "data_root", "num_workers", "device")
    ]
    yield f"Settings other than the defaults: {', '.join(chosen) or 'none'}."
    yield ""
    if result:
        loss, collapse = result.get("train/loss"), result.get("collapse_value")
        yield f"{result['epochs']} epochs, {result['steps']} steps, {result['seconds']} s."
        if isinstance(loss, float) and isinstance(collapse, float):
            yield f"Last loss {loss:.3f}; it would be {collapse:.3f} if all embeddings were equal."
    else:
        yield "The run is not finished."
    git = environment.get("git")
    if isinstance(git, Mapping):
        changed = {True: ", with uncommitted changes", False: "", None: ""}[git["dirty"]]
        yield (
            f"Commit {git['commit'] or 'unknown'}{changed}; Python {environment['python']}, "
            f"torch {environment['torch']}, {environment['device']}."
        )


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _evaluation(run: Path) -> Iterator[str]:
    probes, measured = _read(run / "linear_eval" / "result.json"), _read(run / "metrics" / "metrics.json")
    if not probes:
        yield "Linear probe: not measured (linear_eval.py)."
    else:
        yield "Linear probes on the frozen features, 95 % interval of the test sample:"
        yield ""
        yield "| metric | value | interval | split | n |"
        yield "|---|---|---|---|---|"
        for name, each in ledger.measures(probes).items():
            if name.split("/", 2)[2] in _PROBE_METRICS and each["value"] is not None:
                interval = "-" if each["low"] is None else f"{each['low']:.3f} to {each['high']:.3f}"
                yield f"| {name} | {each['value']:.3f} | {interval} | {each['split']} | {each['n']} |"
    yield ""
    if not measured:
        yield "Arrangement of the embeddings: not measured (compute_metrics.py)."
        return
    found = ledger.measures(measured)
    parts = []
    for metric in _SPACE_METRICS:
        for part in ("majority", "minority"):
            value = found[f"projection/{metric}/{part}"]["value"]
            parts.append(f"{metric} of the {part} {'not defined' if value is None else f'{value:.1f} %'}")
    cosine = found["projection/mean_cosine/all"]["value"]
    parts.append(f"mean cosine {'not defined' if cosine is None else f'{cosine:.3f}'}")
    yield f"Embeddings after the projection head: {', '.join(parts)}. SAA near 0 and a cosine near 1 are a collapse."
