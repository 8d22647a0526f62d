"""Scripts started from a fork server with their imports behind them: as when called alone, but at once.

What starts scripts is an interpreter of its own here, as it is for users: the fork server of the tests is another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from scripts import warm
from tests.processes import ROOT
from tests.smoke.runs import assert_same_weights, metrics
from ttc.run import manifest

STEPS = ("pretrain", "linear_eval", "compute_metrics")
RUN = ["pretrain.py", "--epochs", "2", "--log-every-steps", "1", "--seed", "4"]
PROBE = ["linear_eval.py", "--probes", "minority", "--probe-seeds", "2", "--bootstrap", "20", "--floor", "none"]
MEASURE = ["compute_metrics.py", "--max-samples", "60", "--peu-draws", "2"]
# What a step may load that was not loaded before: by scripts that are loaded under another name, and files of theirs.
LIGHT = ("ttc", "PIL", "encodings", "tensorboard", "torch", "pandas", "matplotlib", "sklearn", "scipy", "google")


def call(case: str, folder: Path) -> None:
    """Run a function of this module in an interpreter of its own; it must end well."""
    program = f"import pathlib; from tests.scripts import test_warm as t; t.{case}(pathlib.Path({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_warm(words: list[str], log: Path) -> int:
    with log.open("a") as file:
        return warm.WarmProcess(words, file).wait(300)


def steps_of(folder: Path) -> list[list[str]]:
    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.pt")]
    return [[*RUN, "--output", str(folder)], [*PROBE, *checkpoint], [*MEASURE, *checkpoint]]


def without(values: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}


def run_all_steps(folder: Path) -> None:
    warm.prepare(STEPS, [RUN[1:], ["--unheard-of"]])
    for words in steps_of(folder / "warm"):
        assert run_warm(words, folder / "log") == 0, (folder / "log").read_text()
    assert run_warm(["pretrain.py", "--classes", "3", "11", "--output", str(folder / "run")], folder / "bad") == 1
    assert (folder / "bad").read_text().splitlines()[-1].startswith("error: --classes")
    assert run_warm(["pretrain.py", "--unheard-of"], folder / "bad") == 2
    assert "--unheard-of" in (folder / "bad").read_text().splitlines()[-1]


@pytest.mark.slow
def test_it_does_what_the_script_called_alone_does(tmp_path: Path) -> None:
    for words in steps_of(tmp_path / "alone"):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    call("run_all_steps", tmp_path)
    alone, forked = tmp_path / "alone", tmp_path / "warm"
    assert_same_weights(alone, forked)
    assert metrics(alone) == metrics(forked)
    predictions = [(run / "linear_eval" / "predictions.csv").read_bytes() for run in (alone, forked)]
    assert predictions[0] == predictions[1]
    for name in ("linear_eval/result.json", "metrics/metrics.json"):
        first, second = (json.loads((run / name).read_text()) for run in (alone, forked))
        assert without(first, "ledger") == without(second, "ledger"), name
    assert json.loads((forked / "env.json").read_text())["command"] == steps_of(forked)[0]
    sizes = [sorted(file.stat().st_size for file in run.rglob("events.out*")) for run in (alone, forked)]
    assert sizes[0], "there is a TensorBoard log"
    assert [round(size, -2) for size in sizes[0]] == [round(size, -2) for size in sizes[1]], "all of it was written"


def begin(folder: Path) -> warm.WarmProcess:
    """Start a long run whose log is locked by nobody but itself, and wait until it trains."""
    file = manifest.lock(folder / "log")
    assert file is not None
    with file:
        process = warm.WarmProcess(["pretrain.py", "--epochs", "20000", "--output", str(folder / "run")], file)
    give_up = time.monotonic() + 300
    while not (folder / "run" / "metrics.jsonl").exists():
        assert time.monotonic() < give_up
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    return process


def stop_and_kill(folder: Path) -> None:
    warm.prepare(["pretrain"])
    process = begin(folder)
    server, script = forkserver._forkserver._forkserver_pid, process._process.pid
    assert server is not None
    assert script is not None
    assert manifest.lock(folder / "log") is None, "the script holds the lock"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(server, number)  # is for the script; the one that starts it stays
    process.send_signal(signal.SIGUSR1)
    assert process.wait(300) == 75
    assert "stopped by SIGUSR1" in (folder / "log").read_text()
    file = manifest.lock(folder / "log")
    assert file is not None, "the process that starts scripts holds no lock of theirs"
    file.close()

    (folder / "run" / "metrics.jsonl").rename(folder / "run" / "old")
    process = begin(folder)
    assert forkserver._forkserver._forkserver_pid == server, "one process has started all scripts"
    process.send_signal(signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    process.send_signal(signal.SIGKILL)  # to nobody: the number may be another process's by now

    (folder / "run" / "metrics.jsonl").rename(folder / "run" / "older")
    process = begin(folder)
    script = process._process.pid
    assert script is not None
    os.kill(server, signal.SIGKILL)
    assert process.wait(300) == 255
    os.kill(script, signal.SIGKILL)


@pytest.mark.long
def test_signals_and_locks_are_the_scripts(tmp_path: Path) -> None:
    call("stop_and_kill", tmp_path)


def start_and_leave(folder: Path) -> None:
    warm.prepare([])  # with or without imports, it ends alike
    assert run_warm(["pretrain.py", "--unheard-of"], folder / "log") == 2
    (folder / "server").write_text(str(forkserver._forkserver._forkserver_pid))


@pytest.mark.long
def test_the_server_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    call("start_and_leave", tmp_path)
    place = Path("/proc") / (tmp_path / "server").read_text()
    give_up = time.monotonic() + 300
    while place.exists() and (place / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.slow
def test_nothing_heavy_is_left_to_import(tmp_path: Path) -> None:
    program = f"""
import contextlib, importlib, runpy, sys
from scripts import warm
for name in warm.preloaded({STEPS!r}):
    importlib.import_module(name)
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
