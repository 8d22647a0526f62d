"""Labelled images of another place, in the classes and the framing of a run: for external evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttc.datasets.checks.doubts import check_groups
from ttc.datasets.checks.leaks import check_unique_ids
from ttc.datasets.checks.listing import refuse_strange_names
from ttc.datasets.images import FileImages, TensorImages, find_bad_images, tensor_images
from ttc.datasets.pixels.decoding import PASS_SKIP
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.datasets.registry import read_source
from ttc.datasets.splits import untold
from ttc.datasets.table import Dataset, DatasetSettings, Source
from ttc.run.csv_file import read_table
from ttc.run.escape import counted
from ttc.run.npz import array_names, read_arrays, spelled

log = logging.getLogger("ttc")


@dataclass(frozen=True, eq=False)
class OtherData:
    """Labelled images that are no part of a run.

    Attributes:
        ids: of each sample, unique.
        labels: [N] int64, in the classes of the run.
        groups: of each sample, or None.
        images: as the run's network takes them.
        columns: further columns, by name, for subgroups.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    groups: list[str] | None
    images: TensorImages | FileImages
    columns: Mapping[str, list[str]]


def read_other(
    settings: DatasetSettings,
    class_names: Sequence[str],
    *,
    class_map: Mapping[str, str],
    run: DatasetSettings,
    split: str | None,
    decoding: Decoding,
    columns: Sequence[str] = (),
) -> OtherData:
    """Read another source.

    Args:
        settings: what to read; its splits are not drawn and its classes need not be two.
        class_names: of the run, in label order.
        class_map: class of the source -> class of the run, or "" to leave it out.
        run: data of the run, whose --classes and --positive-classes say what its classes hold.
        split: only samples of this split; None takes all, whatever splits the source names.
        decoding: of the run, what its network takes.
        columns: further columns of a table, or arrays.

    Raises:
        ValueError: it cannot be read, a class is none of the run's, a group seems to be in two spellings, or the
            network cannot take the images.
    """
    source = _read(settings, split, run)
    refuse_strange_names([*source.ids, *(source.paths or ())], "--data-root")
    check_unique_ids(source.ids)
    wanted = range(len(source.ids))
    if split is not None:
        wanted = [row for row in wanted if source.splits[row] == split]  # type: ignore[assignment]  # rows
    if not len(wanted):
        raise ValueError(f"--split {split}: --data-root {settings.data_root} has no such rows; leave it out for all")
    label_of = _matched(source, class_names, class_map, run)
    rows = [row for row in wanted if label_of.get(source.labels[row]) is not None]
    if dropped := len(wanted) - len(rows):
        log.info("%s left out: mapped to no class", counted(dropped, "sample is", "samples are"))
    if source.paths is not None and settings.on_bad_image == "skip":
        rows = _without_bad_images(rows, source.paths, decoding)
    labels = np.array([label_of[source.labels[row]] for row in rows], dtype=np.int64)
    if len(np.unique(labels)) < 2:
        only = f" ({class_names[labels[0]]})" if len(labels) else ""
        raise ValueError(
            f"--data-root {settings.data_root} has samples of one class only{only}; an evaluation needs both classes"
        )
    groups = None if source.groups is None else [source.groups[row] for row in rows]
    check_groups(groups, f"--data-root {settings.data_root}")
    further = _columns(settings, source, columns)
    return OtherData(
        [source.ids[row] for row in rows],
        labels,
        groups,
        images_of(source, rows, decoding, settings.data_root),
        {name: [cells[row] for row in rows] for name, cells in further.items()},
    )


def _read(settings: DatasetSettings, split: str | None, run: DatasetSettings) -> Source:
    """Read the source; where no classes are asked for, in those of the run if the labels are the same.

    Labels that form no classes by themselves, more than two, are read one by one, for `_matched` to choose from.
    """
    if split is None and settings.name in ("csv", "arrays"):
        settings = replace(settings, split_column="")
    ways = [settings]
    if settings.classes is None and settings.positive_classes is None:
        if run.classes is not None or run.positive_classes is not None:
            as_in_run = replace(settings, classes=run.classes, positive_classes=run.positive_classes)
            ways = [as_in_run, settings] if settings.name == run.name else [settings, as_in_run]
        ways.append(replace(settings, classes=()))  # --class-map says which labels count
    errors = []
    for way in ways:
        try:
            with untold():  # no split is drawn
                return read_source(way)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _matched(
    source: Source,
    class_names: Sequence[str],
    class_map: Mapping[str, str],
    run: DatasetSettings,
) -> dict[str, int | None]:
    """Return the run's class of every source label: by --class-map, by name, by what the run's own classes hold."""
    known = set(source.labels) | set(source.classes.names)
    for name, target in class_map.items():
        if name not in known:
            raise ValueError(
                f"--class-map {name}={target}: the data have the classes {', '.join(source.classes.names)}"
            )
        if target and target not in class_names:
            raise ValueError(f"--class-map {name}={target}: the run has the classes {', '.join(class_names)}")
    folded = {name.casefold(): label for label, name in enumerate(class_names)}
    members = {word: label for label, words in enumerate(run.classes or ()) for word in words}
    members |= dict.fromkeys(run.positive_classes or (), 1)
    numbers = {**{name: label for label, name in enumerate(class_names)}, "": None}
    # The run's --classes may leave out a label that --class-map names.
    matched: dict[str, int | None] = {text: numbers[target] for text, target in class_map.items()}
    for text, index in source.classes.label_of.items():
        name = source.classes.names[index]
        mapped = class_map.get(text, class_map.get(name))
        if mapped is not None:
            matched[text] = numbers[mapped]
        elif (label := folded.get(name.casefold(), members.get(text, members.get(name)))) is not None:
            matched[text] = label
        else:
            raise ValueError(_unknown(name, class_names))
    return matched


def _unknown(name: str, class_names: Sequence[str]) -> str:
    return (
        f"--data-root: the class {name!r} is none of the run's ({', '.join(class_names)}); write --class-map "
        f"'{name}=NAME', or '{name}=' to leave it out"
    )


def _without_bad_images(rows: Sequence[int], paths: Sequence[str], decoding: Decoding) -> list[int]:
    """Return the rows whose files can be decoded, and warn of the others."""
    bad = find_bad_images(FileImages([paths[row] for row in rows], decoding))
    for position, reason in bad:
        log.warning("left out, since it cannot be read: %s (%s)", paths[rows[position]], reason)
    if bad:
        log.warning("%d of %d images are left out, since they cannot be read", len(bad), len(rows))
    broken = {position for position, _ in bad}
    return [row for position, row in enumerate(rows) if position not in broken]


def images_of(source: Source, rows: Sequence[int], decoding: Decoding, place: str | None) -> TensorImages | FileImages:
    """Return images of a source as a network takes them; raise ValueError for a wrong number of channels.

    Args:
        source: the samples.
        rows: which of them.
        decoding: what the network takes.
        place: of the source, for messages.
    """
    if source.paths is not None:
        return FileImages([source.paths[row] for row in rows], decoding, PASS_SKIP)
    assert source.pixels is not None
    pixels = source.pixels[np.array(rows, dtype=np.int64)]
    colours = pixels.shape[3] if pixels.ndim == 4 else 1
    if colours not in (1, decoding.channels):
        raise ValueError(
            f"--data-root {place}: {colours} channels, but the network takes {decoding.channels}; convert them"
        )
    images = tensor_images(pixels, decoding.size)
    return TensorImages(images.data.expand(-1, decoding.channels, -1, -1))


def _columns(settings: DatasetSettings, source: Source, names: Sequence[str]) -> dict[str, list[str]]:
    """Return further columns in the order of the source's samples."""
    if not names:
        return {}
    ids, columns = subgroup_columns(settings, names)
    place = {name: row for row, name in enumerate(ids)}
    return {name: [cells[place[each]] for each in source.ids] for name, cells in columns.items()}


def subgroup_columns(settings: DatasetSettings, names: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Read columns of the table that data come from.

    Args:
        settings: of the data.
        names: of the columns.

    Returns:
        The ids of the table's samples, and the cells by column.

    Raises:
        ValueError: the data are no table, or have no such column.
    """
    from ttc.datasets.readers.csv_table import ids_of

    path = Path(settings.data_root or "")
    if settings.name == "csv":
        table = read_table(path, "--data-root", names, "--subgroup-columns names columns of the table")
        files = table.columns[settings.path_column or "path"]
        given = table.columns.get(settings.id_column or "id")
        ids = given if given and any(given) else files if settings.split_rule == 1 else ids_of(files)
        return ids, {name: table.columns[name] for name in names}
    if settings.name == "arrays":
        stored = array_names(path)
        if missing := [name for name in names if name not in stored]:
            raise ValueError(f"--subgroup-columns {missing[0]}: --data-root {path} has {', '.join(sorted(stored))}")
        cells = [[str(value) for value in array.reshape(-1).tolist()] for array in read_arrays(path, list(names))]
        name = settings.id_column or spelled(stored, "id")
        count = len(cells[0])
        ids = [f"arrays/{row:06d}" for row in range(count)]
        if name is not None:
            ids = [str(value).strip() for value in read_arrays(path, [name])[0].reshape(-1).tolist()]
        return ids, dict(zip(names, cells, strict=True))
    raise ValueError(f"--subgroup-columns is for tables (--dataset csv, arrays), not {settings.name}; leave it out")


def columns_by_row(dataset: Dataset, names: Sequence[str]) -> dict[str, list[str]]:
    """Return further columns of the table that data come from, by row of the data."""
    ids, columns = subgroup_columns(dataset.settings, names)
    place = {name: row for row, name in enumerate(ids)}
    if missing := [name for name in dataset.ids if name not in place]:
        raise ValueError(
            f"--subgroup-columns: {dataset.settings.data_root} does not list {missing[0]}; use the table of the run"
        )
    return {name: [cells[place[each]] for each in dataset.ids] for name, cells in columns.items()}
