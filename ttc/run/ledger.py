"""The ledger: what every result says about itself, so that results can be put side by side or refused.

`complete` adds two entries to a result before it is written: `measures`, one flat line per metric (value, interval,
split, number of samples), and `record`, by which two results are compared: the seed, a digest of the arguments that
matter, the commit and the versions. `environment_record` is what a run says before it begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import torch

from ttc.run import roles

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")


SIZES = ("positives", "train_samples", "train_samples_per_class")
"""What `sizes` counts for each classifier."""


class Measure(TypedDict):
    """One metric of a result.

    Attributes:
        value: None where the metric is not defined.
        low: lower end of the 95 % interval; None where there is none.
        high: upper end.
        split: the samples that were measured: "train", "val" or "test"; None for embeddings without a run.
        n: their number; None where a result does not say.
    """

    value: float | None
    low: float | None
    high: float | None
    split: str | None
    n: int | None


class Record(TypedDict):
    """How a result came about; runs with the same digest are repetitions of each other, evaluations comparable."""

    seed: int | None
    arguments_sha256: str
    git: dict[str, object]
    versions: dict[str, str | None]


def complete(result: Mapping[str, object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Return a result with its measures and its record.

    Args:
        result: plain JSON values as a script is about to write them, with the entries "kind" and, where there is a run,
            "seed".
        arguments: flag -> value as given on the command line, None where it was derived.

    Returns:
        The result, then "measures" (metric -> `Measure`) and "record" (`Record`).
    """
    seed = result.get("seed")
    record = Record(
        seed=seed if isinstance(seed, int) else None,
        arguments_sha256=arguments_digest(arguments),
        git=git_state(Path(__file__).parent),
        versions={"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    )
    return {**result, "measures": measures(result), "record": record}


def git_state(folder: Path) -> dict[str, object]:
    """Return the commit of the repository around `folder` and whether it has uncommitted changes, None if unknown."""

    def ask(*words: str) -> str | None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
        return None

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def environment_record(device: torch.device, world_size: int) -> dict[str, object]:
    """Describe what a run needs to be repeated: versions, hardware, threads, commit and command line."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "git": git_state(Path(__file__).parent),
        "command": sys.argv,
    }


def arguments_digest(arguments: Mapping[str, object]) -> str:
    """Return the sha256 of the arguments that make another result, the same for any order of the flags."""
    counted = {name: roles.of_result(name, value) for name, value in arguments.items() if roles.in_digest(name, value)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def short_digest(arguments: Mapping[str, object]) -> str:
    """Return the digest of some arguments in the length of a ledger's cell."""
    return arguments_digest(arguments)[:12]


def given_arguments(entries: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Return flag -> value as given from the content of an `args.json`; None where the value was derived."""
    return {name: None if entry["source"] == "derived" else entry["value"] for name, entry in entries.items()}


def measures(result: Mapping[str, object]) -> dict[str, Measure]:
    """Flatten a result into named measures.

    Names are paths into the result, such as "encoder/minority/auroc" of a probe, "projection/SAA/class1" of
    embeddings and "train/loss" of a training.

    Args:
        result: of `pretrain.py`, `compute_metrics.py`, or of a script with "probes": classifiers by layer and name,
            in which a metric is a mapping with "value" or "mean", and "n" counts the samples.
    """
    named: dict[str, Measure] = {}
    split = str(result.get("split") or "test")
    if result["kind"] == "pretrain":
        named |= {
            name: _measure(value, "val" if name.startswith("watch/") else "train", None)
            for name, value in result.items()
            if "/" in name
        }
        for name in ("collapse_value", "seconds"):
            named[f"train/{name}"] = _measure(result[name], "train", None)
    elif result["kind"] == "metrics":
        own_split = str(result["split"]) if "split" in result else None
        for space, values in result.items():
            if isinstance(values, Mapping) and "SAA" in values:
                minority = result["minority_class"]
                assert isinstance(minority, int)
                named |= {f"{space}/{name}": measure for name, measure in _of_embeddings(values, minority, own_split)}
    for layer, probes in classifiers(result):
        for probe, summary in _mappings(probes):
            named |= {f"{layer}/{probe}/{name}": measure for name, measure in _of_classifier(summary, split)}
    return named | sizes(result)


def classifiers(result: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """Return the layers of a result with their probes, and "floor" with those of its floor, if it has one."""
    floor = result.get("floor")
    beside = {"floor": floor.get("probes")} if isinstance(floor, Mapping) else {}
    return [*_mappings(result.get("probes")), *_mappings(beside)]


def sizes(result: Mapping[str, object]) -> dict[str, Measure]:
    """Return how many samples each classifier of a result learned from and was tested on, as measures.

    "positives": test samples of the positive class, for two classes. "train_samples": what it learned from.
    "train_samples_per_class": the same by class, where there are equally many of each.
    """
    split, named = str(result.get("split") or "test"), dict[str, Measure]()
    for layer, probes in classifiers(result):
        for probe, summary in _mappings(probes):
            counts, positive, learned = (
                summary.get(name) for name in ("class_counts", "positive_class", "train_samples")
            )
            tested = summary.get("n")
            if isinstance(counts, list) and isinstance(positive, int) and len(counts) == 2:
                named[f"{layer}/{probe}/positives"] = _measure(counts[positive], split, tested)
            if isinstance(learned, int):
                named[f"{layer}/{probe}/train_samples"] = _measure(learned, "train", learned)
                if probe in ("minority", "fraction") and isinstance(counts, list):
                    share = _measure(learned // len(counts), "train", learned)
                    named[f"{layer}/{probe}/train_samples_per_class"] = share
    return named


def _of_classifier(summary: Mapping[str, object], split: str) -> Iterator[tuple[str, Measure]]:
    """Yield the metrics of one classifier, at any depth; the nearest entry "n" above a metric counts its samples."""
    for name, entry in _mappings(summary):
        if "value" in entry or "mean" in entry:
            value = entry["value"] if "value" in entry else entry["mean"]
            yield name, _measure(value, split, summary.get("n"), entry.get("low"), entry.get("high"))
        else:
            inner = _of_classifier({"n": summary.get("n"), **entry}, "val" if name == "validation" else split)
            yield from ((f"{name}/{deeper}", measure) for deeper, measure in inner)


def _of_embeddings(metrics: Mapping[str, object], minority: int, split: str | None) -> Iterator[tuple[str, Measure]]:
    """Yield the metrics of one layer: by class, minority and mean of the others, mean of all classes, all rows."""
    for name, entry in _mappings(metrics):
        values = entry.get("per_class")
        if not isinstance(values, list):
            continue
        parts = {f"class{label}": value for label, value in enumerate(values)}
        parts["minority"] = values[minority]
        others = [value for label, value in enumerate(values) if label != minority]
        parts["majority"] = None if None in others or not others else statistics.fmean(others)
        for part, value in {**parts, "macro": entry["macro"], "all": entry["all"]}.items():
            yield f"{name}/{part}", _measure(value, split, metrics["samples"])


def _measure(value: object, split: str | None, n: object, low: object = None, high: object = None) -> Measure:
    numbers = [float(number) if isinstance(number, int | float) else None for number in (value, low, high)]
    return Measure(value=numbers[0], low=numbers[1], high=numbers[2], split=split, n=n if isinstance(n, int) else None)


def _mappings(value: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the entries of a mapping that are mappings themselves; nothing for anything else."""
    if isinstance(value, Mapping):
        yield from ((str(name), entry) for name, entry in value.items() if isinstance(entry, Mapping))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
