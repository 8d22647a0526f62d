"""pretrain.py --compile: the network runs as C++ code that torch writes, and does the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Running
from tests.smoke.runs import metrics

SHORT = ("--epochs", 2, "--batch-size", 64, "--log-every-steps", 1, "--metrics-every-epochs", 0, "--lr", 0.01)

pytestmark = pytest.mark.slow


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("words", [(), ("--micro-batch-size", 16)], ids=["whole batches", "micro-batches"])
def test_compiled_steps_have_the_losses_of_plain_ones(words: tuple[object, ...], tmp_path: Path) -> None:
    found = []
    for name, flags in (("plain", ()), ("compiled", ("--compile",))):
        # Compiling takes minutes of a busy machine.
        done = Running("pretrain", *SHORT, *words, *flags, "--output", name, folder=tmp_path).wait(timeout=900)
        assert done.code == 0, done.stderr
        found.append([line["train/loss"] for line in metrics(tmp_path / name)])
    assert len(found[0]) == 18
    # The same up to rounding, which training doubles or triples in each step: six steps can be compared closely.
    assert found[1][:6] == pytest.approx(found[0][:6], rel=1e-5)
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_without_a_compiler_one_line_says_what_to_do(tmp_path: Path) -> None:
    # A process of its own, which reads CXX as it imports the compiler, and without the code that earlier ones compiled.
    env = {**os.environ, "CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "pretrain.py"), *map(str, SHORT), "--compile"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --compile found no C++ compiler")
    assert "Traceback" not in done.stderr
