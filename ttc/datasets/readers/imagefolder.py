"""A folder of class folders, with or without train/val/test folders around them."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from ttc import distributed
from ttc.datasets.checks.listing import is_broken_link, list_images, subfolders
from ttc.datasets.classes import group_labels
from ttc.datasets.images import relative_id
from ttc.datasets.splits import SPLIT_OF, missing_parts
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.escape import counted

log = logging.getLogger("ttc")

SPLIT_WORDS = SPLIT_OF.keys() - {"pool"}
"""No class is called like this; a folder with such a name below the root shows that a parent was passed."""


def read(settings: DatasetSettings) -> Source:
    """List `ROOT/{train,val,test}/CLASS/*` or `ROOT/CLASS/*`; classes are the sorted folder names.

    Without split folders, 20 % become the test and 10 % the validation set; with them, a missing one is drawn
    from the training folder in the same proportion.
    """
    if settings.data_root is None:
        raise ValueError("--dataset imagefolder needs --data-root, the folder that holds the class folders")
    root = Path(settings.data_root)
    if not root.is_dir():
        raise ValueError(f"--data-root {root} is no folder; pass the folder that holds the class folders")
    listed = _class_folders(root)
    files: list[tuple[str, str, str, str]] = []
    left_out: dict[str, Counter[str]] = {}
    for split, folder in listed:
        _refuse_split_name(folder)
        images = _images(folder, left_out.setdefault(folder.name, Counter()), settings)
        files += [(relative_id(file, root), folder.name, split, str(file)) for file in images]
    # By id, so that the row numbers do not depend on how the file system lists folders.
    files.sort()
    if not files:
        raise ValueError(
            f"--data-root {root}: no image was found in its {counted(len(listed), 'class folder')}; fill them"
        )
    names = sorted({folder.name for _, folder in listed})
    classes = group_labels({name: name for name in names}, settings.classes, settings.positive_classes)
    filled = {label for _, label, _, _ in files}
    for name in names:
        if name in classes.label_of and name not in filled:
            raise ValueError(f"--data-root {root}: class folder {name!r} holds no image; fill or remove it")
    splits = [split for _, _, split, _ in files]
    return Source(
        ids=[file_id for file_id, _, _, _ in files],
        labels=[label for _, label, _, _ in files],
        classes=classes,
        splits=splits,
        held_out=missing_parts(splits, settings.fold),
        paths=[path for _, _, _, path in files],
        left_out={label: formats for label, formats in left_out.items() if formats},
    )


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    """Return the split and the folder of every class in it."""
    folders = subfolders(root)
    if any(folder.name.casefold() in SPLIT_WORDS for folder in folders):
        _check_split_folders(root, folders)
        inner = [(SPLIT_OF[folder.name.casefold()], folder, subfolders(folder)) for folder in folders]
        for _, folder, members in inner:
            if not members:
                raise ValueError(f"--data-root: {folder} has no class folders; expected {folder}/CLASS/IMAGE")
        listed = [(split, member) for split, _, members in inner for member in members]
    else:
        listed = [("train", folder) for folder in folders]
    if not listed:
        raise ValueError(f"--data-root {root} has no class folders; expected {root}/CLASS/IMAGE")
    return listed


def _check_split_folders(root: Path, folders: list[Path]) -> None:
    names = [folder.name for folder in folders]
    strangers = [name for name in names if name.casefold() not in SPLIT_WORDS]
    if strangers:
        raise ValueError(
            f"--data-root {root} mixes split folders with {strangers[0]!r}; "
            "split folders are called train, val and test, and class folders lie inside them"
        )
    splits = [SPLIT_OF[name.casefold()] for name in names]
    if "train" not in splits:
        raise ValueError(f"--data-root {root} has {', '.join(names)} but no train folder; pass the folder above it")
    for split in splits:
        if splits.count(split) > 1:
            alike = " and ".join(name for name in names if SPLIT_OF[name.casefold()] == split)
            raise ValueError(
                f"--data-root {root}: the folders {alike} are one split; put their images into one of them"
            )


def _refuse_split_name(folder: Path) -> None:
    if folder.name.casefold() in SPLIT_WORDS:
        raise ValueError(f"--data-root: class folder {folder} is called like a split; pass {folder.parent} instead")
    inner = [inner.name for inner in subfolders(folder)]
    if any(name.casefold() in SPLIT_WORDS for name in inner):
        raise ValueError(
            f"--data-root {folder.parent}: {folder.name} holds {', '.join(inner)} and would become a class; "
            f"the parent folder was passed, use --data-root {folder}"
        )
    if inner:
        raise ValueError(
            f"--data-root: class folder {folder} holds the folder {inner[0]!r}; images must lie directly in it "
            "(for patients or sites use --dataset csv with a group column)"
        )


def _images(folder: Path, left_out: Counter[str], settings: DatasetSettings) -> list[Path]:
    """Return the images in a class folder, and count what else lies there."""
    listing = list_images(folder)
    if listing.left_out:
        left_out.update(listing.left_out)
        if distributed.rank() == 0:
            log.warning("%s: left out, since no image format that is read: %s", folder, listing.describe())
    if settings.split_rule == 1:  # left them out, before the splits were drawn
        return [path for path in listing.images if not is_broken_link(path)]
    return listing.images
