"""Find words that are probably one word with a slip of the pen: malignat and malignant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

ALIKE, SWAPPED = 0.85, 0.8
"""Ratios of difflib from which on two words look alike: any, and those of the same letters, such as bengin, benign."""
_PREFIXES = ("a", "ab", "an", "dis", "il", "im", "in", "ir", "no", "non", "not", "un")
"""What turns a word into its opposite, which is no slip: typical and atypical."""


def look_alike(first: str, second: str) -> bool:
    """Tell whether two different words are nearly the same.

    Those whose numbers or single letters differ are not, such as stage 1 and stage 2, nor are a word and its negation.
    """
    one, other = (re.findall(r"[^\W\d_]+|\d+", word.casefold()) for word in (first, second))
    joined, other_joined = "".join(one), "".join(other)
    if not joined or not other_joined:
        return False
    if joined == other_joined:
        return True
    if [word for word in one if _is_mark(word)] != [word for word in other if _is_mark(word)]:
        return False
    short, long = sorted((joined, other_joined), key=len)
    if any(long == prefix + short for prefix in _PREFIXES):
        return False
    limit = SWAPPED if sorted(joined) == sorted(other_joined) else ALIKE
    return SequenceMatcher(None, joined, other_joined, autojunk=False).ratio() >= limit


def pairs_alike(words: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of a word and another one that look alike."""
    return [(word, other) for word in words for other in others if word != other and look_alike(word, other)]


def _is_mark(word: str) -> bool:
    return word.isdecimal() or len(word) == 1
