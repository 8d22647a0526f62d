"""Three binary subsets of iNaturalist 2021, straight from its folders of species.

The folders are called NNNNN_Kingdom_Phylum_Class_Order_Family_Genus_species; a class is everything below a taxonomic
prefix. The full set has 2.7 million files, so only folders that match are listed, and the list is kept.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttc import distributed
from ttc.datasets.cache import cache_folder
from ttc.datasets.classes import group_labels
from ttc.datasets.imbalance import hash_order
from ttc.datasets.table import DatasetSettings, Source
from ttc.run import checkpoint

log = logging.getLogger("ttc")

CLASSES = {
    "inat21-plants": (
        ("Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Quercus",),
        ("Plantae_Tracheophyta_Magnoliopsida_Saxifragales",),
    ),
    "inat21-insects": (
        ("Animalia_Arthropoda_Insecta_Hymenoptera_Apidae",),
        ("Animalia_Arthropoda_Insecta_Hymenoptera_Vespidae",),
    ),
    "inat21-mammals": (
        ("Animalia_Chordata_Mammalia_Artiodactyla",),
        ("Animalia_Chordata_Mammalia_Carnivora",),
    ),
}
TRAIN_FOLDERS = ("train", "train_mini")
TEST_FOLDER = "val"
VAL_FRACTION = 0.05
EXTENSIONS = (".jpg", ".jpeg", ".png")
INDEX_VERSION = 1
CHANNELS = 3
TEST_SEED = 0

Listing = dict[str, list[str]]
"""Species folder below the root, such as "val/00001_Animalia_...", -> its image files."""


def read(settings: DatasetSettings) -> Source:
    """Read `ROOT/train` (or train_mini) and `ROOT/val`, the official test set.

    Validation is 5 % of the training images of the smaller class, as many of each class. The test set keeps as many
    images of each class, too, drawn without the seed: it is the same in every run.
    """
    if settings.data_root is None:
        raise ValueError(f"--dataset {settings.name} needs --data-root, the folder that holds train (or train_mini)")
    if settings.positive_classes is not None:
        raise ValueError(f"--dataset {settings.name} has no list of labels; name taxonomic prefixes with --classes")
    root, train = _folders(Path(settings.data_root))
    groups = settings.classes or CLASSES[settings.name]
    prefixes = {prefix: prefix.rsplit("_", 1)[-1] for group in groups for prefix in group}
    classes = group_labels(prefixes, groups, None)

    place = _index_file(root, train, prefixes, cache_folder(settings.cache_folder))
    # The first rank lists and keeps the list, the others read it; a rank on another machine may have to list anew.
    distributed.from_first_rank(lambda: len(_list_files(root, train, list(prefixes), place)))
    listing = _list_files(root, train, list(prefixes), place)
    log.info("training images are those of %s, the official test images those of %s", root / train, root / TEST_FOLDER)

    rows = []
    for folder, files in listing.items():
        prefix = _prefix_of(folder.split("/", 1)[1], list(prefixes))
        assert prefix is not None
        rows += [(f"{folder}/{file}", prefix, "train" if folder.startswith(f"{train}/") else "test") for file in files]
    rows.sort()
    labels = [classes.label_of[prefix] for _, prefix, _ in rows]
    val = _equal_shares(rows, labels, "train", VAL_FRACTION, settings.seed)
    test = _equal_shares(rows, labels, "test", 1.0, TEST_SEED)
    splits = ["val" if row in val else split for row, (_, _, split) in enumerate(rows)]
    used = [row for row, split in enumerate(splits) if split != "test" or row in test]
    return Source(
        ids=[rows[row][0] for row in used],
        labels=[rows[row][1] for row in used],
        classes=classes,
        splits=[splits[row] for row in used],
        held_out={},
        paths=[f"{root}/{rows[row][0]}" for row in used],
        channels=CHANNELS,
    )


def _equal_shares(
    rows: Sequence[tuple[str, str, str]], labels: Sequence[int], split: str, fraction: float, seed: int
) -> set[int]:
    """Draw the same number of rows of each class from a split: a fraction of its smaller class there."""
    members = [row for row, (_, _, split_of_row) in enumerate(rows) if split_of_row == split]
    counts = Counter(labels[row] for row in members)
    per_class = round(fraction * min(counts.values(), default=0))
    left = dict.fromkeys(counts, per_class)
    drawn = set()
    for position in hash_order([rows[row][0] for row in members], seed, "split"):
        row = members[position]
        if left[labels[row]]:
            left[labels[row]] -= 1
            drawn.add(row)
    return drawn


def _folders(root: Path) -> tuple[Path, str]:
    """Return the root and the name of the training folder, which `--data-root` itself may name."""
    if root.name in TRAIN_FOLDERS and root.is_dir() and not any((root / name).is_dir() for name in TRAIN_FOLDERS):
        root, train_folders = root.parent, [root.name]
    else:
        train_folders = [name for name in TRAIN_FOLDERS if (root / name).is_dir()]
    if not train_folders:
        raise ValueError(
            f"--data-root {root} has neither train nor train_mini; pass the folder in which train.tar.gz or "
            "train_mini.tar.gz was unpacked"
        )
    if not (root / TEST_FOLDER).is_dir():
        raise ValueError(f"--data-root {root} has no folder val, the official test set; unpack val.tar.gz there")
    return root, train_folders[0]


def _prefix_of(folder: str, prefixes: Sequence[str]) -> str | None:
    """Return the prefix that a species folder NNNNN_Kingdom_... belongs to."""
    number, _, taxon = folder.partition("_")
    if not number.isdigit():
        return None
    matching = [prefix for prefix in prefixes if f"{taxon}_".casefold().startswith(f"{prefix}_".casefold())]
    if len(matching) > 1:
        raise ValueError(f"--classes: the folder {folder} belongs to {matching[0]} and {matching[1]}; name one of them")
    return matching[0] if matching else None


def _index_file(root: Path, train: str, prefixes: Sequence[str] | dict[str, str], caches: Path) -> Path:
    text = json.dumps([INDEX_VERSION, str(root.resolve()), train, list(prefixes)])
    return caches / f"inat21-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _list_files(root: Path, train: str, prefixes: Sequence[str], place: Path) -> Listing:
    """Return the image files of all matching species, from the kept list while no folder has changed."""
    folders: dict[str, int] = {}
    for part in (train, TEST_FOLDER):
        names = sorted(entry.name for entry in os.scandir(root / part) if entry.is_dir())
        species = [(name, prefix) for name in names if (prefix := _prefix_of(name, prefixes)) is not None]
        for prefix in prefixes:
            if not any(prefix_of_name == prefix for _, prefix_of_name in species):
                raise ValueError(_missing(root / part, prefix, names))
        folders |= {f"{part}/{name}": (root / part / name).stat().st_mtime_ns for name, _ in species}
    # A folder's time changes when a file in it comes, goes or is renamed.
    fingerprint = hashlib.sha256(json.dumps(folders).encode()).hexdigest()
    if (stored := _stored(place, fingerprint)) is not None:
        return stored
    listing = {folder: sorted(_images(root / folder)) for folder in folders}
    filled = {(part, _prefix_of(name, prefixes)) for part, _, name in (f.partition("/") for f in listing if listing[f])}
    for part in (train, TEST_FOLDER):
        for prefix in prefixes:
            if (part, prefix) not in filled:
                raise ValueError(f"--data-root: {root / part} has no image of {prefix}; unpack {part} again")
    log.info("listed %d images of %d species below %s", sum(map(len, listing.values())), len(listing), root)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(place, json.dumps({"fingerprint": fingerprint, "listing": listing}))
    except OSError as error:
        log.warning("the list of files cannot be kept in %s (%s); see --cache-folder", place.parent, error.strerror)
    return listing


def _stored(place: Path, fingerprint: str) -> Listing | None:
    """Return the stored list, or None where there is none that fits."""
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        return dict(stored["listing"]) if stored["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _images(folder: Path) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
            yield entry.name


def _missing(folder: Path, prefix: str, names: Sequence[str]) -> str:
    """Say that a class has no folder, with taxa of the same rank that are spelled alike."""
    depth = prefix.count("_") + 1
    taxa = {"_".join(name.split("_")[1 : depth + 1]) for name in names if name.split("_")[0].isdigit()}
    by_folded = {taxon.casefold(): taxon for taxon in taxa}
    near = [by_folded[taxon] for taxon in difflib.get_close_matches(prefix.casefold(), by_folded, 3, 0.6)]
    hint = f"the nearest are {', '.join(near)}" if near else f"none of its {len(taxa)} taxa of that rank is alike"
    return f"--data-root: {folder} has no species of {prefix}; {hint}; unpack more, or name others with --classes"
