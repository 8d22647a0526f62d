"""Start pretrain.py on several processes, as torchrun's agent does, or with torchrun itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from tests.processes import HANGS, ROOT, Result, Running, free_port, run


@contextmanager
def agent(size: int) -> Iterator[dict[str, str]]:
    """Keep the store, as an agent does, so that it outlives each rank; yield the ranks' variables but their number."""
    port = free_port()
    store = dist.TCPStore("127.0.0.1", int(port), is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    yield {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    del store


def start_rank(rank: int, env: dict[str, str], *words: object, folder: Path) -> Running:
    """Start one rank below an agent."""
    return Running("pretrain", *words, folder=folder, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)})


@contextmanager
def ranks(size: int, *words: object, folder: Path) -> Iterator[list[Running]]:
    """Start so many ranks, and end those that are left."""
    with agent(size) as env:
        started = [start_rank(rank, env, *words, folder=folder) for rank in range(size)]
        try:
            yield started
        finally:
            end(started)


def end(running: list[Running]) -> None:
    """Kill what is left of the ranks."""
    for each in running:
        each.process.kill()
        each.process.join()


def finish(size: int, *words: object, folder: Path) -> list[Result]:
    """Run to the end on so many processes; all must succeed."""
    if size == 1:
        results = [run("pretrain", *words, folder=folder)]
    else:
        with ranks(size, *words, folder=folder) as running:
            results = [each.wait() for each in running]
    assert [each.code for each in results] == [0] * size, "".join(each.stderr for each in results)
    return results


def torchrun(*words: object, folder: Path, log: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start torchrun with words such as `--nproc-per-node 2 pretrain.py --epochs 3`; both its outputs go to `log`."""
    named = [str(ROOT / word) if word == "pretrain.py" else str(word) for word in words]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "torch.distributed.run", *named], cwd=folder, stdout=file, stderr=file
        )


def wait_for(path: Path, lines: int, alive: Running | subprocess.Popen[bytes], seconds: float = HANGS) -> None:
    """Return when a file has so many lines; fail when the process ends before."""
    wait_until(lambda: count(path, "\n") >= lines, f"{path.name} has {lines} lines", alive, seconds)


def wait_until(
    met: Callable[[], bool], what: str, alive: Running | subprocess.Popen[bytes], seconds: float = HANGS
) -> None:
    """Return when something is the case; fail when the process ends before."""
    give_up = time.monotonic() + seconds
    while not met():
        code = alive.process.exitcode if isinstance(alive, Running) else alive.poll()
        assert code is None, f"the run ended with {code} before {what}"
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.002)


def count(path: Path, text: str) -> int:
    """Return how often a text is in a file, which need not be there yet."""
    return path.read_bytes().count(text.encode()) if path.exists() else 0


def kill_again_and_again(
    victims: list[Callable[[], int]], metrics: Path, log: Path, agent: subprocess.Popen[bytes]
) -> None:
    """Kill a worker each time that the run has come further by two epochs of nine steps, and is under way again.

    Args:
        victims: find the process to kill.
        metrics: metrics.jsonl of the run, a line a step.
        log: what rank 0 tells.
        agent: has to live.
    """
    for restarts, victim in enumerate(victims):
        wait_until(lambda n=restarts: count(log, "continuing from") == n, f"restart {restarts}", agent)
        wait_for(metrics, count(metrics, "\n") + 20, agent)
        process = victim()
        os.kill(process, signal.SIGKILL)
        wait_until(lambda p=process: not Path(f"/proc/{p}").exists(), "the agent has seen it", agent)


def message(results: list[Result]) -> str:
    """Return the only line that says an error among all that the ranks wrote; nobody may show a traceback."""
    assert not any("Traceback" in each.stderr for each in results), "".join(each.stderr for each in results)
    errors = [line for each in results for line in each.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1, errors
    return errors[0]
