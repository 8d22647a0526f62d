"""Start scripts that have their imports behind them: a process imports once and forks itself for each script.

A fresh interpreter spends seconds on imports before a script begins, a fifth of a small run. A fork has them at once
and is the same otherwise: the script has its process for itself, which ends like any other. What imports
is a process of its own without threads; `python -m scripts.warm` is for `WarmStarter` only.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from ttc.run import runtime

_TENSORBOARD = "torch.utils.tensorboard"
_SKLEARN = ("linear_model", "metrics", "model_selection")
IMPORTED_LATER = {
    "pretrain": ("torch._dynamo", _TENSORBOARD),
    "linear_eval": (_TENSORBOARD, "pandas", "scipy.stats", *(f"sklearn.{name}" for name in _SKLEARN)),
    "finetune": ("torch._dynamo", _TENSORBOARD, "pandas", "scipy.stats", *(f"sklearn.{name}" for name in _SKLEARN)),
    "compute_metrics": ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
}
"""Script -> what it imports only where it needs it, which is nearly always."""

_BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_NUMBER = struct.Struct("!i")


class WarmProcess:
    """A script that runs; has what a runner needs of subprocess.Popen."""

    def __init__(self, starter: WarmStarter, server: _Server) -> None:
        """Take over a server that has been told what to start."""
        self._starter, self._server = starter, server
        self._pid = server.number()

    def wait(self, timeout: float) -> int:
        """Return the exit code, -N after signal N.

        Args:
            timeout: seconds to wait.

        Raises:
            subprocess.TimeoutExpired: the script still runs.
        """
        code = None if self._pid is None else self._server.number(timeout)
        if code is None:
            return self._server.close()  # it has gone, and with it what the script would have said
        self._pid = None
        self._starter.idle.append(self._server)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the script alone."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


class WarmStarter:
    """Starts scripts from processes that have imported them; one for each script that runs at the same time."""

    def __init__(self, folder: Path, scripts: Iterable[str]) -> None:
        """Start nothing yet.

        Args:
            folder: where the scripts lie and run.
            scripts: names without .py.
        """
        self._folder, self._scripts = folder, sorted(set(scripts))
        self.idle: list[_Server] = []

    def start(self, words: Sequence[str], stderr: IO[str]) -> WarmProcess:
        """Start a script without standard input and output.

        Args:
            words: the script's file and what follows it.
            stderr: gets the script's standard error; the script holds its lock, as with subprocess.Popen.
        """
        try:
            server = self.idle.pop()
        except IndexError:
            server = _Server(self._folder, self._scripts)
        server.ask(words, stderr.fileno())
        return WarmProcess(self, server)

    def close(self) -> None:
        """End the processes that have nothing to do."""
        while self.idle:
            self.idle.pop().close()


class _Server:
    """The side of the runner: a process that imports and forks, and the connection to it."""

    def __init__(self, folder: Path, scripts: Sequence[str]) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.warm", str(theirs.fileno()), *scripts],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # An import that looks for a GPU asks its driver's library: CUDA itself, once started, is lost to forks.
                env={**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
            )

    def ask(self, words: Sequence[str], stderr: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has gone; its exit code says why
            socket.send_fds(self._connection, [json.dumps(list(words)).encode() + b"\n"], [stderr])

    def number(self, timeout: float | None = None) -> int | None:
        self._connection.settimeout(timeout)
        try:
            data = self._connection.recv(_NUMBER.size)
        except TimeoutError:
            raise subprocess.TimeoutExpired(["script"], timeout or 0.0) from None
        except ConnectionResetError:
            return None
        return int(_NUMBER.unpack(data)[0]) if data else None

    def close(self) -> int:
        self._connection.close()
        return self._process.wait()


def load(scripts: Iterable[str]) -> None:
    """Import scripts and what they import later; what is not installed is missed by the script that needs it."""
    for script in scripts:
        for name in (script, *IMPORTED_LATER[script]):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _request(connection: socket.socket) -> tuple[list[str], int] | None:
    """Return the words of the next script and the file for its standard error; None when the runner has gone."""
    data, files, _, _ = socket.recv_fds(connection, 2**16, 1)
    while data and not data.endswith(b"\n"):
        data += connection.recv(2**16) or b"\n"
    return (json.loads(data), files[0]) if data else None


def _serve(connection: socket.socket) -> list[str] | None:
    """Fork a process for each request; return its words there, and None here when the runner has gone."""
    while request := _request(connection):
        words, stderr = request
        pid = os.fork()
        if pid == 0:
            connection.close()
            os.dup2(stderr, 2)
            os.close(stderr)
            return words
        os.close(stderr)  # the lock of a log is the script's
        try:
            connection.sendall(_NUMBER.pack(pid))
            connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        except BrokenPipeError:
            return None
    return None


def main() -> None:
    """Import, serve, and in a fork be the script."""
    # A request to stop that reaches the whole group is for the scripts. Blocked, it is not lost to a fork, as it would
    # be when ignored: what arrives before the script listens ends it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    load(sys.argv[2:])
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    if words is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        sys.argv = words
        runtime.run(importlib.import_module(Path(words[0]).stem).main)


if __name__ == "__main__":
    main()
