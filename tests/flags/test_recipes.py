"""Recipes as editors save them and as strangers make them: read, or refused in one line and at once."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ttc.flags import recipes
from ttc.flags.parser import Parser


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def expand(*words: str) -> list[str]:
    return [word for word, _ in recipes.expand(words, Path.cwd())]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_recipes_are_read_as_editors_save_them(encoding: str, end: str) -> None:
    Path("inner.args").write_bytes(f"--classes ä{end}".encode(encoding))
    Path("r.args").write_bytes(end.join(["--epochs 5", "@inner.args", ""]).encode(encoding))
    assert expand("@r.args") == ["--epochs", "5", "--classes", "ä"]
    assert recipes.expand(["@r.args"], Path.cwd())[0] == ("--epochs", "r.args:1")


@given(some.text(alphabet="ab-@ \t\"'\\#\u00a0\u2028ä\x1f", max_size=12))
def test_lines_are_split_as_a_shell_does(line: str) -> None:
    try:
        expected = shlex.split(line, comments=True)
    except ValueError as error:
        with pytest.raises(ValueError, match=f"r.args:1: {str(error).lower()}; close the quotation"):
            recipes._split(line, "r.args:1")
    else:
        assert recipes._split(line, "r.args:1") == expected


def doubling() -> None:
    for number in range(40):
        Path(f"{number or 'r'}.args").write_text(f"@{number + 1}.args @{number + 1}.args")
    Path("40.args").write_text("# nothing")


def nested() -> None:
    for number in range(100):
        Path(f"{number or 'r'}.args").write_text(f"@{number + 1}.args")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (doubling, "more than 1,000 recipes"),
        (nested, "49.args:1: more than 50 recipes inside of each other"),
        (lambda: Path("r.args").write_text("--epochs 1\n" * 300_000), "r.args:5001: more than 10,000 words"),
        (lambda: Path("r.args").write_text("word " * 300_000), "r.args:1: more than 10,000 words"),
        (lambda: Path("r.args").write_text(" " * 5_000_000), "more than 4,194,304 bytes of recipes"),
        (lambda: os.mkfifo("r.args"), "recipe @r.args cannot be read (no regular file)"),
        (lambda: Path("r.args").symlink_to("/dev/zero"), "recipe @r.args cannot be read (no regular file)"),
        (lambda: Path("r.args").mkdir(), "recipe @r.args cannot be read (Is a directory)"),
    ],
    ids=["doubling", "nested", "lines", "one line", "large", "pipe", "device", "folder"],
)
def test_recipes_without_bounds_are_refused_at_once(
    make: object, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(make)
    make()
    parser = Parser("Test.", "python test.py")
    parser.add_argument("--epochs")
    start = time.process_time()
    with pytest.raises(SystemExit) as caught:
        parser.parse(["@r.args"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) == 1
    assert time.process_time() - start < 5


def test_long_recipes_are_read() -> None:
    Path("r.args").write_text("# a line that says something\n" * 100_000 + "--epochs 3\n" * 2_000)
    assert expand("@r.args") == ["--epochs", "3"] * 2_000
