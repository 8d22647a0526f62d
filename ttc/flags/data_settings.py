"""How splits are drawn; from parsed flags to the settings of the data, and to what the data decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ttc import distributed
from ttc.batches.samplers import BatchSampler
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.datasets.checks.copies import WAYS
from ttc.datasets.classes import split_words
from ttc.datasets.pixels.preprocessing import EDITION
from ttc.datasets.prepare import shows_no_colour, side_of
from ttc.datasets.registry import build_dataset, read_source
from ttc.datasets.splits import NEWEST_RULE
from ttc.flags.parser import Given, Namespace, part_of, whole
from ttc.flags.settings import intensity, new_intensity
from ttc.run import files, readers
from ttc.run.roles import Role
from ttc.run.runtime import usable_cores
from ttc.training.budget import budget, epochs_of, image_size

OWN = ("csv", "imagefolder", "arrays")
"""Images of the user's own. For all others pages and papers hold numbers, which fixed defaults keep."""
Stored = Mapping[str, Mapping[str, object]]
"""An args.json: flag -> its value and source."""


def add_splits(add: Callable[..., object]) -> None:
    """Add how train, validation and test are divided."""
    add(
        "--fold",
        role=Role.PART,
        type=part_of,
        metavar="I/K",
        help="fold I of K of all images, whole groups, is the test set, and validation is drawn from the others; run "
        "1/K to K/K (scripts/make_manifest.py --folds K) where one test set is too small to tell anything; replaces "
        "splits that the data fix",
    )
    add(
        "--group-copies",
        role=Role.RESULT,
        nargs="?",
        const="group",
        choices=WAYS,
        help="images of equal content become one group, with the groups that they belong to, so that no two splits "
        "hold the same image; drop leaves all but one out; set it where scripts/check_dataset.py finds copies",
    )
    add(
        "--split-rule",
        role=Role.RESULT,
        type=whole(1, NEWEST_RULE),
        metavar="N",
        help="how splits that the data do not fix are drawn: 2 gives each split its due count of every label, with "
        "groups too; 1 repeats the draws, and the ids, of versions without this flag; the default is 2, and when a "
        "run is continued its own",
    )


def fold_of(args: Namespace) -> tuple[int, int] | None:
    """Return the fold and the number of folds."""
    if args.fold is None:
        return None
    number, folds = map(int, args.fold.split("/"))
    return number, folds


def split_rule(args: Namespace, folder: Path) -> int:
    """Return the rule by which splits are drawn: the flag, that of the run in the folder, or the newest.

    Raises:
        ValueError: what the run says about itself cannot be read.
    """
    if args.split_rule is not None:
        return int(args.split_rule)
    if not (folder / "args.json").is_file():
        return NEWEST_RULE
    try:
        # Runs of the versions before the flag have no entry.
        return int(json.loads((folder / "args.json").read_text()).get("split_rule", {"value": 1})["value"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{folder / 'args.json'} is damaged; choose another --output") from None


def decoding_edition(run: Path) -> int:
    """Return the rules by which the run in a folder decodes files: its own, or the newest where there is no run yet.

    Raises:
        ValueError: what the run says about itself cannot be read.
    """
    path = run / "args.json"
    try:
        return EDITION if not path.is_file() or "intensity" in json.loads(path.read_text()) else 1
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{path} is damaged; choose another --output") from None


def dataset_settings(args: Namespace, rule: int | None = None, edition: int = EDITION) -> DatasetSettings:
    """Return the data that the flags of `flags.add_data` ask for.

    Args:
        args: the flags.
        rule: by which splits are drawn; None for that of the flag, or the newest.
        edition: of the rules by which files are decoded.
    """
    return DatasetSettings(
        name=args.dataset,
        data_root=args.data_root,
        classes=None if args.classes is None else tuple(map(split_words, args.classes)),
        positive_classes=positive_classes(args),
        class_ratios=class_ratios(args),
        train_samples=args.train_samples,
        # Several minority classes concern the objective only; the data then name the smallest class.
        minority_class=args.minority_class[0] if args.minority_class and len(args.minority_class) == 1 else None,
        image_size=args.image_size,
        on_bad_image=args.on_bad_image,
        label_column=args.label_column,
        stored_size=args.stored_size,
        cache=args.cache,
        cache_folder=args.cache_folder,
        path_column=args.path_column,
        group_column=args.group_column,
        split_column=args.split_column,
        id_column=args.id_column,
        split_rule=rule or args.split_rule or NEWEST_RULE,
        intensity=intensity(args.intensity) or "auto",
        framing=args.framing,
        dicom_window=None if args.dicom_window is None else tuple(args.dicom_window),
        edition=edition,
        seed=args.seed,
        num_workers=args.num_workers,
        fold=fold_of(args),
        group_copies=args.group_copies,
    )


def positive_classes(args: Namespace) -> tuple[str, ...] | None:
    """Return the source labels of class 1, which two flags can name.

    Raises:
        ValueError: both do.
    """
    if args.one_vs_rest is None:
        return None if args.positive_classes is None else split_words(args.positive_classes)
    if args.positive_classes is not None or args.classes is not None:
        raise ValueError(f"--one-vs-rest {args.one_vs_rest} names the classes already; drop the other flag")
    return (args.one_vs_rest,)


def class_ratios(args: Namespace) -> tuple[float, ...] | None:
    """Return the shares of the classes; digits alone, which has no rare class, is made imbalanced by default."""
    if args.class_ratios is not None:
        return tuple(args.class_ratios)
    grouped = args.classes or args.positive_classes or args.one_vs_rest
    untouched = args.dataset == "digits" and not grouped
    return (0.97, 0.03) if untouched else None


def other_settings(args: Namespace) -> DatasetSettings:
    """Return the data that the flags of `flags.add_other_data` ask for; intensity auto is then that of the run."""
    return DatasetSettings(
        name=args.dataset,
        data_root=args.data_root,
        classes=None if args.classes is None else tuple(map(split_words, args.classes)),
        positive_classes=None if args.positive_classes is None else split_words(args.positive_classes),
        on_bad_image=args.on_bad_image,
        label_column=args.label_column,
        path_column=args.path_column,
        group_column=args.group_column,
        split_column=args.split_column,
        id_column=args.id_column,
        intensity=new_intensity(args.intensity) or "auto",
    )


def stored_arguments(args: Namespace, folder: Path) -> Stored:
    """Return the args.json of the run that is continued; empty for a new one.

    Raises:
        ValueError: it cannot be read.
    """
    path = folder / "args.json"
    if not path.is_file() and args.resume not in ("auto", "never"):
        path = files.folder_of(args.resume) / "args.json"
    return readers.read_arguments(path, path.parent, "choose another --output") if path.is_file() else {}


def leave_open(given: Given, stored: Stored) -> None:
    """Leave length and batches on images of one's own to the rules, where the user names none.

    A run that earlier versions began with their fixed values goes on with these.
    """
    for name in ("epochs", "batch_size") if given.values["dataset"] in OWN else ():
        began = stored.get(name, {"value": None, "source": "default"})
        if given.sources[name] == "default" and (began["value"] is None or began["source"] == "derived"):
            given.values[name] = None


def load_own_size(args: Namespace, settings: DatasetSettings, stored: Stored, device: torch.device) -> Dataset:
    """Load the data, of one's own with an image size that fits the machine where the user names none.

    Raises:
        ValueError: see `load_dataset`.
    """
    if args.dataset not in OWN or args.image_size is not None:
        return load_dataset(settings)
    source = read_source(settings)
    if stored:
        args.image_size = stored["image_size"]["value"]
    elif args.weights is None:  # which want the size that they were trained with
        gpu, cores = device.type != "cpu", _cores()
        args.image_size = distributed.from_first_rank(lambda: image_size(side_of(source), gpu, cores)[0])
    return build_dataset(replace(settings, image_size=args.image_size), source)


def _cores() -> int:
    """Return the cores of this host that each of its processes may use."""
    return max(usable_cores() // distributed.world_size(), 1)


def fill_in(args: Namespace, dataset: Dataset, stored: Stored, given: Given, device: torch.device) -> list[str]:
    """Fill in what the flags leave open, and return what to say about it in the plan."""
    lines: list[str] = []
    if stored:
        for name in ("steps", "batch_size", "encoder", "augmentation", "crop_scale"):
            if getattr(args, name) is None and name in stored:
                setattr(args, name, stored[name]["value"])
    elif args.dataset in OWN:
        lines = _follow_rules(args, dataset, given, device)
    return lines


def whole_epochs(args: Namespace, sampler: BatchSampler) -> None:
    """Turn --steps, if they say how long the run is, into whole epochs.

    Raises:
        ValueError: no epoch would be left after the linear ones of finetune.py.
    """
    if args.epochs is not None:
        return
    args.epochs = epochs_of(args.steps, sampler.steps_per_epoch)
    if vars(args).get("linear_epochs", 0) >= args.epochs:
        raise ValueError(f"--linear-epochs {args.linear_epochs} leaves no epoch of {args.epochs}; use --freeze-encoder")


def _follow_rules(args: Namespace, dataset: Dataset, given: Given, device: torch.device) -> list[str]:
    """Fill in what the rules for images of one's own choose, and return a line for each choice."""
    stored_as_rgb = dataset.channels == 3 and distributed.from_first_rank(lambda: shows_no_colour(dataset))
    gray = dataset.channels == 1 or stored_as_rgb
    chosen = budget(
        train=len(dataset.indices("train")),
        side=dataset.image_size,
        gray=gray,
        gpu=device.type != "cpu",
        cores=_cores(),
        processes=distributed.world_size(),
        batch=args.batch_size,
    )
    lines = []
    if given.values["image_size"] is None and args.weights is None:
        lines.append(f"--image-size {dataset.image_size}: {chosen.reasons['image_size']}")
    if args.augmentation is None:  # a preset that is named keeps its own crops
        args.augmentation = "medical" if gray else "natural"
        if stored_as_rgb:
            lines.append("the pictures are gray, stored as RGB: --augmentation medical, which changes no colours")
        if args.crop_scale is None and chosen.crop_scale is not None:
            args.crop_scale = list(chosen.crop_scale)
            low, high = chosen.crop_scale
            lines.append(f"--crop-scale {low:g} {high:g}: {chosen.reasons['crop_scale']}")
    if args.encoder is None and args.weights is None:
        args.encoder = chosen.encoder
        lines.append(f"--encoder {chosen.encoder}: {chosen.reasons['encoder']}")
    if args.batch_size is None:
        args.batch_size = chosen.batch_size
        lines.append(f"--batch-size {chosen.batch_size}: {chosen.reasons['batch_size']}")
    if args.epochs is None and args.steps is None:
        args.steps = chosen.steps
        lines.append(f"--steps {chosen.steps}: {chosen.reasons['steps']}")
    return lines
