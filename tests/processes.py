"""Run the scripts and other code in processes of their own, forked from one that has imported the heavy packages.

A fresh interpreter spends seconds on imports; a fork of a prepared one starts at once and behaves the same otherwise.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

HANGS = 300.0
"""Seconds after which a process is taken for one that hangs; on a loaded machine a minute passes without one."""

# The bit-for-bit comparisons need equal sums, hence equal threads, in all processes.
os.environ["OMP_NUM_THREADS"] = "1"

# No test reads what an earlier one, or the user, has left in the user's cache folder; this is deleted at the end.
_CACHE = tempfile.TemporaryDirectory(prefix="ttc-test-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *(path.stem for path in ROOT.glob("*.py")),
        "pytest",
        "sklearn.datasets",
        "sklearn.linear_model",
        "torchvision",
        "matplotlib.figure",
        "matplotlib.backends.backend_pdf",
        "torch.utils.tensorboard",
        "tqdm",
        "scipy.stats",
        "ttc.metrics.representation",
    ]
)


_WITHOUT_FIGURES = {
    "linear_eval": ("--figures", "none"),
    "finetune": ("--figures", "none"),
    "compute_metrics": ("--scatter", "none"),
}


@dataclass(frozen=True)
class Result:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


class Running:
    """A script in a process of its own."""

    def __init__(
        self, script: str, *words: object, folder: Path, env: Mapping[str, str] | None = None, umask: int | None = None
    ) -> None:
        """Start `python SCRIPT.py WORDS` in `folder`; its server's umask is not this process's, so it goes along."""
        # Figures take half of a small evaluation; tests of figures ask for them, and the last one counts.
        words = (*_WITHOUT_FIGURES.get(script, ()), *words)
        self._folder = tempfile.TemporaryDirectory(prefix="ttc-test-")
        self._streams = Path(self._folder.name)
        self.process = CONTEXT.Process(
            target=_main,
            args=(script, [str(word) for word in words], str(folder), dict(env or {}), str(self._streams), umask),
        )
        self.process.start()

    def wait(self, timeout: float = HANGS) -> Result:
        """Wait for the end; a process that does not end is killed and fails the test."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"no end within {timeout} s; stderr: {(self._streams / 'stderr').read_text()}")
        streams = ((self._streams / name).read_text() for name in ("stdout", "stderr"))
        return Result(self.process.exitcode, *streams)


def run(
    script: str, *words: object, folder: Path, env: Mapping[str, str] | None = None, umask: int | None = None
) -> Result:
    """Run a script of the project to its end."""
    return Running(script, *words, folder=folder, env=env, umask=umask).wait()


def start_ranks(size: int, script: str, *words: object, folder: Path) -> list[Running]:
    """Start a script as torchrun does, on several processes of this machine; plainly if `size` is 1."""
    port = free_port()
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        Running(
            script,
            *words,
            folder=folder,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {},
        )
        for rank in range(size)
    ]


def run_ranks(size: int, script: str, *words: object, folder: Path) -> list[Result]:
    """Run a script on several processes of this machine to its end, which must be a good one."""
    results = [each.wait() for each in start_ranks(size, script, *words, folder=folder)]
    assert [each.code for each in results] == [0] * size, results[0].stderr
    return results


def environment_of_this_python(folder: Path) -> dict[str, str]:
    """Return variables with which the shell scripts run on this interpreter, and install nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    requirements = [path.read_text() for path in sorted(ROOT.glob("requirements*.txt"))]
    (folder / ".ttc-requirements").write_text("\n".join(requirements))
    return {**os.environ, "TTC_VENV": str(folder)}


def free_port() -> str:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def call(function: Callable[..., None], *arguments: object) -> int:
    """Call a function of a test module in a process of its own; return the exit code."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(HANGS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{function.__name__} did not end within {HANGS} s")
    return process.exitcode


def _main(script: str, words: list[str], folder: str, env: dict[str, str], streams: str, umask: int | None) -> None:
    os.chdir(folder)
    if umask is not None:
        os.umask(umask)
    os.environ.update(env)
    # A child of a fork server would start a server of its own for the processes that decode images.
    multiprocessing.set_start_method("fork", force=True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(streams) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = [f"{script}.py", *words]
    from ttc.run import runtime

    runtime.run(importlib.import_module(script).main)
