"""Device, precision, seeds, memory, stop requests and exit codes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn, Protocol

import torch

from ttc import distributed
from ttc.run import escape

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop, saved its state and can be resumed (EX_TEMPFAIL)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ONE_REQUEST_SECONDS = 2.0
"""Signals that arrive within this time are one request to stop."""

_FULL_BYTES = 2**16
"""A disk with less room counts as full."""

WORKER_FAILED = "a process that decodes images failed"
WORKER_REMEDY = (
    "use --num-workers 0, keep decoded images with --cache ram or disk, or give a container more shared memory "
    "(docker run --shm-size 2g)"
)

_KEPT = ((-3, 2**25), (-1, 2**30))
"""Of glibc's malloc, in bytes: M_MMAP_THRESHOLD, the most that it takes, and M_TRIM_THRESHOLD."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Turn `--device` into a device.

    Args:
        name: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise ValueError(f"--device {name} is not a device; use auto, cpu, cuda or cuda:N")
    index = name.partition(":")[2]
    if name != "cpu" and int(index or 0) >= torch.cuda.device_count():  # torch wraps an index above 127
        count = torch.cuda.device_count()
        raise ValueError(f"--device {name}: {count} CUDA devices are visible here; use --device auto or cpu")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the mixed-precision context of `--precision`; a context that does nothing for fp32.

    Args:
        device: where the computation runs.
        precision: "fp32", "bf16" or "fp16".
    """
    # A kept cast of a weight would add up the gradients of all forward passes of a step in half precision.
    return torch.autocast(device.type, dtype=_DTYPES[precision], enabled=precision != "fp32", cache_enabled=False)


def seed_everything(seed: int, rank: int) -> None:
    """Seed torch's global generators (weight initialisation, dropout); 0 is a seed like any other."""
    torch.manual_seed(seed * 1_000_003 + rank)


def keep_freed_memory() -> None:
    """Make the C library keep what is freed for the next step, instead of giving it back to the system and asking anew.

    Without it a small network spends a tenth and more of a training step on a CPU on pages that come and go.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        for option, size in _KEPT:
            ctypes.CDLL(None).mallopt(option, size)


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Child(Protocol):
    """A process that was started, as subprocess.Popen has it."""

    def wait(self, timeout: float) -> int:
        """Return the exit code; raise subprocess.TimeoutExpired while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""


class StopRequest:
    """Knows why the loop should end after the current step: a signal, a file named STOP, or the time that was given.

    The first signal only sets a flag; a second one ends the process at once. Checkpoints are replaced atomically, so
    that even this loses nothing but the steps since the last one. Signals within some seconds are one request: torchrun
    repeats to its workers what the terminal or the scheduler has sent them already.
    """

    def __init__(self, minutes: float | None = None) -> None:
        """Listen to signals; only the main thread of a process may do so.

        Args:
            minutes: time after which the run stops, from the start of the command; None for no limit.
        """
        self.signal_name: str | None = None
        self._minutes = minutes
        self._deadline = None if minutes is None else time.monotonic() - _age() + 60 * minutes
        # A handler in Python waits for the main thread, which may wait for another rank: a thread is told instead.
        listening, telling = os.pipe()
        os.set_blocking(telling, False)
        signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: None)
        # Processes that decode images get signals of their own, from a terminal for example.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._listen, args=(listening,), daemon=True).start()

    def _listen(self, pipe: int) -> None:
        first = 0.0
        while number := os.read(pipe, 1)[0]:
            if number not in STOP_SIGNALS:
                continue
            if self.signal_name is None:
                self.signal_name, first = signal.Signals(number).name, time.monotonic()
            elif time.monotonic() > first + ONE_REQUEST_SECONDS:
                os._exit(128 + number)

    def reason(self, folder: Path) -> str | None:
        """Return why the run should stop now, or None.

        Args:
            folder: the run folder, in which a user may make a file STOP.
        """
        if self.signal_name is not None:
            return self.signal_name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"--stop-after-minutes {self._minutes:g}"
        if (folder / "STOP").exists():
            return f"the file {folder / 'STOP'} (delete it first)"
        return None

    def wait_for(self, process: Child) -> int:
        """Return the exit code of a process that this one has started; a signal that arrives is handed on, once."""
        handed_on = False
        while True:
            try:
                return process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if self.signal_name is not None and not handed_on:
                    handed_on = True
                    # The terminal has sent Ctrl-C to the whole group; a second signal would end the child at once.
                    if self.signal_name != "SIGINT":
                        process.send_signal(signal.Signals[self.signal_name])


def _age() -> float:
    """Return for how many seconds the command has been running, or 0 where the system does not tell.

    Under torchrun the command is its agent: a restart of the workers must not start the time anew.
    """
    process = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid()
    try:
        started = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # no Linux
        return 0.0


def _no_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _explain(error: BaseException) -> str | None:
    """Return the line that tells an error, or None for a bug of ours, which needs its traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _no_memory(error):
        return f"out of memory; lower --batch-size, --image-size or --num-workers ({text[:200] or 'of the host'})"
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        reason = re.sub(r"^DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) ?", "", text.split(". ")[0]).rstrip(".")
        return f"{WORKER_FAILED} ({reason}); {WORKER_REMEDY}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
        return f"{text}: {_full_folder() or 'a disk is full'}; free space there or choose another --output"
    if "InvalidCxxCompiler" in text:  # torch says so in the first step only
        return "--compile found no C++ compiler; install g++, name another in the variable CXX, or leave --compile out"
    if isinstance(error, RuntimeError) and ("gloo" in text or type(error).__name__.startswith("Dist")):
        return "another process of the run has gone or does not answer; the same command continues the run"
    return text if isinstance(error, ValueError | OSError) else None


def _full_folder() -> str | None:
    """Return a folder in use whose disk is full: an error while writing does not say which file it was about."""
    folders = [Path.cwd(), Path(tempfile.gettempdir())]
    with contextlib.suppress(OSError):  # no Linux
        folders[:0] = [link.resolve().parent for link in Path("/proc/self/fd").iterdir()]
    for folder in folders:
        with contextlib.suppress(OSError):
            room = os.statvfs(folder)
            if room.f_blocks and room.f_bavail * room.f_frsize < _FULL_BYTES:
                return f"{folder} is full"
    return None


def _first_to_fail(error: BaseException) -> bool:
    """Tell whether no other process of the run has failed before: the first alone says why, others follow from it.

    Before the processes have joined nobody can be asked. What is wrong with flags or files is then the same for all
    processes of a machine, so that its first one speaks.
    """
    task = distributed.launched_task()
    if isinstance(error, ValueError) and task.size > distributed.world_size():
        return task.local_rank == 0
    if _no_memory(error):  # not even for a thread, whose start would abort the process
        return distributed.count_failure() == 1
    answers: list[int] = []
    # In a thread, because the host that counts may be cut off: the question would wait for as long as TCP tries.
    asking = threading.Thread(target=lambda: answers.append(distributed.count_failure()), daemon=True)
    asking.start()
    asking.join(10)
    return answers in ([], [1])


def _fail(error: BaseException) -> NoReturn:
    line = None if os.environ.get("TTC_TRACEBACK") else _explain(error)
    if _first_to_fail(error):
        task = distributed.launched_task()
        rank = f" (rank {task.rank})" if task.size > 1 else ""
        sys.stderr.write(
            "".join(traceback.format_exception(error)) if line is None else escape.plain(f"error{rank}: {line}") + "\n"
        )
    sys.stderr.flush()
    sys.stdout.flush()
    for child in multiprocessing.active_children():  # one that decodes images may wait for us to take its batches
        child.kill()
    # Other ranks may be waiting in a collective: leave without the clean-up that would wait for them.
    os._exit(1)


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit: 0 done, 1 failed with one line, 75 stopped on request and resumable.

    A ValueError is a user's error by this project's convention and is shown as one line; set the environment variable
    TTC_TRACEBACK to see where it was raised. Of several processes only the first that fails speaks.
    """
    keep_freed_memory()
    gc.freeze()  # what is imported stays
    gc.enable()
    try:
        code = main()
        distributed.stop()
    except (Exception, KeyboardInterrupt) as error:
        _fail(error)
    sys.exit(code)
