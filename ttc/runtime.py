"""Device, precision, seeds, stop requests, exit codes and the record of the environment."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch

from ttc import distributed

EXIT_STOPPED = 75
"""Exit code of a run that was asked to stop, saved its state and can be resumed (EX_TEMPFAIL)."""

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
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(f"--device {name}: {found} CUDA devices are visible here; use --device auto or cpu")
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the mixed-precision context of `--precision`; a context that does nothing for fp32.

    Args:
        device: where the computation runs.
        precision: "fp32", "bf16" or "fp16".
    """
    return torch.autocast(device.type, dtype=_DTYPES[precision], enabled=precision != "fp32")


def seed_everything(seed: int, rank: int) -> None:
    """Seed torch's global generators (weight initialisation, dropout); 0 is a seed like any other."""
    torch.manual_seed(seed * 1_000_003 + rank)


class StopRequest:
    """Remembers that SIGTERM, SIGINT or SIGUSR1 arrived, so that the loop can end after the current step.

    The first signal only sets a flag and hands the signals back to their default action: a second one ends the process
    at once. Checkpoints are replaced atomically, so that even this loses nothing but the steps since the last one.
    """

    def __init__(self) -> None:
        """Install the handlers; only the main thread of a process may do so."""
        self.signal_name: str | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(each, signal.SIG_DFL)


def git_state(folder: Path) -> dict[str, object]:
    """Return the commit of the repository around `folder` and whether it has uncommitted changes, None if unknown."""

    def ask(*words: str) -> str | None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
        return None

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def environment_record(device: torch.device, world_size: int) -> dict[str, object]:
    """Describe what a run needs to be repeated: versions, hardware, threads, commit and command line."""
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "git": git_state(Path(__file__).parent),
        "command": sys.argv,
    }


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        if os.environ.get("TTC_TRACEBACK"):
            raise
        rank = f" (rank {os.environ['RANK']})" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        sys.stderr.write(f"error{rank}: {' '.join(str(error).split())}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        # Other ranks may be waiting in a collective: leave without the clean-up that would wait for them.
        os._exit(1)


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit: 0 done, 1 failed with one line, 75 stopped on request and resumable.

    A ValueError is a user's error by this project's convention and is shown as one line; set the environment variable
    TTC_TRACEBACK to see where it was raised.
    """
    with _one_line_errors():
        code = main()
        distributed.stop()
    sys.exit(code)
