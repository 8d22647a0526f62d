"""How splits are drawn; from parsed flags to the settings of the data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ttc.datasets import DatasetSettings
from ttc.datasets.classes import split_words
from ttc.datasets.pixels.preprocessing import EDITION
from ttc.datasets.pixels.survey import Intensity
from ttc.datasets.splits import NEWEST_RULE
from ttc.flags.parser import Namespace, part_of, whole
from ttc.run.roles import Role


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
    """Return the data that the flags of `flags.add_other_data` ask for."""
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
    )
