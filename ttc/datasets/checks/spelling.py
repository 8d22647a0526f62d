"""Find labels and groups that look like one thing in two spellings: 1 and 1.0, malignant and Malignant."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from ttc.datasets.table import DatasetSettings, Source
from ttc.run.escape import counted

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?|[+-]?\.\d+")


def normal_form(text: str) -> str:
    """Return what spellings of one thing have in common: no case, no accents' encoding, single spaces, numbers as such.

    An exponent makes no number: codes such as 12e4 are words.
    """
    folded = " ".join(re.split(r"[\s_-]+", unicodedata.normalize("NFKC", text).casefold().strip()))
    if _NUMBER.fullmatch(text.strip()):
        return f"{float(text):.17g}" if abs(float(text)) < 2**53 else text.strip().lstrip("+0")
    return folded


def spellings(values: Sequence[str]) -> list[list[str]]:
    """Return the values that look alike, each list the commonest first.

    Args:
        values: One per sample.
    """
    counts = Counter(values)
    alike: dict[str, list[str]] = defaultdict(list)
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        alike[normal_form(value)].append(value)
    return [forms for forms in alike.values() if len(forms) > 1]


def two_spellings(settings: DatasetSettings, source: Source) -> list[str]:
    """Say which labels and groups are probably one in two spellings and would be told apart; one line each.

    Labels are left alone where all spellings are in one class, or the flags name every one of them.
    """
    words = (*(settings.classes or ()), settings.positive_classes or ())
    named = {label for group in words for label in (*group, ",".join(group))}
    classes, lines = source.classes.label_of, []
    for forms in spellings(source.labels):
        if set(forms) <= named or (set(forms) <= classes.keys() and len({classes[form] for form in forms}) == 1):
            continue
        remedy = "write it in one way, or name every spelling in --classes"
        lines.append(f"labels {_counted(forms, source.labels)} look like one label in two spellings; {remedy}")
    return lines + group_spellings(source.groups or [])


def group_spellings(groups: Sequence[str]) -> list[str]:
    """Say which groups are probably one in two spellings; one line each."""
    return [
        f"groups {_counted(forms, groups)} look like one group in two spellings; write it in one way"
        for forms in spellings(groups)
    ]


def _counted(forms: Sequence[str], values: Sequence[str]) -> str:
    counts = Counter(values)
    return " and ".join(f"{form!r} ({counted(counts[form], 'image')})" for form in forms)
