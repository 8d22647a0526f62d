"""pretrain.py --compile: the network runs as C++ code that torch writes, and does the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.processes import Running, run
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
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_without_a_compiler_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = run("pretrain", *SHORT, "--compile", folder=tmp_path, env={"CXX": str(tmp_path / "g++")})
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith("error: --compile found no C++ compiler")
    assert "Traceback" not in done.stderr
