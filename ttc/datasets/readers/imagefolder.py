"""A folder of class folders, with or without train/val/test folders around them."""

from __future__ import annotations

import logging
from pathlib import Path

from ttc.datasets.classes import group_labels
from ttc.datasets.images import relative_id
from ttc.datasets.splits import missing_parts
from ttc.datasets.table import DatasetSettings, Source

log = logging.getLogger("ttc")

SPLIT_FOLDERS = ("train", "val", "test")
# No class is called like this; a folder with such a name below the root shows that a parent was passed.
SPLIT_WORDS = {*SPLIT_FOLDERS, "training", "valid", "validation", "testing"}
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


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
    folders = _subfolders(root)
    split_folders = [folder for folder in folders if folder.name.casefold() in SPLIT_WORDS]
    if split_folders:
        _check_split_folders(root, folders)
        listed = [(folder.name, member) for folder in folders for member in _subfolders(folder)]
        for folder in folders:
            if not _subfolders(folder):
                raise ValueError(f"--data-root: {folder} has no class folders; expected {folder}/CLASS/IMAGE")
    else:
        listed = [("train", folder) for folder in folders]
    if not listed:
        raise ValueError(f"--data-root {root} has no class folders; expected {root}/CLASS/IMAGE")

    files: list[tuple[str, str, str, str]] = []
    for split, folder in listed:
        _refuse_split_name(folder)
        files += [(relative_id(file, root), folder.name, split, str(file)) for file in _images(folder)]
    # By id, so that the row numbers do not depend on how the file system lists folders.
    files.sort()
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
        held_out=missing_parts(splits),
        paths=[path for _, _, _, path in files],
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _check_split_folders(root: Path, folders: list[Path]) -> None:
    names = [folder.name for folder in folders]
    strangers = [name for name in names if name not in SPLIT_FOLDERS]
    if strangers:
        raise ValueError(
            f"--data-root {root} mixes split folders with {strangers[0]!r}; "
            "split folders are called train, val and test, and class folders lie inside them"
        )
    if "train" not in names:
        raise ValueError(f"--data-root {root} has {', '.join(names)} but no train folder; pass the folder above it")


def _refuse_split_name(folder: Path) -> None:
    if folder.name.casefold() in SPLIT_WORDS:
        raise ValueError(f"--data-root: class folder {folder} is called like a split; pass {folder.parent} instead")
    inner = [inner.name for inner in _subfolders(folder)]
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


def _images(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    images = [p for p in files if p.suffix.lower() in EXTENSIONS]
    if len(images) < len(files):
        log.warning("%s: %d files have no image extension and are left out", folder, len(files) - len(images))
    return images
