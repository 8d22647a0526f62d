"""Images of equal content: joined to one group, or left out, before splits are drawn (`--group-copies`)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ttc import distributed
from ttc.datasets.cache import open_cache
from ttc.datasets.checks.leaks import pixel_digests
from ttc.datasets.images import FileImages, Images
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.escape import counted

log = logging.getLogger("ttc")

WAYS = ("group", "drop")

_ORDER = ("test", "val", "train", "pool")
"""Where a set of copies goes that lies in several splits: a test set stays what it is, training loses."""


def content_digests(settings: DatasetSettings, source: Source, images: Images, rows: Sequence[int]) -> list[str]:
    """Return a digest of the pixels of every sample of a source; "" where there are none, or they cannot be decoded.

    Args:
        settings: say where decoded files are kept.
        source: the samples.
        images: of some of them, as training gets them.
        rows: which ones.
    """
    bad: list[tuple[int, str]] = []
    if isinstance(images, FileImages) and settings.cache != "off":
        images, bad = open_cache(images, [source.ids[row] for row in rows], settings.cache, settings.cache_folder)
    digests, unreadable = [""] * len(source.ids), {position for position, _ in bad}
    for position, digest in enumerate(distributed.from_first_rank(lambda: pixel_digests(images))):
        digests[rows[position]] = "" if position in unreadable else digest
    return digests


def join_copies(source: Source, digests: Sequence[str], way: str) -> Source:
    """Return a source in which no two splits can hold the same image.

    Args:
        source: as its reader gave it; splits that it does not define are still to be drawn.
        digests: of the pixels of every sample; "" where nothing is known of them.
        way: "group" makes one group of all copies, and of the groups that they belong to; an image without copies, in
            data without groups, is a group of its own. Where the source fixes splits, such a group goes to test if one
            of its images lies there, else to validation. "drop" keeps one image of each set of copies under one label,
            that of the test set before others.

    Returns:
        The source; copies under two labels are left for the checks that refuse them.
    """
    assert way in WAYS
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        if digest:
            rows_of[digest].append(row)
    copies = [rows for rows in rows_of.values() if len(rows) > 1]
    count = sum(map(len, copies)) - len(copies)
    if not copies:
        log.info("--group-copies: no two images are equal")
        return source
    example = " and ".join((source.paths or source.ids)[row] for row in copies[0][:2])
    if way == "drop":
        left_out = {row for rows in copies for row in _surplus(source, rows)}
        log.info(
            "--group-copies: %d of %s left out, such as one of %s",
            len(left_out),
            counted(count, "copy is", "copies are"),
            example,
        )
        return _of_rows(source, [row for row in range(len(source.ids)) if row not in left_out])
    grouped, moved = _grouped(source, copies)
    log.info(
        "--group-copies: %s its group, such as %s",
        counted(count, "image equals another one and shares", "images equal another one and share"),
        example,
    )
    if moved:
        log.info(
            "--group-copies: %s moved to the split of their copies, out of training first", counted(moved, "image")
        )
    return grouped


def _grouped(source: Source, copies: Sequence[Sequence[int]]) -> tuple[Source, int]:
    """Return the source with joined groups, and how many samples changed their split."""
    names = list(source.ids if source.groups is None else source.groups)
    joined_to: dict[str, str] = {}

    def name_of(name: str) -> str:
        while name in joined_to:
            name = joined_to[name]
        return name

    for rows in copies:
        together = sorted({name_of(names[row]) for row in rows})
        joined_to.update(dict.fromkeys(together[1:], together[0]))
    groups, splits = [name_of(name) for name in names], list(source.splits)
    touched = {groups[row] for rows in copies for row in rows}
    members: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        if group in touched:
            members[group].append(row)
    moved = 0
    for rows in members.values():
        if len({_side(splits[row]) for row in rows}) > 1:
            target = min((splits[row] for row in rows), key=_ORDER.index)
            moved += sum(splits[row] != target for row in rows)
            for row in rows:
                splits[row] = target
    return replace(source, groups=groups, splits=splits), moved


def _side(split: str) -> str:
    return "train" if split == "pool" else split


def _surplus(source: Source, rows: Sequence[int]) -> list[int]:
    """Return all but the first of some copies; none where they have several labels, which is no matter of copies."""
    if len({source.labels[row] for row in rows}) > 1:
        return []
    return sorted(rows, key=lambda row: (_ORDER.index(source.splits[row]), source.ids[row]))[1:]


def _of_rows(source: Source, rows: Sequence[int]) -> Source:
    """Return a source with some of its samples."""
    return replace(
        source,
        ids=[source.ids[row] for row in rows],
        labels=[source.labels[row] for row in rows],
        splits=[source.splits[row] for row in rows],
        pixels=None if source.pixels is None else source.pixels[np.array(rows, dtype=np.int64)],
        paths=None if source.paths is None else [source.paths[row] for row in rows],
        groups=None if source.groups is None else [source.groups[row] for row in rows],
    )
