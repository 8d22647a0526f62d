"""Measure calls side by side: medians of turns, peak memory in fresh processes, CSV files that name the machine.

With one thread on a CPU, time is the processor time of the process, which the other work of a busy machine prolongs far
less than the time on the wall. With several threads or on a GPU it is elapsed time.
"""

from __future__ import annotations

import cProfile
import csv
import importlib.util
import multiprocessing
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from ttc.run.ledger import git_state
from ttc.run.log import log, start_logging

T = TypeVar("T")
Call = Callable[[], object]
Row = Mapping[str, str | int | float]

# Instructions that decide how fast products and bfloat16 are on a CPU, the fastest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
_BF16_FLAGS = ("amx_bf16", "avx512_bf16")
_LIMIT = "ATEN_CPU_CAPABILITY"
"""Environment variable by which torch leaves instructions out; with _LIMITS the libraries that it calls do so too."""
_LIMITS = (_LIMIT, "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def start(threads: int) -> None:
    """Prepare this process: number of CPU threads, log, and what fresh processes have imported when they begin."""
    start_logging(main=True)
    torch.set_num_threads(threads)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "benchmarks.timing"])


def counts_processor_time(device: torch.device) -> bool:
    """Tell which clock is used: processor time or elapsed time (see the top of this file)."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def now(device: torch.device) -> float:
    """Return the clock in seconds, once a GPU has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if counts_processor_time(device) else time.perf_counter()


def seconds(call: Call, device: torch.device) -> float:
    """Return the time of one call."""
    start = now(device)
    call()
    return now(device) - start


def interleave(calls: Mapping[str, Call], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Time all calls in turns, after one turn to warm up, so that a busy machine slows them alike.

    Args:
        calls: what to measure, by name.
        repeats: turns that count.
        device: where the calls compute.

    Returns:
        Seconds per turn, by name.
    """
    turns = [{name: seconds(call, device) for name, call in calls.items()} for _ in range(repeats + 1)][1:]
    return {name: [turn[name] for turn in turns] for name in calls}


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over turns of the ratio of two times of the same turn."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def largest_operators(call: Call, device: torch.device, most: int = 4) -> str:
    """Return which operators take most of a call's time in operators, and their shares."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        call()
    field = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = sorted(((getattr(entry, field), entry.key) for entry in profiler.key_averages()), reverse=True)
    total = sum(spent for spent, _ in times) or 1
    return "; ".join(f"{name.removeprefix('aten::')} {100 * spent / total:.0f} %" for spent, name in times[:most])


def largest_calls(call: Call, most: int = 4) -> str:
    """Return which functions, of Python and of libraries, take most of a call's time by themselves, in percent."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(call)
    times = sorted(((entry.inlinetime, _function(entry.code)) for entry in profiler.getstats()), reverse=True)
    total = sum(spent for spent, _ in times) or 1
    return "; ".join(f"{name} {100 * spent / total:.0f} %" for spent, name in times[:most])


def _function(code: CodeType | str) -> str:
    """Return the name of a function as a reader knows it: "mm" of "<built-in method torch.mm>"."""
    name = code if isinstance(code, str) else code.co_name
    return name.strip("<>").split(" of ")[0].split(" ")[-1].split(".")[-1].strip("'")


def growth_of_peak(call: Call, device: torch.device) -> float:
    """Return by how many MiB one call raises the peak memory of the device, or of this process (on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    # Lowers the recorded peak to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    before_mib = _status_mib("VmHWM")
    call()
    # The kernel counts whole pages in batches; less than this cannot be told from nothing.
    return max(_status_mib("VmHWM") - before_mib, 0.1)


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Call a function of a module's top level in a new process and return its result.

    The process is forked from one that has imported modules (see `start`) and done nothing else, so that its memory
    holds nothing of earlier calls.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as executor:
        return executor.submit(function, *arguments).result()


def apart(device: torch.device, function: Callable[..., T], *arguments: object) -> T:
    """Call a function of a module's top level so that it can measure its memory, and return its result.

    That takes a fresh process on a CPU. On a GPU torch counts what each call allocates, in any process.
    """
    return function(*arguments) if device.type == "cuda" else in_fresh_process(function, *arguments)


def on_ranks(size: int, function: Callable[..., T], *arguments: object) -> list[T]:
    """Call a function of a module's top level on several processes of this machine and return what each returned.

    Each process finds in its environment what torchrun would put there.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    context = multiprocessing.get_context("forkserver")
    receivers = []
    for rank in range(size):
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=_rank, args=(sender, rank, size, port, function, arguments), daemon=True).start()
        sender.close()
        receivers.append(receiver)
    return [receiver.recv() for receiver in receivers]


def _rank(
    sender: Connection, rank: int, size: int, port: str, function: Callable[..., object], arguments: Sequence[object]
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    sender.send(function(*arguments))


def installed_peers(names: Iterable[str]) -> list[str]:
    """Return which packages can be imported, and log a line for each of the others."""
    installed = []
    for name in names:
        if importlib.util.find_spec(name):
            installed.append(name)
        else:
            log.info("skipped: %s is not installed", name)
    return installed


def machine(device: torch.device) -> str:
    """Describe the hardware and the version of torch, without the machine's name."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    fields: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        fields = {name.strip(): value.strip() for name, value in lines}
    model = fields.get("model name") or platform.processor() or platform.machine()
    # Virtual machines give families of processors one name.
    kind = (
        [f"family {fields['cpu family']} model {fields['model']}"] if {"cpu family", "model"} <= fields.keys() else []
    )
    flags = fields.get("flags", fields.get("Features", "")).split()
    kind += [name for flag, name in _VECTORS.items() if flag in flags][:1]
    instructions = [flag for flag in _BF16_FLAGS if flag in flags][:1]
    if limit := os.environ.get(_LIMIT):
        kind.append(f"limited to {limit}")
    kind.append(f"bfloat16 by {instructions[0]}" if instructions else "no bfloat16 instructions")
    cores, threads = os.cpu_count(), torch.get_num_threads()
    used = f"{threads} thread{'s' if threads > 1 else ''} used"
    return f"{model} ({', '.join(kind)}), {cores} cores, {used}, torch {torch.__version__}"


def code_version() -> str:
    """Return the commit of the code, with a + if code is changed; empty where there is no repository."""
    root = Path(__file__).resolve().parents[1]
    commit = git_state(root)["commit"]
    if commit is None:
        return ""
    words = ["git", "--no-optional-locks", "-C", str(root), "diff", "--quiet", "HEAD", "--", "*.py"]
    return f"{str(commit)[:7]}{'+' if subprocess.run(words, check=False).returncode else ''}"


def write_rows(path: Path, rows: Sequence[Row], device: torch.device) -> None:
    """Write rows with equal keys as a CSV file, together with machine, commit and command that produced them."""
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ]
    command = shlex.join([*limits, "python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    origin = {"machine": machine(device), "commit": code_version(), "command": command}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0], *origin], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **origin} for row in rows)


def tell(row: Row) -> None:
    """Log one row as soon as it is known."""
    log.info("%s", "  ".join(f"{key} {value}" for key, value in row.items() if value != ""))
