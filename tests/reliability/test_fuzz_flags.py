"""Command lines nobody would type: exit code 2 or 1 and one line, never a traceback, nothing written."""

from __future__ import annotations

import importlib
import random
import resource
import string
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from tests.processes import ROOT, Running
from tests.reliability.figures import record
from tests.reliability.fuzzing import SIZES, try_inputs, verdict
from ttc.flags import data_settings, settings

if TYPE_CHECKING:
    from ttc.flags.parser import Parser

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "hubconf")
VALUES = (
    *("", "0", "1", "2", "-1", "0.5", "1e400", "-1e-400", "nan", "inf", "1_000", "0x10", "½", "1e3", "9" * 30, "007"),
    *(
        "auto",
        "never",
        "digits",
        "fashion",
        "csv",
        "imagefolder",
        "breastmnist",
        "supmin",
        "supproto",
        "cpu",
        "cuda:99",
    ),
    *("0,1", "0,1 2", ",", "0,,1", "none.pt", "/", "/dev/null", "/proc/self/mem", "..", "~", "@", "@none", "--", "-"),
    *(
        "a=b",
        "k=1",
        "k=nan",
        "=",
        "a b",
        "a\nb",
        "\t",
        "\x00",
        "\x1b[31m",
        "'",
        '"',
        "%s%n",
        "{0}",
        "$(id)",
        "üñ",
        "\udce9",
    ),
)


def parser_of(script: str) -> Parser:
    made: Parser = importlib.import_module(script).build_parser()
    return made


def flags_of(script: str) -> list[str]:
    return [
        flag for action in parser_of(script)._actions for flag in action.option_strings if flag not in ("-h", "--help")
    ]


def lines_of(script: str) -> st.SearchStrategy[list[str]]:
    """Draw command lines: flags with values that are often plausible, changed flags, stray words."""
    flag = st.sampled_from(flags_of(script))
    broken = st.one_of(flag.map(lambda text: text[:-1]), flag.map(str.upper), flag.map(lambda text: text[1:]))
    value = st.one_of(
        st.sampled_from(VALUES),
        st.sampled_from(VALUES),
        st.text(max_size=8),
        st.floats().map(str),
        st.integers().map(str),
    )
    pair = st.tuples(flag, value).map(list)
    joined = st.tuples(flag, value).map(lambda both: ["=".join(both)])
    stray = st.one_of(broken, value, flag).map(lambda word: [word])
    # Mostly pairs, so that many lines get as far as the checks behind the parser.
    return st.lists(st.one_of(pair, pair, pair, joined, stray), max_size=4).map(
        lambda parts: [word for part in parts for word in part]
    )


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_lines_are_parsed_or_refused_in_one_line(
    script: str, cases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = parser_of(script)

    def parse(words: list[str]) -> None:
        given = parser.parse(words)
        if script == "pretrain":
            settings.refuse_idle_flags(parser, given)
            data_settings.dataset_settings(given.namespace())

    def check(words: object) -> str:
        assert isinstance(words, list)
        return verdict(lambda: parse(words))

    try_inputs(f"flags of {script}", cases, lines_of(script), check)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cases", SIZES)
def test_recipes_are_read_or_refused_in_one_line(cases: int, tmp_path: Path) -> None:
    parser, recipe = parser_of("pretrain"), tmp_path / "r.args"
    pieces = st.sampled_from(
        (*flags_of("pretrain"), *VALUES, "#", "\n", " ", "\\", "@r.args", "@/", "'", "\r\n", "\x85")
    )
    text = st.lists(pieces, max_size=12).map(lambda parts: " ".join(parts).encode("utf-8", "surrogatepass"))

    def check(content: object) -> str:
        assert isinstance(content, bytes)
        recipe.write_bytes(content)
        return verdict(lambda: parser.parse([f"@{recipe}"]))

    try_inputs("recipes", cases, st.one_of(text, st.binary(max_size=40)), check)


def real_lines(count: int) -> list[list[str]]:
    """Draw command lines that parse, for whole processes: values of all flags of pretrain.py at their limits."""
    chance, parser, lines = random.Random(7), parser_of("pretrain"), []
    actions = [action for action in parser._actions if action.option_strings and action.dest not in ("help", "output")]
    while len(lines) < count:
        words = []
        for action in chance.sample(actions, chance.randint(1, 4)):
            words.append(action.option_strings[0])
            if action.nargs != 0:
                values = [str(each) for each in action.choices or (*VALUES[:20], *VALUES[30:38])]
                many = action.nargs if isinstance(action.nargs, int) else chance.randint(1, 3) if action.nargs else 1
                words += chance.choices(values, k=many)
        if any(set(word) - set(string.printable) for word in words):
            continue
        if verdict(lambda line=words: parser.parse(line)) == "refused":  # type: ignore[misc]  # the words of this turn
            continue
        lines.append(words)
    return lines


@pytest.mark.parametrize("cases", [pytest.param(6, id="short"), pytest.param(150, id="long", marks=pytest.mark.slow)])
def test_whole_processes_end_with_a_plan_or_one_line(cases: int, tmp_path: Path) -> None:
    outcomes = {"accepted": 0, "refused": 0}
    for number, words in enumerate(real_lines(cases)):
        folder = tmp_path / str(number)
        folder.mkdir()
        running = Running("pretrain", *words, "--dry-run", folder=folder)
        assert running.process.pid is not None
        resource.prlimit(running.process.pid, resource.RLIMIT_AS, (2**33, 2**33))  # some lines ask for terabytes
        done = running.wait()
        assert done.code in (0, 1, 2), f"{words}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{words}: {done.stderr}"
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.startswith(("error: ", "pretrain.py: error: "))]
        assert errors == (lines[-1:] if done.code else []), f"{words}: {done.stderr}"
        assert list(folder.iterdir()) == [], words
        outcomes["refused" if done.code else "accepted"] += 1
    if cases > 100:
        record("inputs: whole command lines", "bash scripts/test.sh --all tests/reliability", outcomes)
