"""Whole commands meet a run of a stranger: one line within ten seconds, and nothing outside is touched or shown."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ROOT, Running
from tests.reliability.figures import record
from ttc.run import checkpoint

FINISHED = ROOT / "tests" / "upgrade" / "93a57da" / "finished"
SECONDS = 10

Prepare = Callable[[Path], object]
LAST, PICTURES = "run/checkpoints/last.pt", "run/images.npz"
COLLECT = ("scripts.collect_results", "run")
REPORT = ("scripts.report", "--output", "report.html", "--figures", "training", "run")
CURVES = ("scripts.report", "--output", "report.html", "--figures", "curves", "run")
PREDICT = ("scripts.predict", "--checkpoint", LAST, "--images", PICTURES, "--output", "-")
COMPARE = ("scripts.compare", "run/linear_eval", "run/linear_eval", "--probe", "all", "--bootstrap", 100)
MEASURE = ("compute_metrics", "--checkpoint", LAST, "--peu-draws", 0, "--scatter", "none", "--output", "out")
PROBE = ("linear_eval", "--checkpoint", LAST, "--bootstrap", 0)
CARD = ("scripts.export", "--checkpoint", LAST, "--format", "card")
STATUS = ("scripts.manifest_status", "run/m.csv", "--output", "run")
LEDGER = ("scripts.collect_results", "--from-csv", "run/l.csv")


def text(name: str, content: str) -> Prepare:
    def put(run: Path) -> None:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(content)

    return put


def link(name: str, target: str) -> Prepare:
    def put(run: Path) -> None:
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(run.parent / target)

    return put


def pipe(name: str) -> Prepare:
    def put(run: Path) -> None:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return put


def heads(**changed: object) -> Prepare:
    """Change parts of heads.pt; None takes a part away."""

    def put(run: Path) -> None:
        path = run / "linear_eval" / "heads.pt"
        state = {**checkpoint.load(path, "heads"), **changed}
        state = {name: value for name, value in state.items() if value is not None}
        checkpoint.save(path, str(state.pop("kind")), state)

    return put


def result(name: str, **changed: object) -> Prepare:
    return lambda run: (run / name).write_text(json.dumps({**json.loads((run / name).read_text()), **changed}))


def scores(row: str) -> Prepare:
    return text("linear_eval/predictions.csv", f"id,label,split,probe,score\n{row}\n")


def probed(**changed: object) -> Prepare:
    return result("linear_eval/result.json", **changed)


def head_with_nan(run: Path) -> None:
    path = run / "linear_eval" / "heads.pt"
    state = checkpoint.load(path, "heads")
    state["heads"]["all"]["weight"][0, 0] = float("nan")
    checkpoint.save(path, "heads", state)


MANIFEST = text("m.csv", "name,folder,pretrain\na,a,--epochs 1\n")
WIDE = "x" * 2_000_000

CASES: dict[str, tuple[tuple[object, ...], str, tuple[Prepare, ...]]] = {
    "link in place of a lock": (MEASURE[:-2], "metrics/.lock is a link", (link("metrics/.lock", "thesis.tex"),)),
    "link in place of a folder": (PROBE, "run/linear_eval is a link", (link("linear_eval", "outside"),)),
    "link in place of the log": (REPORT, "log.txt is, or lies behind, a link", (link("log.txt", "thesis.tex"),)),
    "link in place of exports": (CARD, "run/export is a link", (link("export", "outside"),)),
    "link in place of a checkpoint": (
        MEASURE, "last.pt is, or lies behind, a link", (link("checkpoints/last.pt", "thesis.tex"),),
    ),
    "link in place of an event folder": (
        (*PROBE, "--output", "run/out"), "run/out/tb is a link", (link("out/tb", "outside"),),
    ),
    "result is a list": (COLLECT, "run/result.json is damaged", (text("result.json", "[1,2]"),)),
    "result is null": (CARD, "run/result.json is damaged", (text("result.json", "null"),)),
    "result is empty": (COLLECT, "run/result.json, kind, is damaged", (text("result.json", "{}"),)),
    "result is nested deeply": (COLLECT, "nested too deeply", (text("result.json", "[" * 200_000),)),
    "result has a number of 401 digits": (
        COLLECT, "401 digits", (text("result.json", '{"kind": "pretrain", "train/loss": 1' + "0" * 400 + "}"),),
    ),
    "result has a text for a number": (
        COLLECT, "measures/x/value, is damaged", (result("result.json", measures={"x": {"value": "1"}}),),
    ),
    "arguments are a list": (COLLECT, "run/args.json is damaged", (text("args.json", '["--lr"]'),)),
    "arguments of another tool": (COLLECT, "run/args.json, lr, is damaged", (text("args.json", '{"lr": 0.1}'),)),
    "environment of another tool": (REPORT, "run/env.json, python, is damaged", (text("env.json", '{"a": 1}'),)),
    "log lines are lists": (REPORT, "run/metrics.jsonl, line 1, is damaged", (text("metrics.jsonl", "[1]\n"),)),
    "positive class is null": (COMPARE, "positive_class, is damaged", (probed(positive_class=None),)),
    "positive class is 99": (CURVES, "there is no class 99", (probed(positive_class=99),)),
    "heads without their kind": (PREDICT, "heads.pt is of kind ''", (heads(kind=""),)),
    "heads without heads": (PREDICT, "heads.pt, heads, is damaged", (heads(heads=None),)),
    "heads of class 9": (PREDICT, "there is no class 9", (heads(positive_class=9),)),
    "heads with NaN": (PREDICT, "all/weight, is damaged: not all numbers are finite", (head_with_nan,)),
    "scores are NaN": (CURVES, "score in row 1, is 'nan'", (scores("a,1,test,all,nan"),)),
    "a row is short": (COMPARE, "line 2, has 3 cells", (scores("a,1,test"),)),
    "a field has 2 MB": (COMPARE, "field larger", (scores(f"{WIDE},1,test,all,1"),)),
    "a field of a ledger has 2 MB": (LEDGER, "field larger", (text("l.csv", f"group,run\n{WIDE},y\n"),)),
    "a field of a manifest has 2 MB": (STATUS, "field larger", (text("m.csv", f"name,folder,pretrain\n{WIDE},y,z\n"),)),
    "a record is a list": (STATUS, "cells/a.json is damaged", (MANIFEST, text("cells/a.json", "[1]"))),
    "pipe in place of arguments": (COLLECT, "run", (pipe("args.json"),)),
    "pipe in place of a checkpoint": (MEASURE, "last.pt is a pipe", (pipe("checkpoints/last.pt"),)),
    "pipe in place of a ledger": (LEDGER, "l.csv is a pipe", (pipe("l.csv"),)),
    "pipe in place of a manifest": (STATUS, "m.csv is a pipe", (pipe("m.csv"),)),
    "pipe in place of a lock": (MEASURE[:-2], "metrics/.lock is a pipe", (pipe("metrics/.lock"),)),
    "pipe in place of heads": (PREDICT, "heads.pt", (pipe("linear_eval/heads.pt"),)),
    "pipe in place of predictions": (COMPARE, "predictions.csv", (pipe("linear_eval/predictions.csv"),)),
}  # fmt: skip
"""Name -> command, part of its line, what is done to the run."""

SHORT = ("link in place of a lock", "link in place of the log", "result is nested deeply", "heads of class 9",
         "scores are NaN", "pipe in place of a checkpoint")  # fmt: skip


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "report-figures" not in path.parts:
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module", autouse=True)
def started() -> None:
    """Have the server that scripts are forked from: its own start takes as long as the imports."""
    assert Running("scripts.manifest_status", "--help", folder=ROOT).wait(300).code == 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in CASES]
)
def test_a_command_ends_in_one_line(name: str, tmp_path: Path) -> None:
    words, part, preparations = CASES[name]
    (tmp_path / "outside").mkdir()
    (tmp_path / "thesis.tex").write_text("important")
    run = tmp_path / "run"
    shutil.copytree(FINISHED, run)
    np.savez(tmp_path / PICTURES, images=np.zeros((3, 8, 8), np.uint8))
    for prepare in preparations:
        prepare(run)
    before, started = digest(tmp_path / "outside"), time.monotonic()
    done = Running(str(words[0]), *words[1:], folder=tmp_path).wait(120)
    seconds = time.monotonic() - started
    lines = done.stderr.splitlines()
    assert done.code == 1, (done.stdout, done.stderr)
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], done.stderr
    assert all("is missing" in line or "left out" in line or "positive class" in line for line in lines[:-1])
    assert part in lines[-1], lines[-1]
    assert (tmp_path / "thesis.tex").read_text() == "important"
    assert digest(tmp_path / "outside") == before
    assert not any(b"important" in path.read_bytes() for path in tmp_path.glob("*.html"))
    assert seconds < SECONDS * max(1.0, os.getloadavg()[0]), f"{seconds:.0f} s"
    if os.environ.get("TTC_FIGURES"):
        command = "bash scripts/test.sh --all tests/reliability/test_strangers.py"
        record(f"strangers: {name}", command, {"command": words[0], "seconds": round(seconds, 1)})
