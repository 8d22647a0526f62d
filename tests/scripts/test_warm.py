"""Scripts started from a process with their imports behind it: as when called alone, but at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.warm import WarmProcess, WarmStarter
from tests.processes import ROOT
from tests.smoke.runs import assert_same_weights, metrics
from ttc.run import manifest

STEPS = ("pretrain", "linear_eval", "compute_metrics")
RUN = ["pretrain.py", "--epochs", "2", "--log-every-steps", "1", "--seed", "4"]
PROBE = ["linear_eval.py", "--probes", "minority", "--probe-seeds", "2", "--bootstrap", "20"]
MEASURE = ["compute_metrics.py", "--max-samples", "60", "--peu-draws", "2"]
# What a step may load that was not loaded before: by scripts that are loaded under another name, and files of theirs.
LIGHT = ("ttc", "PIL", "encodings", "tensorboard", "torch", "pandas", "matplotlib", "sklearn", "scipy", "google")


@pytest.fixture(scope="module")
def starter() -> Iterator[WarmStarter]:
    made = WarmStarter(ROOT, STEPS)
    yield made
    made.close()


def run_warm(starter: WarmStarter, words: list[str], log: Path) -> int:
    with log.open("a") as file:
        return starter.start(words, file).wait(300)


def steps_of(folder: Path) -> list[list[str]]:
    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.pt")]
    return [[*RUN, "--output", str(folder)], [*PROBE, *checkpoint], [*MEASURE, *checkpoint]]


def without(values: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}


def test_it_does_what_the_script_called_alone_does(starter: WarmStarter, tmp_path: Path) -> None:
    for words in steps_of(tmp_path / "alone"):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for words in steps_of(tmp_path / "warm"):
        assert run_warm(starter, words, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    alone, warm = tmp_path / "alone", tmp_path / "warm"
    assert_same_weights(alone, warm)
    assert metrics(alone) == metrics(warm)
    predictions = [(run / "linear_eval" / "predictions.csv").read_bytes() for run in (alone, warm)]
    assert predictions[0] == predictions[1]
    for name in ("linear_eval/result.json", "metrics/metrics.json"):
        first, second = (json.loads((run / name).read_text()) for run in (alone, warm))
        assert without(first, "ledger") == without(second, "ledger"), name
    assert json.loads((warm / "env.json").read_text())["command"] == steps_of(warm)[0]
    assert len(starter.idle) == 1, "one process has started all steps"


def test_exit_codes_and_the_last_line_arrive(starter: WarmStarter, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run_warm(starter, ["pretrain.py", "--classes", "3", "11", "--output", str(tmp_path / "run")], log) == 1
    assert log.read_text().splitlines()[-1].startswith("error: --classes")
    assert run_warm(starter, ["pretrain.py", "--unheard-of"], log) == 2
    assert "--unheard-of" in log.read_text().splitlines()[-1]


def begin(starter: WarmStarter, folder: Path) -> WarmProcess:
    """Start a long run whose log is locked by nobody but itself, and wait until it trains."""
    file = manifest.lock(folder / "log")
    assert file is not None
    with file:
        process = starter.start(["pretrain.py", "--epochs", "20000", "--output", str(folder / "run")], file)
    give_up = time.monotonic() + 300
    while not (folder / "run" / "metrics.jsonl").exists():
        assert time.monotonic() < give_up
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    return process


def test_the_script_holds_the_lock_of_its_log_and_stops_on_request(starter: WarmStarter, tmp_path: Path) -> None:
    process = begin(starter, tmp_path)
    assert manifest.lock(tmp_path / "log") is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait(300) == 75
    assert "stopped by SIGUSR1" in (tmp_path / "log").read_text()
    file = manifest.lock(tmp_path / "log")
    assert file is not None, "the process that starts scripts holds no lock of theirs"
    file.close()


def test_a_script_and_a_starter_that_are_killed_are_told(tmp_path: Path) -> None:
    starter = WarmStarter(ROOT, ["pretrain"])
    process = begin(starter, tmp_path)
    process.send_signal(signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    process.send_signal(signal.SIGKILL)  # to nobody: the number may be another process's by now

    process = begin(starter, tmp_path)
    script = process._pid
    assert script is not None
    os.kill(process._server._process.pid, signal.SIGTERM)  # is for the script; the one that starts it stays
    os.kill(process._server._process.pid, signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    os.kill(script, signal.SIGKILL)
    assert starter.idle == []


def test_nothing_heavy_is_left_to_import(tmp_path: Path) -> None:
    program = f"""
import contextlib, runpy, sys
from scripts import warm
warm.load({STEPS!r})
before = set(sys.modules)
for words in {steps_of(tmp_path / "run")!r}:
    sys.argv = words
    with contextlib.suppress(SystemExit):
        runpy.run_path(words[0], run_name="__main__")
sys.stderr.write("\\n" + " ".join(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (tmp_path / "run" / "metrics" / "metrics.json").is_file(), done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    assert {name.split(".")[0] for name in loaded} <= set(LIGHT)
    assert len(loaded) < 40, loaded
