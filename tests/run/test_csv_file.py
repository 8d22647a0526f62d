from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc.run.csv_file import read_table

PLAIN = [["path", "label", "note"], ["a.png", "ill", "x, y"], ["b.png", "well", ""], ["c.png", "ill", 'say "no"']]


def write(path: Path, rows: list[list[str]], encoding: str = "utf-8", end: str = "\n") -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: [[f" {cell}\t" for cell in row] for row in rows],  # spaces
        lambda rows: [row[::-1] for row in rows],  # order of the columns
        lambda rows: [[*row, ""] for row in rows],  # an empty column
        lambda rows: [*rows[:2], [], ["", "", ""], *rows[2:], ["", " ", ""]],  # blank lines
    ],
)
def test_harmless_differences_are_none(change: object, end: str, encoding: str, tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", change(PLAIN), encoding, end), "--data-root", ["path", "label"])  # type: ignore[operator]
    assert table.columns == {name: [row[k] for row in PLAIN[1:]] for k, name in enumerate(PLAIN[0])}
    assert table.lines == sorted(table.lines)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["path", "label", "label"], ["a", "0", "1"]], "two columns are called 'label'; rename or remove one"),
        ([["path", " label", "label "], ["a", "0", "1"]], "two columns are called 'label'"),
        ([["path", "label", "", ""], ["a", "0", "1", "2"]], "two columns are called ''"),
        ([["path", "label"], ["a", "0"], ["b"]], "line 3: not 2 cells as in the first line but 1; complete"),
        ([["path", "label"], ["a", "0"], ["b", "1", "2"]], "line 3: not 2 cells .* but 3; quote cells"),
        ([["path", "Label"], ["a", "0"]], "no column 'label' among path, Label; rename 'Label' to 'label'"),
        ([["path;label"], ["a;0"]], "no column 'path' among path;label; the cells are separated by semicolons"),
        ([["path\tlabel"], ["a\t0"]], "no column 'path' .*separated by tabs"),
        ([], "no column 'path' among none; name the columns"),
    ],
)
def test_faults_are_named_by_line(rows: list[list[str]], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path, "--data-root", ["path", "label"])
    assert str(caught.value).startswith(f"--data-root {path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na,größe\n".encode("latin-1"), "line 2 is no UTF-8 text"),
        ("path,label\na,b\n".encode("utf-16"), "is no UTF-8 CSV file but UTF-16"),
        (b"PK\x03\x04\0\0", "but an Excel workbook"),
        (b"path,label\na,b\0c\n", "line 2 holds a zero byte"),
        (b'path,label\na,"b\nc,d\n', "is no UTF-8 CSV file"),
        (b'path,label\na,"b"c\n', "line 2 is no UTF-8 CSV file"),
        (b"path,label\na," + b"x" * 200_000, "field larger than"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(tmp_path / "t.csv", "--data-root", ["path"])
    assert "\n" not in str(caught.value)


def test_an_empty_cell_is_named_where_one_is_needed(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", PLAIN), "--images", ["path"])
    assert table.filled("path") == ["a.png", "b.png", "c.png"]
    with pytest.raises(ValueError, match=r"--images .*t.csv line 3: column 'note' is empty; fill it in"):
        table.filled("note")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60) | st.text(alphabet='path,label\n"\r;\t 01\ufeff', max_size=80).map(str.encode))
def test_any_file_is_a_table_or_one_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = read_table(path, "--data-root", ["path"])
    except ValueError as error:
        table, text = None, str(error)
    if table is None:
        assert text.startswith("--data-root")
        assert "\n" not in text
    else:
        assert {len(cells) for cells in table.columns.values()} == {len(table.lines)}
