"""Recipes, sources of values, number types, and the frozen list of every script's flags."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from pathlib import Path

import pytest

from tests.processes import ROOT
from ttc.flags.parser import Given, Parser, real, whole
from ttc.flags.settings import refuse_idle_flags

SNAPSHOTS = ROOT / "tests" / "snapshots"


def parser() -> Parser:
    made = Parser("Test.", "python test.py")
    made.add_argument("--epochs", type=whole(0), default=3)
    made.add_argument("--lr", type=real(0, above=True), default=0.1)
    made.add_argument("--classes", nargs="+")
    made.add_argument("--margin", nargs="+", type=real(-4, 4))
    made.add_argument("--fast", action="store_true")
    return made


def parse(*words: str) -> Given:
    return parser().parse(words)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the only line on stderr of a refused command."""
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    return shown.err


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_and_command_line() -> None:
    given = parse("--epochs", "7", "--classes", "a", "b", "--fast")
    assert given.values == {"epochs": 7, "lr": 0.1, "classes": ["a", "b"], "margin": None, "fast": True}
    assert given.sources == {
        "epochs": "command line",
        "lr": "default",
        "classes": "command line",
        "margin": "default",
        "fast": "command line",
    }
    assert given.namespace().epochs == 7


def test_the_last_word_wins_wherever_it_stands() -> None:
    Path("r.args").write_text("--epochs 5 --lr 0.5")
    assert parse("@r.args", "--epochs", "6").values["epochs"] == 6
    given = parse("--epochs", "6", "@r.args", "--lr=0.25")
    assert (given.values["epochs"], given.sources["epochs"]) == (5, "r.args:1")
    assert (given.values["lr"], given.sources["lr"]) == (0.25, "command line")


def test_recipes_have_comments_and_quotes() -> None:
    Path("r.args").write_text("# all of it\n\n--epochs 5  # a few\n--classes \"a b\" 'c#d' e\\ f\n")
    given = parse("@r.args")
    assert given.values["classes"] == ["a b", "c#d", "e f"]
    assert given.sources["epochs"] == "r.args:3"
    assert given.sources["classes"] == "r.args:4"


def test_words_of_one_flag_may_span_lines() -> None:
    Path("r.args").write_text("--classes a\nb\n--epochs\n4\n")
    assert parse("@r.args").values["classes"] == ["a", "b"]
    assert parse("@r.args").sources["epochs"] == "r.args:3"


def test_recipes_name_recipes_relative_to_themselves() -> None:
    Path("a/b").mkdir(parents=True)
    Path("top.args").write_text("--epochs 1\n@a/middle.args\n")
    Path("a/middle.args").write_text("--epochs 2 @b/inner.args")
    Path("a/b/inner.args").write_text("\n--lr 0.7")
    given = parse("@top.args")
    assert (given.values["epochs"], given.values["lr"]) == (2, 0.7)
    assert (given.sources["epochs"], given.sources["lr"]) == ("middle.args:1", "inner.args:2")
    assert parse("@a/b/inner.args", "@a/b/inner.args").values["lr"] == 0.7


def test_bad_recipes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "command line: recipe @none.args cannot be read (No such file" in refusal(capsys, "@none.args")
    Path("outer.args").write_text("\n@none.args")
    assert "outer.args:2: recipe @none.args cannot be read" in refusal(capsys, "@outer.args")
    Path("a.args").write_text("--epochs 1\n@b.args")
    Path("b.args").write_text("@a.args")
    assert "b.args:1: @a.args includes itself" in refusal(capsys, "@a.args")
    Path("open.args").write_text('--classes "a b')
    assert "open.args:1: no closing quotation" in refusal(capsys, "@open.args")
    Path("binary.args").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in refusal(capsys, "@binary.args")
    assert "cannot be read" in refusal(capsys, "@")


@pytest.mark.parametrize("words", [("--epoch", "1"), ("--unknown",), ("--epochs",), ("stray",), ("--fast=yes",)])
def test_wrong_usage_is_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "(see --help)" in refusal(capsys, *words)


@pytest.mark.parametrize(
    ("flag", "text", "part"),
    [
        ("--epochs", "1.5", "'1.5' is not a whole number"),
        ("--epochs", "-1", "-1 is below 0"),
        ("--lr", "0", "0 is outside (0, inf]"),
        ("--lr", "nan", "nan is outside"),
        ("--lr", "inf", "inf is outside"),
        ("--lr", "fast", "'fast' is not a number"),
        ("--margin", "5", "5 is outside [-4, 4]"),
    ],
)
def test_numbers_are_checked(flag: str, text: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, flag, text)
    assert f"argument {flag}" in line
    assert part in line


def test_numbers_at_their_bounds() -> None:
    assert parse("--margin", "-4", "4", "-0.5").values["margin"] == [-4.0, 4.0, -0.5]
    assert parse("--lr", "1e-9").values["lr"] == 1e-9
    assert whole(1, 5)("5") == 5
    with pytest.raises(argparse.ArgumentTypeError, match="6 is above 5"):
        whole(1, 5)("6")


def test_flags_that_the_method_lacks_are_refused_on_the_command_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    import pretrain

    Path("r.args").write_text("--margin 0.5 --temperature 0.2")
    made = pretrain.build_parser()
    refuse_idle_flags(made, made.parse(["@r.args", "--method", "ce"]))
    refuse_idle_flags(made, made.parse(["--method", "supproto", "--margin", "0.5", "--temperature", "0.2"]))
    with pytest.raises(SystemExit) as caught:
        refuse_idle_flags(made, made.parse(["--method", "ce", "--temperature", "0.2"]))
    assert caught.value.code == 2
    assert "--temperature has no effect with --method ce" in capsys.readouterr().err


# The flags are a contract: users' scripts and recipes hold them.


def scripts() -> list[str]:
    """Return the scripts at the top that have a command line."""
    return sorted(path.stem for path in ROOT.glob("*.py") if "def build_parser()" in path.read_text())


def table(made: Parser) -> str:
    """Describe every flag, independently of how argparse lays out its help."""
    lines = []
    for action in made._actions:
        if action.dest == "help":
            continue
        kind = "switch" if action.nargs == 0 else f"nargs={action.nargs or 1}"
        choices = "" if action.choices is None else f" choices={','.join(map(str, action.choices))}"
        role = made.declared[action.dest].role.name.lower()
        lines.append(f"{' '.join(action.option_strings)}  {kind}{choices} default={action.default!r} role={role}")
        lines.append(f"    {action.help}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("script", scripts())
def test_flags_are_frozen(script: str) -> None:
    """After a wanted change: TTC_UPDATE_SNAPSHOTS=1 python -m pytest tests/flags/test_parser.py."""
    found, path = table(importlib.import_module(script).build_parser()), SNAPSHOTS / f"flags_{script}.txt"
    if os.environ.get("TTC_UPDATE_SNAPSHOTS"):
        path.write_text(found)
    assert path.read_text() == found


@pytest.mark.parametrize("script", scripts())
def test_every_flag_has_help_and_the_help_can_be_shown(script: str) -> None:
    made: Parser = importlib.import_module(script).build_parser()
    for action in made._actions:
        assert action.help, action.option_strings
        for flag in action.option_strings:
            assert flag == flag.lower()
            assert "_" not in flag
    text = made.format_help()
    assert "Example: python" in text
    assert not re.search(r"\(default: (None|False|[\['])", text)


def test_defaults_are_shown_as_they_are_typed() -> None:
    made = Parser("Test.", "python test.py")
    for flag, default in (
        ("--words", ["a", "b"]),
        ("--rate", 1e-4),
        ("--count", 0),
        ("--share", 0.0),
        ("--percent", "50%"),
        ("--list", []),
        ("--text", None),
        ("--switch", False),
    ):
        made.add_argument(flag, default=default, help="x", metavar="X")
    lines = [line.split() for line in made.format_help().splitlines() if line.startswith("  --")]
    assert [" ".join(line[3:]) for line in lines] == [
        "(default: a b)", "(default: 0.0001)", "(default: 0)", "(default: 0)", "(default: 50%)", "", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", sorted((ROOT / "scripts" / "recipes").glob("*.args")), ids=lambda path: path.name)
def test_recipes_of_the_project_are_understood(recipe: Path) -> None:
    import pretrain

    assert pretrain.build_parser().parse([f"@{recipe}"]).values
