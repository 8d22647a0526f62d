"""From parsed flags to settings: the defaults that depend on other things, and the contradictions that are refused."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ttc.batches.augment import PRESETS, Augmentation
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset
from ttc.datasets.pixels.survey import Intensity
from ttc.flags.parser import Given, Parser
from ttc.losses import settings_of
from ttc.models.description import Description
from ttc.models.encoders import EncoderSpec
from ttc.run import files


def run_name(args: argparse.Namespace) -> str:
    """Return the name of the folder of a run of pretrain.py that names none."""
    name = f"{args.dataset}-{args.method}-seed{args.seed}"
    return name if args.fold is None else f"{name}-fold{args.fold.replace('/', 'of')}"


def intensity(words: Sequence[str | float] | None) -> Intensity | None:
    """Return what `--intensity` asks for; None where it is not given.

    Raises:
        ValueError: the words are neither a name nor two numbers.
    """
    match words:
        case None:
            return None
        case [str(name)]:
            return name
        case [float(low), float(high)]:
            return low, high
    raise ValueError(f"--intensity {' '.join(map(str, words))}: pass auto, full, or the two values LOW HIGH")


def new_intensity(words: Sequence[str | float] | None) -> Intensity | None:
    """Return what `--intensity` asks for of images that are not the run's; None where it is not given.

    Raises:
        ValueError: as `intensity`, and for auto.
    """
    asked = intensity(words)
    if asked == "auto":
        raise ValueError("--intensity auto is for the training set; pass full or LOW HIGH, or leave it out")
    return asked


def minority_classes(args: argparse.Namespace, dataset: Dataset) -> int | list[int] | None:
    """Return the class or classes that the objective treats as the minority.

    Raises:
        ValueError: one of several is no class, or the largest.
    """
    if args.minority_class is None or len(args.minority_class) == 1:
        return dataset.minority_class
    counts = dataset.class_counts("train")
    for label in args.minority_class:
        if label >= len(counts) or counts[label] == max(counts) > min(counts):
            reason = "the largest class" if label < len(counts) else "no class"
            raise ValueError(f"--minority-class {label} is {reason} (training samples: {counts}); leave it out")
    return list(args.minority_class)


def encoder_spec(args: argparse.Namespace, dataset: Dataset) -> EncoderSpec:
    """Return the encoder; without a name the one that fits the image size."""
    size = dataset.image_size
    fitting = "convnet-w8" if size <= 16 else "convnet-w16" if size <= 64 else "resnet50"
    return EncoderSpec(args.encoder or fitting, dataset.channels, size, args.stem)


def preset(args: argparse.Namespace, dataset: Dataset) -> str:
    """Return the name of the augmentation preset; without one the one that fits the data."""
    by_dataset = {"digits": "digits", "ukbb-cardiac": "cardiac"}
    usual = by_dataset.get(dataset.name) or ("medical" if dataset.channels == 1 else "natural")
    return str(args.augmentation or usual)


def augmentation(args: argparse.Namespace, dataset: Dataset) -> Augmentation:
    """Return the augmentation that the flags ask for.

    Raises:
        ValueError: the crop's smallest share is above its largest.
    """
    return _changed(PRESETS[preset(args, dataset)], args)


def changed_augmentation(args: argparse.Namespace, description: Description) -> Augmentation:
    """Return the augmentation of a run with the changes that the flags ask for.

    Raises:
        ValueError: the crop's smallest share is above its largest.
    """
    base = description.view_generator().augmentation if args.augmentation is None else PRESETS[args.augmentation]
    return _changed(base, args)


def _changed(base: Augmentation, args: argparse.Namespace) -> Augmentation:
    base = base.stronger(args.jitter_strength)
    if args.crop_scale is None:
        return base
    low, high = args.crop_scale
    if low > high:
        raise ValueError(f"--crop-scale {low:g} {high:g}: MIN is above MAX; swap them")
    return replace(base, scale=(low, high))


def objective_arguments(
    args: argparse.Namespace, dataset: Dataset, sampler: BatchSampler, feature_dim: int
) -> dict[str, object]:
    """Return the keyword arguments of `build_objective`, plain values.

    Raises:
        ValueError: a setting that the method does not know, or a minority that it needs and cannot be counted.
    """
    settings = parse_method_settings(args.method, args.method_settings)
    if args.ratio_supervised_majority is not None:
        settings["ratio_supervised_majority"] = args.ratio_supervised_majority
    if args.margin is not None:
        settings["margin"] = args.margin[0] if len(args.margin) == 1 else list(args.margin)
    minority = minority_classes(args, dataset)
    if (args.method == "supmin" or args.minority_cutmix) and minority is None:
        raise ValueError(
            f"--method {args.method}: no class is smaller than all others, so none is the minority; "
            "choose one with --minority-class"
        )
    return {
        "num_classes": len(dataset.class_names),
        "minority_class": minority,
        "class_counts": sampler.presented_counts(),
        "train_counts": dataset.class_counts("train"),
        "schedule_steps": args.epochs * sampler.steps_per_epoch,
        "feature_dim": feature_dim,
        "projection_dim": args.projection_dim,
        "temperature": args.temperature,
        "base_temperature": args.base_temperature,
        "seed": args.seed,
        "ce_weight": args.ce_weight,
        "instance_weight": args.instance_weight,
        "prototype_weight": args.prototype_weight,
        **settings,
    }


def parse_method_settings(method: str, words: list[str]) -> dict[str, object]:
    """Turn NAME=VALUE words into settings of a method, each of the type of its default.

    Raises:
        ValueError: a word without "=", an unknown name or a value of another type.
    """
    defaults = settings_of(method)
    out: dict[str, object] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or name not in defaults:
            raise ValueError(
                f"--method-settings {word}: --method {method} knows {', '.join(defaults) or 'none'}; write NAME=VALUE"
            )
        default = defaults[name]
        try:
            if isinstance(default, bool):
                out[name] = {"true": True, "false": False}[text.lower()]
            else:
                out[name] = int(text) if isinstance(default, int) else text if isinstance(default, str) else float(text)
        except (ValueError, KeyError):
            kind = type(default).__name__
            raise ValueError(f"--method-settings {word}: {name} takes a value like {default} ({kind})") from None
    return out


def refuse_idle_flags(parser: Parser, given: Given) -> None:
    """End with exit code 2 when the command line itself sets something that the chosen method does not have.

    Recipes may carry such flags: one recipe serves many methods.
    """
    method = str(given.values["method"])
    defaults = settings_of(method)
    for name in ("temperature", "base_temperature", "ratio_supervised_majority", "margin"):
        if given.sources[name] == "command line" and name not in defaults:
            flag = f"--{name.replace('_', '-')}"
            parser.refuse(f"{flag} has no effect with --method {method}; leave it out or choose another method")


def divisible_batch(batch_size: int, world_size: int) -> int:
    """Return the global batch size.

    Raises:
        ValueError: it cannot be divided equally among the processes.
    """
    if batch_size % world_size:
        below = batch_size // world_size * world_size
        raise ValueError(
            f"--batch-size {batch_size} cannot be divided among {world_size} processes; use {below or world_size}"
        )
    return batch_size


def micro_batches(batch_size: int, micro_batch_size: int | None, world_size: int) -> int:
    """Return the number of pieces that the global batch is embedded in.

    Raises:
        ValueError: the pieces would not be equal, or cannot be divided equally among the processes.
    """
    if micro_batch_size is None or micro_batch_size >= batch_size:
        return 1
    if batch_size % micro_batch_size or micro_batch_size % world_size:
        fitting = [n for n in range(world_size, micro_batch_size + 1, world_size) if batch_size % n == 0]
        raise ValueError(
            f"--micro-batch-size {micro_batch_size} does not divide --batch-size {batch_size} into equal pieces for "
            f"{world_size} process{'es' * (world_size > 1)}; use {fitting[-1] if fitting else world_size}"
        )
    return batch_size // micro_batch_size


def batch_sampler(args: argparse.Namespace, dataset: Dataset, world_size: int) -> BatchSampler:
    """Return the sampler that composes the batches of a run."""
    return BatchSampler(
        dataset.labels[dataset.indices("train")],
        batch_size=divisible_batch(args.batch_size, world_size),
        kind=args.batch_sampler,
        seed=args.seed,
        minority_class=dataset.minority_class,
        min_minority=args.min_minority_per_batch,
    )


def derived(args: argparse.Namespace, output: Path, dataset: Dataset, description: Description) -> dict[str, object]:
    """Return the values that took the place of flags left open, for args.json."""
    return {
        **({} if args.crop_scale is None else {"crop_scale": args.crop_scale}),
        **({} if args.steps is None else {"steps": args.steps}),
        "batch_size": args.batch_size,
        "output": str(output),
        "class_ratios": description.data["class_ratios"],
        "augmentation": preset(args, dataset),
        "encoder": description.encoder["name"],
        "image_size": description.encoder["image_size"],
        "minority_class": description.minority_class,
        "split_rule": dataset.settings.split_rule,
    }


def evaluation_folder(args: argparse.Namespace, name: str) -> Path:
    """Return where an evaluation writes: the flag, or a folder in the run that the checkpoint belongs to."""
    if args.output is not None:
        return Path(args.output)
    if args.checkpoint is None:
        return Path(args.embeddings).with_suffix("") / name
    folder = files.folder_of(args.checkpoint) / name
    files.refuse_special(folder)
    return folder


def file_digest(path: str) -> str:
    """Return the sha256 of a file: an evaluation is another one when its checkpoint has changed.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return hashlib.sha256(files.read_bytes(Path(path), files.run_of(Path(path)))).hexdigest()
    except OSError as error:
        flag = "--embeddings" if path.endswith(".npz") else "--checkpoint"
        raise ValueError(f"{flag} {path} cannot be read ({error.strerror}); pass an existing file") from None


def positive_class(label: int | None, description: Description) -> int:
    """Return the class that AUROC and F1 are about: the flag, the minority, or class 1.

    Raises:
        ValueError: there is no such class.
    """
    if label is None:
        return 1 if description.minority_class is None else description.minority_class
    if label >= len(description.class_names):
        raise ValueError(f"--positive-class {label} is no class; use 0 to {len(description.class_names) - 1}")
    return label
