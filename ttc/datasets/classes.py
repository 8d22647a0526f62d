"""Map source labels (digits, folder names, disease codes) to classes 0..K-1."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ttc.datasets.checks.alike import pairs_alike
from ttc.run.escape import counted

Groups = Sequence[Sequence[str]]
MOST_COMPARED = 50
"""Labels that are searched for slips; more are codes or species."""


@dataclass(frozen=True)
class ClassGroups:
    """The classes of a task.

    Args:
        names: Name per class, in label order.
        label_of: Class index per source label; labels that are absent are dropped from the data.
    """

    names: list[str]
    label_of: Mapping[str, int]


def group_labels(
    labels: Mapping[str, str],
    classes: Groups | None,
    positive_classes: Sequence[str] | None,
    default: Groups | None = None,
) -> ClassGroups:
    """Resolve `--classes` or `--positive-classes` against the labels of a source.

    Args:
        labels: Name of every source label, in order; equal to the label where there is no name.
        classes: Source labels or names per class, in label order; an empty sequence makes every label a class.
        positive_classes: Labels or names that form class 1; all others form class 0.
        default: Groups to use when neither is given; None means each of two labels is a class of its own.

    Returns:
        The classes.

    Raises:
        ValueError: For an unknown or repeated label, fewer than two classes, or a choice that is missing.
    """
    if classes is not None and positive_classes is not None:
        raise ValueError("--classes and --positive-classes contradict each other; give one of them")
    if positive_classes is not None:
        return _one_against_rest(labels, positive_classes)
    if classes is not None and not classes:
        classes = [[label] for label in labels]
    if classes is None and default is None:
        if len(labels) != 2:
            remedy = "choose groups with --classes or --positive-classes" if len(labels) > 2 else "two are needed"
            raise ValueError(
                f"the data has {counted(len(labels), 'label')} ({describe_labels(labels)}); {remedy}{_slips(labels)}"
            )
        default = [[label] for label in labels]
    flag = "--classes " + " ".join(",".join(group) for group in classes or default or [])
    groups = [find_labels(group, labels, flag) for group in classes or default or []]
    if len(groups) < 2:
        raise ValueError(f"{flag} names {len(groups)} class; give one argument per class, at least two")
    label_of: dict[str, int] = {}
    for index, group in enumerate(groups):
        if not group:
            raise ValueError(f"{flag}: class {index} is empty; name at least one label for it")
        for label in group:
            if label in label_of:
                raise ValueError(f"{flag} names label {label!r} twice; each label belongs to one class")
            label_of[label] = index
    return ClassGroups([join_names(group, labels) for group in groups], label_of)


def split_words(text: str) -> tuple[str, ...]:
    """Split labels at their commas; quotation marks keep a label with a comma whole: 'a,"b, c"'."""
    return tuple(next(csv.reader([text], skipinitialspace=True), [""]))


def find_labels(wanted: Sequence[str], labels: Mapping[str, str], flag: str) -> list[str]:
    """Return the source labels that words denote, which were split at commas that may belong to one label."""
    for word in (",".join(wanted), ", ".join(wanted)):
        if len(wanted) > 1 and word in labels:
            if all(part.strip() in labels for part in wanted):
                raise ValueError(
                    f"{flag}: {word!r} is a label and a list of labels; quote the labels, as in '\"a, b\",c'"
                )
            return [word]
    return [find_label(label, labels, flag) for label in wanted]


def find_label(wanted: str, labels: Mapping[str, str], flag: str) -> str:
    """Return the source label that `wanted` denotes, by label or (ignoring case) by name."""
    if wanted in labels:
        return wanted
    named = [label for label, name in labels.items() if name.casefold() == wanted.strip().casefold()]
    if len(named) == 1:
        return named[0]
    raise ValueError(f"{flag}: unknown label {wanted!r}; the data has {describe_labels(labels)}")


def join_names(group: Sequence[str], labels: Mapping[str, str]) -> str:
    """Name a class after its labels: "0,1,2", or article names joined by "/"."""
    named = any(labels[label] != label for label in group)
    return ("/" if named else ",").join(labels[label] for label in group)


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Sort by value when every label is a number, else as text: "2" before "10", "B" before "a"."""
    try:
        values = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if not all(map(math.isfinite, values.values())):
        return sorted(labels)
    return sorted(labels, key=lambda label: (values[label], label))


def describe_labels(labels: Mapping[str, str], limit: int = 12) -> str:
    """List labels with their names for a message, at most `limit` of them."""
    named = [label if name == label else f"{label} ({name})" for label, name in list(labels.items())[:limit]]
    return ", ".join(named) + (f", ... {len(labels) - limit} more" if len(labels) > limit else "")


def _slips(labels: Mapping[str, str]) -> str:
    """Name two labels that look alike, for the end of a message."""
    words = list(labels)[:MOST_COMPARED]
    for place, word in enumerate(words):
        if pairs := pairs_alike([word], words[place + 1 :]):
            return f"; {' and '.join(pairs[0])} look alike: correct the data if they are one class"
    return ""


def _one_against_rest(labels: Mapping[str, str], positive_classes: Sequence[str]) -> ClassGroups:
    flag = "--positive-classes " + ",".join(positive_classes)
    positive = list(dict.fromkeys(find_labels(positive_classes, labels, flag)))
    if not positive or len(positive) == len(labels):
        raise ValueError(f"{flag} leaves one of the two classes empty; the data has {describe_labels(labels)}")
    name = join_names(positive, labels)
    return ClassGroups([f"not {name}", name], {label: int(label in positive) for label in labels})
