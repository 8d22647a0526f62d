"""What scripts/from_table.py writes before it runs anything: the words of the user sorted by step, recipe, manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ttc import flags
from ttc.datasets.table import Source
from ttc.flags.parser import Given, Parser
from ttc.run.checkpoint import write_text
from ttc.training import experiment
from ttc.training.experiment import Choice, Facts, Repetitions

JOINT = "scripts/recipes/joint-balanced.args"
OF_JOINT = frozenset(("minority_cutmix", "batch_sampler"))
"""What this recipe sets beside the method; where the user says otherwise, the user has the last word."""
HERE = frozenset(("data", "out", "jobs", "seeds", "folds", "skip_finetuning", "dry_run", "seed"))
"""Flags that no step gets."""
Lines = list[list[str]]
"""Words of a command line, a list for each flag."""


def flags_of(*groups: Callable[[Parser], None]) -> frozenset[str]:
    """Return the flags of groups of `ttc.flags`, named as in `args.json`."""
    parser = Parser("", "", writes_run=True)
    for add in groups:
        add(parser)
    return frozenset(parser.declared)


def read_data(parser: Parser, args: argparse.Namespace, given: Given) -> None:
    """Fill --dataset and --data-root from DATA, and make paths absolute, since the steps run in the project's folder.

    Raises:
        ValueError: DATA is nothing that can be read.
    """
    for flag, instead in (("seed", "--seeds N"), ("fold", "--folds K")):
        if given.sources[flag] != "default":
            parser.refuse(f"--{flag} is what the repetitions vary; use {instead}")
    if args.data == "-":
        if given.sources["dataset"] == "default":
            parser.refuse("- in the place of DATA needs --dataset NAME")
    else:
        if given.sources["dataset"] != "default" or args.data_root is not None:
            parser.refuse("--dataset and --data-root go with - in the place of DATA")
        path = Path(args.data)
        kind = "imagefolder" if path.is_dir() else {".csv": "csv", ".npz": "arrays"}.get(path.suffix.lower())
        if kind is None or not path.exists():
            fault = "is no table (.csv), folder or arrays (.npz)" if path.exists() else "is missing"
            raise ValueError(f"DATA {args.data} {fault}; name TABLE.csv, a folder with a folder per class, or FILE.npz")
        args.dataset, args.data_root = kind, args.data
    for flag in ("data_root", "cache_folder", "weights"):
        value = getattr(args, flag)
        if value is not None and (flag == "cache_folder" or Path(value).exists()):
            setattr(args, flag, str(Path(value).resolve()))


def words_of(args: argparse.Namespace, names: Collection[str]) -> Lines:
    """Return the words of flags, in alphabetical order."""
    lines = []
    for name in sorted(names):
        flag, value = f"--{name.replace('_', '-')}", getattr(args, name)
        if isinstance(value, list):
            lines.append([flag, *map(str, value)])
        elif value is True:
            lines.append([flag])
        elif value is not False and value is not None:
            lines.append([f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)])
    return lines


def flat(lines: Lines) -> list[str]:
    """Return the words of all lines."""
    return [word for line in lines for word in line]


def digest_of(source: Source) -> str:
    """Describe the samples, so that other data under the same name are noticed."""
    digest = hashlib.sha256(json.dumps([source.ids, source.labels, source.splits, source.groups]).encode())
    if source.pixels is not None:
        digest.update(source.pixels.tobytes())
    return f"{len(source.ids)} images with sha256 {digest.hexdigest()[:12]}"


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts_of(source: Source, report: Mapping[str, object]) -> Facts:
    """Count what the choices depend on, in the source and in the report of scripts/check_dataset.py."""
    label_of, groups = source.classes.label_of, source.groups
    rows = [row for row, label in enumerate(source.labels) if label in label_of]
    counts = Counter(label_of[source.labels[row]] for row in rows)
    rarer = min(counts, key=lambda label: counts[label])
    members = [row for row in rows if label_of[source.labels[row]] == rarer]
    training: list[int] = report["class_counts"]["train"]  # type: ignore[index]  # as the check writes it
    return Facts(
        images=len(rows),
        training=sum(training),
        rare=len({groups[row] if groups else row for row in members}),
        share=min(training) / sum(training),
        groups=None if groups is None else len({groups[row] for row in rows}),
        fixed="test" in source.splits,
        files=source.pixels is None,
        gray=report["channels"] == 1,
        gpu=torch.cuda.is_available(),
        cores=cores(),
    )


@dataclass(frozen=True)
class Plan:
    """What was decided, and what follows from it.

    Attributes:
        choices: with their reasons.
        rows: names of the rows, the advised method first.
        repeated: seeds or folds.
        manifest: words of scripts/make_manifest.py.
    """

    choices: list[Choice]
    rows: list[str]
    repeated: Repetitions
    manifest: list[str]


def make_plan(args: argparse.Namespace, given: Given, facts: Facts, size: Choice | None, out: Path) -> Plan:
    """Choose what the user has not chosen, and write OUT/recipe.args."""
    typed = {name for name, source in given.sources.items() if source != "default"} | {"dataset", "data_root"}
    of_method, of_groups = flags_of(flags.add_method), flags_of(flags.add_groups)
    repeated, how = experiment.repetitions(facts, args.seeds, args.folds)
    rows, which = experiment.methods(facts, args.method if "method" in typed else None)
    batch = args.batch_size if "batch_size" in typed else experiment.batch_size(facts)
    budget = experiment.budget(facts, {f"--{name.replace('_', '-')}" for name in typed}, batch)
    per_group = args.per_group
    choices = [*([] if size is None else [size]), how, which, *budget]
    if facts.groups is not None and facts.groups < facts.images and per_group is None:
        per_group = "mean"
        choices.append(experiment.PER_GROUP)
    write_recipe(args, out, choices, words_of(args, typed - of_method - of_groups - HERE), facts.files)

    # 1. rows: flags of the method are for the advised one alone
    first = [f"@{JOINT}", "--batch-size", str(batch)] if rows[0] == "joint" else ["--method", rows[0]]
    first += flat(words_of(args, typed & (of_method - {"method"} | OF_JOINT)))
    words = [
        "--recipes",
        str(out / "recipe.args"),
        "--variants",
        f"{rows[0]}={shlex.join(first)}",
        "--methods",
        *rows[1:],
    ]
    words += ["--seeds", str(repeated.seeds), *([] if repeated.folds is None else ["--folds", str(repeated.folds)])]

    # 2. steps
    args.per_group = per_group
    groups = flat(words_of(args, typed & of_groups | ({"per_group"} if per_group else set())))
    steps = {"pretrain": [], "linear_eval": ["--layers", "encoder", *groups]}
    if not args.skip_finetuning:
        epochs = experiment.tuning_epochs(facts.training, batch)
        sampler = args.batch_sampler if "batch_sampler" in typed else "balanced"
        steps["finetune"] = ["--batch-sampler", sampler, "--batch-size", str(batch), "--epochs", str(epochs), *groups]
    steps["compute_metrics"] = ["--peu-draws", "0", "--scatter", "none"]
    words += ["--steps", *(f"{step}={shlex.join(more)}" if more else step for step, more in steps.items())]
    return Plan(choices, rows, repeated, [*words, "--output", str(out / "manifest.csv")])


def write_recipe(args: argparse.Namespace, out: Path, choices: Sequence[Choice], own: Lines, files: bool) -> None:
    """Write what all runs share: what was chosen, then what the user typed, which wins."""
    cache = [["--cache", "disk"], ["--cache-folder", str(out / "cache")]] if files and args.cache == "off" else []
    lines = [
        "# Written by scripts/from_table.sh: what all runs share; choices.md has the reasons.",
        *(shlex.join(choice.words) for choice in choices if choice.words),
        *map(shlex.join, cache),
        f"--save-every-epochs {10**6}",
        "# From the command line:",
        *map(shlex.join, own),
    ]
    write_text(out / "recipe.args", "\n".join(lines) + "\n")
