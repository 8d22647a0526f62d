from __future__ import annotations

import csv
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest

from scripts.prepare_ukbb_labels import read_pickle, table_of
from tests.processes import run

FRAME = pandas.DataFrame({"eid": [11, 12, 13], "infarction": [0, 1, 0], "cad_broad": [0, 1, 1]})
EXPECTED = {
    "dictionary": ({11: 0, 12: 1}, ["id", "label"], [[11, 0], [12, 1]]),
    "numpy numbers": ({"a": np.int64(1), "b": np.float32(0)}, ["id", "label"], [["a", 1], ["b", 0.0]]),
    "dictionaries": ({11: {"mi": 0}, 12: {"mi": 1}}, ["id", "mi"], [[11, 0], [12, 1]]),
    "columns": ({"id": ["x", "y"], "label": [0, 1]}, ["id", "label"], [["x", 0], ["y", 1]]),
    "frame": (FRAME, ["id", "infarction", "cad_broad"], [[11, 0, 0], [12, 1, 1], [13, 0, 1]]),
    "index": (FRAME.set_index("eid")[["infarction"]], ["id", "infarction"], [[11, 0], [12, 1], [13, 0]]),
    "series": (FRAME.set_index("eid")["infarction"], ["id", "label"], [[11, 0], [12, 1], [13, 0]]),
}


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hostile",)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_what_groups_keep_in_pickles(name: str, protocol: int) -> None:
    content, columns, rows = EXPECTED[name]
    assert table_of(read_pickle(io.BytesIO(pickle.dumps(content, protocol)))) == (columns, rows)


@pytest.mark.parametrize("content", [{"a": Hostile()}, os.system, Path("x"), {"a": io.BytesIO}])
def test_other_objects_are_refused(content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="which no table of labels needs; it is refused"):
        read_pickle(io.BytesIO(pickle.dumps(content)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1})[:-3], pickle.dumps(FRAME)[:200]])
def test_damage(content: bytes) -> None:
    with pytest.raises(ValueError, match="the pickle cannot be read") as caught:
        read_pickle(io.BytesIO(content))
    assert "\n" not in str(caught.value)


def test_the_script_has_to_be_told(tmp_path: Path) -> None:
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps({"1000001": 0, "1000002": 1}))
    words = ("labels.pkl", "labels.csv")
    assert run("scripts.prepare_ukbb_labels", *words, folder=tmp_path).code == 2
    done = run("scripts.prepare_ukbb_labels", *words, "--i-trust-this-pickle", folder=tmp_path)
    assert done.code == 0, done.stderr
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["id", "label"], ["1000001", "0"], ["1000002", "1"]]
    assert "100000" not in done.stderr + done.stdout
    again = run("scripts.prepare_ukbb_labels", *words, "--i-trust-this-pickle", folder=tmp_path)
    assert (again.code, len(again.stderr.splitlines())) == (1, 1)
    assert "exists already" in again.stderr
