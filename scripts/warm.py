"""Start scripts that have their imports behind them: a fork server imports once and forks itself for each script.

A fresh interpreter spends seconds on imports before a script begins, a fifth of a small run. A fork has them at once
and is the same otherwise: the script has its process for itself. The server ends when this process and the last of its
scripts have ended.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from multiprocessing import connection, forkserver, reduction, resource_tracker
from pathlib import Path
from typing import IO, Any

from ttc.run import runtime

_TENSORBOARD = "torch.utils.tensorboard"
_PROBES = (_TENSORBOARD, "pandas", "scipy.stats", "sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection")
IMPORTED_LATER = {
    "pretrain": ("torch._dynamo", _TENSORBOARD),
    "linear_eval": _PROBES,
    "finetune": ("torch._dynamo", *_PROBES),
    "compute_metrics": ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
}
"""Script -> what it imports only where it needs it, which is nearly always."""

TRAININGS = "TTC_TRAININGS"
"""Tells the server for which trainings to prepare data: lists of words, as JSON."""
_MOST_LETTERS = 100_000
"""Linux gives a variable 128 KiB; without their data prepared scripts prepare it themselves."""

_BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_CONTEXT = multiprocessing.get_context("forkserver")
# A start looks at all processes, so that two threads could both read, and one of them miss, the end of a third's.
_LOCK = threading.Lock()


class WarmProcess:
    """A script that runs, without standard input and output; has what a runner needs of subprocess.Popen."""

    def __init__(self, words: Sequence[str], stderr: IO[str]) -> None:
        """Start a script; `prepare` has been called.

        Args:
            words: the script's file and what follows it.
            stderr: gets the script's standard error; the script holds its lock, as with subprocess.Popen.
        """
        self._process = _CONTEXT.Process(target=_run, args=(list(words), _HandedOver(stderr)))
        with _LOCK:
            _start_server()
            try:
                self._process.start()
            except EOFError:
                raise ChildProcessError("the process that imports the scripts has ended; see above") from None

    def wait(self, timeout: float) -> int:
        """Return the exit code, -N after signal N, 255 if the fork server was killed.

        Args:
            timeout: seconds to wait.

        Raises:
            subprocess.TimeoutExpired: the script still runs.
        """
        if not connection.wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(["script"], timeout)
        with _LOCK:
            self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the script alone."""
        with _LOCK:
            if self._process.is_alive():
                assert self._process.pid is not None
                os.kill(self._process.pid, number)


def preloaded(scripts: Iterable[str]) -> list[str]:
    """Return the modules of scripts and what they import later; what is not installed the server leaves out."""
    return [name for script in sorted(set(scripts)) for name in (script, *IMPORTED_LATER[script])]


def prepare(scripts: Iterable[str], trainings: Iterable[Sequence[str]] = ()) -> None:
    """Say which scripts will be started; the server begins with the first one, in the folder that is current then.

    Args:
        scripts: names without .py.
        trainings: words for pretrain.py, whose data sets the server prepares for all scripts that use them.
    """
    words = list(dict.fromkeys(map(tuple, trainings)))
    while len(text := json.dumps(words)) > _MOST_LETTERS:
        words = words[: len(words) // 2]
    os.environ[TRAININGS] = text
    _CONTEXT.set_forkserver_preload([*preloaded(scripts), *(["scripts.warm_data"] if words else [])])


def _start_server() -> None:
    """Make sure that the server runs, with the signals blocked that are for the scripts."""
    # An import that looks for a GPU asks its driver's library: CUDA itself, once started, is lost to forks.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    # A request to stop that reaches the whole group must not end the server. Blocked, it is not lost to a fork, as it
    # would be when ignored: what arrives before the script listens ends it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _HandedOver:
    """An open file on its way to the process of a script, which shares its lock."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self._file.fileno()),)


def _received(file: Any) -> int:
    return int(file.detach())


def _run(words: list[str], stderr: int) -> None:
    """Be the script, in a fork of the server."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr, 2)
    os.close(stderr)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
    sys.argv = words
    runtime.run(importlib.import_module(Path(words[0]).stem).main)
