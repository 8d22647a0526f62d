"""Turn an old pickle of labels into the CSV table that `--dataset ukbb-cardiac` reads.

    python scripts/prepare_ukbb_labels.py labels.pkl labels.csv --i-trust-this-pickle

A pickle is a program: one from a stranger can do anything. This reader refuses every object that a table of labels
does not need (dictionaries, lists, numbers, text, numpy arrays, pandas tables) and runs only when told to. The result
has the columns id and one per label; participant ids are written to that file and nowhere else.
"""

from __future__ import annotations

import csv
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc.flags.parser import Parser
from ttc.run import runtime
from ttc.run.log import log, start_logging

ALLOWED = {
    "builtins": {"dict", "list", "tuple", "set", "frozenset", "slice", "bytearray", "complex"},
    "collections": {"OrderedDict", "defaultdict"},
    "_codecs": {"encode"},
    "datetime": {"date", "datetime"},
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "pandas": {"DataFrame", "Series", "Index", "RangeIndex", "StringDtype"},
    "pandas.arrays": {"StringArray"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.series": {"Series"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.indexes.numeric": {"Int64Index", "UInt64Index", "Float64Index"},
    "pandas.core.internals.managers": {"BlockManager", "SingleBlockManager"},
    "pandas.core.internals.blocks": {"new_block"},
    "pandas._libs.internals": {"_unpickle_block", "BlockPlacement"},
    "pandas._libs.arrays": {"__pyx_unpickle_NDArrayBacked"},
    "pandas.core.arrays.string_": {"StringArray", "StringDtype"},
}
"""Module -> names that a table of labels may be made of; none of them opens a file or starts a program."""


class Refused(ValueError):
    """The pickle asks for something that is not allowed."""


class RestrictedUnpickler(pickle.Unpickler):
    """Builds the allowed objects only."""

    def find_class(self, module: str, name: str) -> object:
        """Return an allowed class or function.

        Raises:
            Refused: anything else is asked for.
        """
        # Pickles of Python 2 and protocols up to 2 call it so; the reader of the base class translates it, too.
        if name not in ALLOWED.get("builtins" if module == "__builtin__" else module, ()):
            raise Refused(f"the pickle asks for {module}.{name}, which no table of labels needs; it is refused")
        return super().find_class(module, name)


def read_pickle(file: IO[bytes]) -> object:
    """Return the object in a pickle of labels.

    Raises:
        ValueError: it is damaged, or holds something that is not allowed.
    """
    try:
        return RestrictedUnpickler(file).load()
    except Refused:
        raise
    except Exception as error:  # a damaged or hostile pickle fails in any way
        raise ValueError(f"the pickle cannot be read ({type(error).__name__})") from None


def table_of(labels: object) -> tuple[list[str], list[list[object]]]:
    """Return the columns and rows of a table of labels: id first, then one column per label.

    Args:
        labels: {id: label}, {id: {name: label}}, {name: sequence}, a pandas Series (by id) or DataFrame (with a column
            id or eid, else by its index).
    """
    import pandas

    if isinstance(labels, Mapping):
        values = list(labels.values())
        if values and all(isinstance(value, Mapping) for value in values):
            labels = pandas.DataFrame.from_dict(dict(labels), orient="index")
        elif values and all(isinstance(value, Sequence) and not isinstance(value, str) for value in values):
            labels = pandas.DataFrame(dict(labels))
        else:
            labels = pandas.Series(dict(labels), name="label", dtype=object)
    if isinstance(labels, pandas.Series):
        labels = labels.rename("label").to_frame()
    if not isinstance(labels, pandas.DataFrame):
        raise ValueError(f"the pickle holds a {type(labels).__name__}; expected a dictionary or a pandas table")
    table: pandas.DataFrame = labels
    by_name = {str(name).casefold(): name for name in table.columns}
    ids = next((by_name[name] for name in ("id", "eid") if name in by_name), None)
    table = table.reset_index(names="id") if ids is None else table.rename(columns={ids: "id"})
    columns = ["id", *(str(name) for name in table.columns if str(name) != "id")]
    table.columns = [str(name) for name in table.columns]
    return columns, [list(row) for row in table[columns].itertuples(index=False)]


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Turn an old pickle of labels into a CSV table.",
        "python scripts/prepare_ukbb_labels.py labels.pkl labels.csv --i-trust-this-pickle",
    )
    add = parser.add_argument
    add("pickle", metavar="PICKLE", help="file to read")
    add("table", metavar="TABLE.csv", help="file to write; it must not exist")
    add(
        "--i-trust-this-pickle",
        action="store_true",
        help="you know who made the pickle; without it nothing is read",
    )
    return parser


def main() -> int:
    """Read, write."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    if not args.i_trust_this_pickle:
        parser.refuse("a pickle can run programs; pass --i-trust-this-pickle if you know who made this one")
    path, table = Path(args.pickle), Path(args.table)
    if table.exists():
        raise ValueError(f"{table} exists already; remove it or name another file")
    try:
        with path.open("rb") as file:
            columns, rows = table_of(read_pickle(file))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: {reason}") from None
    with table.open("x", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    log.info("%s has %d rows and the columns %s", table, len(rows), ", ".join(columns))
    return 0


if __name__ == "__main__":
    runtime.run(main)
