"""What scripts/from_table.py writes before it runs anything: the words of the user sorted by step, recipe, manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ttc import flags
from ttc.datasets import Dataset
from ttc.datasets.prepare import shows_no_colour
from ttc.datasets.table import Source
from ttc.flags.parser import Given, Parser
from ttc.run.checkpoint import write_text
from ttc.training import experiment
from ttc.training.budget import Budget, budget
from ttc.training.experiment import Choice, Facts, Repetitions

JOINT = "scripts/recipes/joint-balanced.args"
OF_JOINT = frozenset(("minority_cutmix", "batch_sampler"))
"""What this recipe sets beside the method; where the user says otherwise, the user has the last word."""
HERE = frozenset(("data", "out", "jobs", "seeds", "folds", "skip_finetuning", "dry_run", "seed"))
"""Flags that no step gets."""
DRAWS = "1000"
"""Of the bootstrap."""
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


def facts_of(source: Source, dataset: Dataset) -> Facts:
    """Count what the choices depend on."""
    counts = Counter(dataset.labels.tolist())
    rarer = min(counts, key=lambda label: counts[label])
    units = dataset.groups or dataset.ids
    training = dataset.class_counts("train")
    return Facts(
        images=len(dataset.ids),
        rare=len({units[row] for row, label in enumerate(dataset.labels.tolist()) if label == rarer}),
        share=min(training) / sum(training),
        groups=None if dataset.groups is None else len(set(dataset.groups)),
        fixed="test" in source.splits,
    )


def rules_of(dataset: Dataset, training: int) -> tuple[Budget, list[Choice]]:
    """Apply the rules to the data; a run has one core, since several run side by side.

    Args:
        dataset: the data.
        training: images that a run trains on at least.

    Returns:
        What they say, and what follows where gray pictures are stored as RGB.
    """
    stored_as_rgb = dataset.channels == 3 and shows_no_colour(dataset)
    gray = dataset.channels == 1 or stored_as_rgb
    rules = budget(train=training, side=dataset.image_size, gray=gray, gpu=torch.cuda.is_available(), cores=1)
    preset = Choice(
        "augmentation", "medical", "the pictures are gray, stored as RGB: no colours are changed", "--augmentation",
        ("--augmentation", "medical"),
    )  # fmt: skip
    return rules, [preset] if stored_as_rgb else []


@dataclass(frozen=True)
class Plan:
    """What was decided, and what follows from it.

    Attributes:
        choices: with their reasons.
        rows: names of the rows, the advised method first.
        repeated: seeds or folds.
        manifest: words of scripts/make_manifest.py.
        advised: words of pretrain.py for the first row, behind the recipe.
    """

    choices: list[Choice]
    rows: list[str]
    repeated: Repetitions
    manifest: list[str]
    advised: list[str]


def make_plan(args: argparse.Namespace, typed: Collection[str], source: Source, dataset: Dataset, out: Path) -> Plan:
    """Choose what the user has not chosen, and write OUT/recipe.args.

    Args:
        args: of the command.
        typed: flags that the user gave, as in `args.json`.
        source: the data.
        dataset: the same, loaded.
        out: folder of the experiment.
    """
    facts, counts = facts_of(source, dataset), [len(dataset.indices(split)) for split in ("train", "val")]
    repeated, how = experiment.repetitions(facts, args.seeds, args.folds)
    training = experiment.training_images(counts[0], facts.images, counts[1], repeated.folds)
    rules, preset = rules_of(dataset, training)
    rows, which = experiment.methods(facts, args.method if "method" in typed else None)
    named = {*typed, *(("image_size",) if args.data == "-" else ())}  # a named set has a size of its own
    shared = [*experiment.from_rules(rules, named), experiment.SAMPLER, *preset]
    by_group = facts.groups is not None and facts.groups < facts.images and "per_group" not in typed
    last = [experiment.PER_GROUP] if by_group else []
    shared = [choice for choice in shared if choice.words[0][2:].replace("-", "_") not in typed]
    own = words_of(args, set(typed) - flags_of(flags.add_method, flags.add_groups) - HERE)
    quiet = [["--save-every-epochs", str(10**6)]]
    if source.pixels is None and "cache" not in typed:
        quiet += [["--cache", "disk"], ["--cache-folder", str(out / "cache")]]
    if "metrics_every_epochs" not in typed:  # an epoch of a small set is a step or two
        steps_per_epoch = training // rules.batch_size
        quiet.append(["--metrics-every-epochs", str(experiment.patience(steps_per_epoch))])
    write_recipe(out, shared, own, quiet)
    variants = words_of_rows(args, typed, rows, rules.batch_size)
    steps = words_of_steps(args, typed, rules, last, training)
    words = ["--recipes", str(out / "recipe.args"), "--variants", *variants, "--seeds", str(repeated.seeds)]
    words += [] if repeated.folds is None else ["--folds", str(repeated.folds)]
    words += ["--steps", *(f"{step}={shlex.join(more)}" if more else step for step, more in steps.items())]
    words += ["--output", str(out / "manifest.csv")]
    return Plan([how, which, *shared, *last], rows, repeated, words, shlex.split(variants[0].partition("=")[2]))


def words_of_rows(args: argparse.Namespace, typed: Collection[str], rows: Sequence[str], batch: int) -> list[str]:
    """Return the rows as --variants of make_manifest.py; the first alone gets the user's flags of the method."""
    words = {row: ["--method", row] for row in rows} | {"untrained": ["--method", "simclr", "--epochs", "0"]}
    if rows[0] == "joint":
        words["joint"] = [f"@{JOINT}", "--batch-size", str(args.batch_size if "batch_size" in typed else batch)]
    of_method = flags_of(flags.add_method) - {"method"}
    words[rows[0]] += flat(words_of(args, set(typed) & (of_method | OF_JOINT)))
    return [f"{row}={shlex.join(words[row])}" for row in rows]


def words_of_steps(
    args: argparse.Namespace, typed: Collection[str], rules: Budget, by_group: Sequence[Choice], training: int
) -> dict[str, list[str]]:
    """Return the steps of every line with their words."""
    groups = [*(word for choice in by_group for word in choice.words)]
    groups += flat(words_of(args, set(typed) & flags_of(flags.add_groups)))
    steps: dict[str, list[str]] = {
        "pretrain": [],
        "linear_eval": ["--layers", "encoder", "--probes", "all", "--bootstrap", DRAWS, *groups],
    }
    if not args.skip_finetuning:
        length = ["--steps", str(max(1, (args.steps or rules.steps) // experiment.TUNING_SHARE))]
        if args.epochs is not None and "epochs" in typed:
            length = ["--epochs", str(max(1, args.epochs // experiment.TUNING_SHARE))]
        batch = args.batch_size if "batch_size" in typed else rules.batch_size
        sampler = args.batch_sampler if "batch_sampler" in typed else "balanced"
        patience = str(experiment.patience(training // batch))
        steps["finetune"] = ["--batch-sampler", sampler, "--batch-size", str(batch), *length, "--patience", patience]
        steps["finetune"] += ["--save-every-epochs", str(10**6), "--bootstrap", DRAWS, *groups]
    steps["compute_metrics"] = ["--peu-draws", "0", "--scatter", "none"]
    return steps


def write_recipe(out: Path, choices: Sequence[Choice], own: Lines, quiet: Lines) -> None:
    """Write what all runs share: what was chosen, then what the user typed, which wins."""
    lines = [
        "# Written by scripts/from_table.sh: what all runs share; choices.md has the reasons.",
        *(shlex.join(choice.words) for choice in choices if choice.words),
        *map(shlex.join, quiet),
        "# From the command line:",
        *map(shlex.join, own),
    ]
    write_text(out / "recipe.args", "\n".join(lines) + "\n")
