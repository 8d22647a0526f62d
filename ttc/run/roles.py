"""What a flag's value says about a run: whether another value makes another run, or another result.

Every flag names its role where it is declared, in `ttc.flags`, which hands all of them to `declare` when it is
imported. What compares runs reads them here: the run folder, the digests of the ledger, tables, reports and manifests.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class Role(enum.Enum):
    """What another value of a flag makes of a run. Each member makes more of a difference than the one before it."""

    WHERE = "the same run: where, on what device and how often it reads, writes or stops"
    RUN = "another run, a repetition or a part of the same: the seed, the file evaluated, which numbers are reported"
    PART = "written I/K: another I is another part of the same experiment, like RUN; another K is another RESULT"
    RESULT = "another result; all rows of a table must share the value"
    COMPARED = "another result; the rows of a table may differ in it, and are named after it"
    ADDED = "like COMPARED, but 0 adds nothing to the method: a row is not named after a 0"
    GROUPED = "another result on other data: another group of rows"


@dataclass(frozen=True)
class Declared:
    """What was declared with a flag.

    Attributes:
        role: what another value makes of a run.
        before: the value that a run has which was written before the flag existed.
        silent: whether digests leave that value out, as they do with None and False. A flag that was in the very first
            digests is in all of them.
    """

    role: Role
    before: object = None
    silent: bool = False


_FLAGS: dict[str, Declared] = {}
_RECORDED = {name: Declared(Role.RUN) for name in ("checkpoint_sha256", "input_sha256")}
"""What scripts add to the values of their flags: the content of the file that a flag names."""
_UNKNOWN = Declared(Role.RESULT)
"""A flag of a later version, or of an earlier one that is gone, counts."""


def declare(flags: Mapping[str, Declared]) -> None:
    """Make the roles of all flags known; `ttc.flags` does."""
    _FLAGS.update(flags)


def declared(name: str) -> Declared:
    """Return what was declared with a flag, named as in `args.json`."""
    assert _FLAGS, "import ttc.flags first: the roles are declared there"
    return _FLAGS.get(name) or _RECORDED.get(name, _UNKNOWN)


def names(*roles: Role) -> frozenset[str]:
    """Return the flags with one of these roles, named as in `args.json`."""
    assert _FLAGS, "import ttc.flags first: the roles are declared there"
    return frozenset(name for name, flag in {**_RECORDED, **_FLAGS}.items() if flag.role in roles)


def makes_run(name: str) -> bool:
    """Tell whether another value of the flag makes another run."""
    return declared(name).role is not Role.WHERE


def words_of_run(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, recipes expanded, without the flags that make no other run and their values.

    A flag reaches up to the next word that begins with two hyphens, since values that do so are written FLAG=VALUE.
    """
    counts, words_that_count = True, []
    for word in words:
        if word.startswith("--"):
            counts = makes_run(word[2:].split("=", 1)[0].replace("-", "_"))
        if counts:
            words_that_count.append(word)
    return words_that_count


def makes_result(name: str) -> bool:
    """Tell whether another value of the flag makes another result, apart from chance."""
    return declared(name).role not in (Role.WHERE, Role.RUN)


def value_of(name: str, values: Mapping[str, object]) -> object:
    """Return the value of a flag in a run, also if the run was written before the flag existed."""
    return values[name] if name in values else declared(name).before


def same(name: str, values: Mapping[str, object], others: Mapping[str, object]) -> bool:
    """Tell whether two runs have the same value of a flag; the two ways of not using a flag, None and False, are one.

    Args:
        name: as in `args.json`.
        values: flag -> value of the first run.
        others: of the second.
    """
    first, second = (json.loads(json.dumps(value_of(name, run))) for run in (values, others))
    return bool(first == second) or (is_off(first) and is_off(second))


def of_result(name: str, value: object) -> object:
    """Return what of a flag's value makes another result: of part I of K, K alone."""
    part = declared(name).role is Role.PART and not is_off(value)
    return str(value).partition("/")[2] if part else value


def same_result(name: str, values: Mapping[str, object], others: Mapping[str, object]) -> bool:
    """Tell whether two runs, apart from chance, have the same result as far as a flag decides about it; see `same`."""
    first, second = ({name: of_result(name, value_of(name, run))} for run in (values, others))
    return not makes_result(name) or same(name, first, second)


def is_off(value: object) -> bool:
    """Tell whether a flag was not used."""
    return value is None or value is False


def in_digest(name: str, value: object) -> bool:
    """Tell whether a digest of a run's flags holds this one: not where it is unused, so that earlier results with the
    same settings stay comparable when a flag is added.
    """
    flag = declared(name)
    return makes_result(name) and not is_off(value) and not (flag.silent and value == flag.before)
