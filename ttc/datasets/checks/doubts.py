"""What is doubtful about data that can be read: patients whom nobody named, unknown ones, slips in labels."""

from __future__ import annotations

import logging
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from ttc import distributed
from ttc.datasets.checks.alike import pairs_alike
from ttc.datasets.checks.spelling import group_spellings, normal_form
from ttc.datasets.table import DatasetSettings, Source
from ttc.run.escape import counted

log = logging.getLogger("ttc")

_UNITS = (
    "patient", "subject", "participant", "person", "individual", "mrn", "volunteer", "donor", "animal", "specimen",
    "camera", "cameratrap", "cam", "trap", "device", "scanner", "sensor", "station", "site", "hospital", "clinic",
    "centre", "center", "institution", "institute", "facility", "location", "place", "plot", "farm", "household",
)  # fmt: skip
"""What several images may be of, in the order in which one of them is advised: people before places."""
_UNITS_BY_ID = ("case", "lesion", "study", "exam", "visit", "encounter", "accession", "sequence")
"""The same, but only with a suffix: a column `case` may be the label."""
_SUFFIXES = ("id", "ids", "no", "nr", "num", "number", "name", "code", "key", "uid", "identifier")
_UNKNOWN = ("nan", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "unknown", "unk", "missing", "?", "-", "--")
_OWN = ("csv", "imagefolder", "arrays")
_SHOWN = 8
"""Labels that one line names."""
_MOST_PAIRS = 5000
"""Of labels that are compared; beyond it they are codes or species."""


def identifies(column: str) -> bool:
    """Tell whether the name of a column says that its cells are people, animals, devices or places."""
    return _rank(column) is not None


def _rank(column: str) -> int | None:
    name, suffixed = re.sub(r"[\W\d_]+", "", column).casefold(), False  # Patient ID, patient_id and patientId are one
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            name, suffixed = name.removesuffix(suffix), True
            break
    units = [*_UNITS, *(_UNITS_BY_ID if suffixed else ())]
    return next((units.index(each) for each in (name, name.removesuffix("s")) if each in units), None)


def unnamed_groups(columns: Mapping[str, Sequence[str]], what: str) -> list[str]:
    """Say which column tells whose the images are, though it is not used; one line or none.

    Args:
        columns: name -> cells of those that are not used.
        what: "column" or "array".
    """
    ranks = {name: rank for name in columns if (rank := _rank(name)) is not None}
    for name in sorted(ranks, key=lambda name: ranks[name]):
        cells = columns[name]
        values = len(set(cells) - {""})
        if 2 <= values < len(cells):
            return [
                f"{what} `{name}` has {values} values for {len(cells)} rows; images of one may be in training and "
                f"test; name it with --group-column {shlex.quote(name)}"
            ]
    return []


def unknown_groups(groups: Sequence[str] | None) -> list[str]:
    """Say which groups are called unknown and yet count as one patient; one line or none."""
    counts = Counter(group for group in groups or () if group.strip().casefold() in _UNKNOWN)
    repeated = {name: count for name, count in counts.items() if count > 1}
    if not repeated:
        return []
    names = " or ".join(map(repr, repeated))
    return [
        f"{sum(repeated.values())} images are of a group called {names}, which seems to mean unknown but counts "
        "as one patient; give each such image a group of its own, or drop these rows"
    ]


def check_groups(groups: Sequence[str] | None, place: str) -> None:
    """Look at the groups of new samples as at those of training, and log which are called unknown.

    Args:
        groups: of the samples, or None.
        place: where they come from, for messages: "--images FILE".

    Raises:
        ValueError: a group seems to be in two spellings and would count as two.
    """
    if lines := group_spellings(groups or ()):
        raise ValueError(f"{place}: {lines[0]}")
    for line in unknown_groups(groups):
        log.warning("%s: %s", place, line)


def told_about(settings: DatasetSettings, source: Source) -> list[str]:
    """Say which labels are merged or left out, with their counts, for the log."""
    merged, left_out, _ = _sides(settings, source)
    lines = [f"class {source.classes.names[0]!r} holds the labels {_listed(merged)}"] if len(merged) > 1 else []
    if left_out:
        lines.append(f"--classes leaves out {counted(sum(left_out.values()), 'image')}: {_listed(left_out)}")
    return lines


def doubts_about(settings: DatasetSettings, source: Source) -> list[str]:
    """Say what a user should look at before anything is trained; one line each, with the remedy."""
    merged, left_out, named = _sides(settings, source)
    slips = []
    for labels, fate in ((merged, f"is in class {source.classes.names[0]!r}"), (left_out, "is left out by --classes")):
        pairs = pairs_alike(list(labels), named) if len(labels) * len(named) <= _MOST_PAIRS else []
        slips += [
            f"label {label!r} ({counted(labels[label], 'image')}) {fate} and looks like {other!r}; correct the data if "
            "they are one class"
            for label, other in pairs
            if normal_form(label) != normal_form(other)  # told as two spellings
        ]
    return [*source.doubts, *unknown_groups(source.groups), *slips]


def tell_doubts(settings: DatasetSettings, source: Source) -> None:
    """Log what the functions above say, on the first rank."""
    if distributed.rank() == 0:
        for line in told_about(settings, source):
            log.info("%s", line)
        for line in doubts_about(settings, source):
            log.warning("%s", line)


def _sides(settings: DatasetSettings, source: Source) -> tuple[Counter[str], Counter[str], list[str]]:
    """Return the labels of "not X" and those that --classes leaves out, with counts, and the labels that are named."""
    merged, left_out, class_of = Counter[str](), Counter[str](), source.classes.label_of
    if settings.name not in _OWN or (settings.classes is None and settings.positive_classes is None):
        return merged, left_out, []
    for label, count in Counter(source.labels).items():
        if label not in class_of:
            left_out[label] = count
        elif settings.positive_classes is not None and class_of[label] == 0:
            merged[label] = count
    return merged, left_out, [label for label in class_of if label not in merged]


def _listed(labels: Counter[str]) -> str:
    more = len(labels) - _SHOWN
    names = [f"{label} ({count})" for label, count in labels.most_common(_SHOWN)]
    return ", ".join([*names, *([f"{more} more"] if more > 0 else [])])
