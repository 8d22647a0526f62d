"""One reader per kind of file: what is wrong is said with the file, the place and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ttc.evaluation.heads import load_heads, save_heads
from ttc.evaluation.predictions import read_predictions
from ttc.evaluation.probe import FittedProbe
from ttc.results import ledger_lines
from ttc.run import checkpoint, readers
from ttc.run.folder import logged_curve, truncate_jsonl

JSON = [
    ("[1,2]", r"is damaged: \[\.\.\.\] instead of \{\.\.\.\}"),
    ("null", r"is damaged: null instead of \{\.\.\.\}"),
    ("[" * 100_000, "is damaged: nested too deeply"),
    ('{"kind": NaN}', "NaN is no finite number"),
    ('{"kind": "x", "a": 1e400}', "1e400 is no finite number"),
    ('{"kind": "x", "a": 1' + "0" * 400 + "}", "has 401 digits"),
    ('{"kind": "x"', "is damaged: Expecting"),
    ("{}", ", kind, is damaged: it is missing"),
    ('{"kind": 3}', ", kind, is damaged: a whole number instead of a text"),
    ('{"kind": "x", "measures": {"a\\u001b": {"value": "1"}}}', r", measures/a\\x1b/value, .* a text instead of"),
    ('{"kind": "x", "measures": {"a": {"value": true}}}', ", measures/a/value, is damaged: true instead of"),
    ('{"kind": "x", "record": {"git": []}}', ", record/git, is damaged"),
    ('{"kind": "x", "class_names": ["a", "b"], "positive_class": 9}', ", positive_class, .* there is no class 9"),
    ('{"kind": "x", "class_names": ["a", 1]}', ", class_names, is damaged"),
]


@pytest.mark.parametrize(("text", "part"), JSON)
def test_results(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=rf"result\.json.*{part}.*; run that step again in a new folder"):
        readers.read_result(tmp_path / "result.json", tmp_path)


def test_the_positive_class_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"kind": "linear_eval", "positive_class": null}')
    with pytest.raises(ValueError, match=r"result\.json, positive_class, is damaged: null"):
        readers.read_positive_class(path)
    path.write_text('{"kind": "linear_eval", "positive_class": 0}')
    assert readers.read_positive_class(path) == 0


@pytest.mark.parametrize("text", ['["--lr"]', '{"lr": 0.1}', '{"lr": {"value": 1}}', '{"lr": {"source": "default"}}'])
def test_arguments_of_another_tool(text: str, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text(text)
    with pytest.raises(ValueError, match=r"args\.json.* is damaged: .*; run that step again"):
        readers.read_arguments(tmp_path / "args.json", tmp_path)


def test_lines_of_a_log_are_objects_with_a_step(tmp_path: Path) -> None:
    path, line = tmp_path / "metrics.jsonl", json.dumps({"step": 2, "epoch": 1, "train/loss": 0.5})
    for text, place in (("[1]", "line 2"), ('{"step": "x"}', "line 2, step".replace(", ", "/")), ("3", "line 2")):
        path.write_text(f"{line}\n{text}\n")
        for use in (lambda: logged_curve(path, "train/loss"), lambda: truncate_jsonl(path, 5)):
            with pytest.raises(ValueError, match=rf"metrics\.jsonl, {place}, is damaged"):
                use()
        assert path.read_text() == f"{line}\n{text}\n"
    path.write_text(f'{line}\n{{"step": 4, "ep')  # torn by a kill
    assert logged_curve(path, "train/loss") == [(1.0, 0.5)]


TABLES = [
    ("id,label,split\na,1,test\n", "lacks the column score"),
    ("id,label,split,score\na,1,test\n", ", line 2, has 3 cells instead of 4"),
    ("id,label,split,score\na,1,test,nan\n", ", score in row 1, is 'nan', but must be a finite number"),
    ("id,label,split,score\na,1,test,1.5\n", ", score in row 1, is 1.5, outside of 0 to 1"),
    ("id,label,split,score\na,1,test,1\nb,2,test,1\n", ", label in row 2, is 2, outside of 0 to 1"),
    ("id,label,split,score\na,one,test,1\n", ", label in row 1, is 'one', but must be a whole number"),
    ("id,label,split,score\na,1,exam,1\n", "column split, holds 'exam', which is no split"),
    ("id,label,split,score,score\na,1,test,1,1\n", "has two columns of one name"),
    ("id,label,split,score\n" + "x" * 2_000_000 + ",1,test,1\n", "line 2, is no CSV table: field larger"),
    ('id,label,split,score\n"a,1,test,1\n', "line 2, is no CSV table"),
    ("id,label,split,score_0,score_2\na,1,test,1,0\n", "lacks the column score, or score_0"),
    ("", "lacks the column id"),
]


@pytest.mark.parametrize(("text", "part"), TABLES)
def test_predictions(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"predictions\.csv,? ?{part.lstrip(' ,')}.*; evaluate the run again"):
        read_predictions(tmp_path / "predictions.csv", "all", 1)


def test_predictions_of_a_class_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("id,label,split,group,probe,score\na,1,test,,all,0.75\nb,0,test,,all,0.25\n")
    assert read_predictions(path, "all", 0).labels_N.tolist() == [0, 1]  # type: ignore[union-attr]  # they are there
    with pytest.raises(ValueError, match="has the classes 0 and 1, not 99"):
        read_predictions(path, "all", 99)


@pytest.mark.parametrize(
    ("column", "cell", "part"),
    [
        ("value", "nan", "value in row 1, is 'nan'"),
        ("value", "1e999", "value in row 1, is '1e999'"),
        ("seed", "x", "seed in row 1, is 'x', but must be a whole number"),
        ("seed", "9" * 400, "seed in row 1"),
        ("n", "-3", "n in row 1, is -3, outside of 0"),
    ],
)
def test_ledgers(column: str, cell: str, part: str, tmp_path: Path) -> None:
    """A NaN among the values would have hidden which row is the best of its column."""
    row: dict[str, object] = dict.fromkeys(ledger_lines.COLUMNS, "x") | {"seed": 0, "value": 1.0, "n": 3}
    row |= {"low": None, "high": None}
    text = ledger_lines.to_csv(ledger_lines.from_rows([row]))
    (tmp_path / "l.csv").write_text(text)
    assert len(ledger_lines.from_csv(tmp_path / "l.csv")) == 1
    header, line = text.splitlines()
    cells = line.split(",")
    cells[header.split(",").index(column)] = cell
    (tmp_path / "l.csv").write_text(f"{header}\n{','.join(cells)}\n")
    with pytest.raises(ValueError, match=rf"--from-csv .*l\.csv, {part}.*; pass a ledger that --output wrote"):
        ledger_lines.from_csv(tmp_path / "l.csv")


HEADS = [
    ("heads", None, ", heads, is damaged"),
    ("class_names", "ill", ", class_names, is damaged"),
    ("positive_class", 9, ", positive_class, is damaged: there is no class 9"),
    ("positive_class", 1.0, ", positive_class, is damaged"),
    ("heads/all/bias", None, ", all/bias, is damaged: no array of numbers"),
    ("heads/all/weight", torch.full((1, 4), float("nan")), ", all/weight, is damaged: not all numbers are finite"),
    ("heads/all/weight", torch.ones(1, 5), r", all, is damaged: .*weight \[1, 5\]"),
    ("heads/all/weight", torch.ones(3, 4), ", all, is damaged"),
    ("heads/all/scale", torch.zeros(4), ", all, is damaged"),
    ("heads/all/strength", "x", ", all/strength, is damaged"),
]


@pytest.mark.parametrize(("place", "value", "part"), HEADS)
def test_heads(place: str, value: object, part: str, tmp_path: Path) -> None:
    ones = torch.ones(4, dtype=torch.float64).numpy()
    probe = FittedProbe(ones, ones, ones[None], ones[:1], 0.1)
    save_heads(tmp_path / "heads.pt", {"all": probe}, ["healthy", "ill"], 1, encoder_sha256="0")
    assert load_heads(tmp_path / "heads.pt").heads["all"].strength == 0.1
    state = checkpoint.load(tmp_path / "heads.pt", "heads")
    *names, last = place.split("/")
    inner = state
    for name in names:
        inner = inner[name]
    inner[last] = value
    checkpoint.save(tmp_path / "heads.pt", "heads", state)
    with pytest.raises(ValueError, match=rf"--head .*heads\.pt{part}.*; run linear_eval\.py again"):
        load_heads(tmp_path / "heads.pt")
