"""A run over two hosts loses one of them, fails cleanly, and resumes: two agents, on loopback and behind a cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import free_port
from tests.reliability.figures import record
from tests.reliability.ranks import finish, kill_again_and_again, torchrun, wait_for
from tests.reliability.runs import assert_same_state
from tests.smoke.runs import metrics
from ttc.run import checkpoint

WORDS = ("--log-every-steps", 1, "--batch-size", 64, "--metrics-every-epochs", 0, "--timeout-minutes", 0.25)
LONG = (*WORDS, "--epochs", 60, "--output", "run")
LAST = Path("run", "checkpoints", "last.pt")

Agents = list["subprocess.Popen[bytes]"]


def start(
    folder: Path, hosts: list[tuple[str, tuple[str, ...]]], port: str, *words: object, restarts: int = 0
) -> Agents:
    """Start one agent per host, an address with the words that bring a command there; logs are `log0` and `log1`."""
    return [
        torchrun(
            *("--nnodes", len(hosts), "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-id", "test"),
            *("--rdzv-endpoint", f"{hosts[0][0]}:{port}", "--rdzv-conf", f"is_host={number == 0}"),
            *("--local-addr", address, "--max-restarts", restarts, "pretrain.py", *words),
            folder=folder,
            log=folder / f"log{number}",
            prefix=prefix,
        )
        for number, (address, prefix) in enumerate(hosts)
    ]


def below(agent: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that an agent has started."""
    return [int(each) for each in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]


def ended(process: int) -> bool:
    """Tell whether a process has ended, though its agent may not have asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def kill_host(agent: subprocess.Popen[bytes]) -> None:
    """Kill an agent with its workers at once, as a power cut does."""
    for process in (agent.pid, *below(agent)):
        os.kill(process, signal.SIGKILL)
    agent.wait()


def end(agents: Agents) -> None:
    for agent in agents:
        if agent.poll() is None:
            kill_host(agent)


def errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("error (rank")]


def resume_and_compare(folder: Path, hosts: list[tuple[str, tuple[str, ...]]]) -> None:
    """Continue on both hosts to the end, and compare."""
    before = checkpoint.load(folder / LAST, "pretrain")["step"]
    assert before > 0
    agents = start(folder, hosts, free_port(), *LONG)
    try:
        assert [agent.wait(400) for agent in agents] == [0, 0], (folder / "log0").read_text()
    finally:
        end(agents)
    assert "continuing from run/checkpoints/last.pt" in (folder / "log0").read_text()
    compare(folder)


def compare(folder: Path) -> None:
    """Compare the end with that of two ranks on one host that nobody disturbed."""
    (folder / "alone").mkdir()
    finish(2, *LONG, folder=folder / "alone")
    assert_same_state(folder / "alone" / LAST, folder / LAST)
    assert metrics(folder / "alone" / "run") == metrics(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_host_that_dies(lost: int, tmp_path: Path) -> None:
    hosts: list[tuple[str, tuple[str, ...]]] = [("127.0.0.1", ()), ("127.0.0.2", ())]
    agents = start(tmp_path, hosts, free_port(), *LONG)
    try:
        wait_for(tmp_path / "run" / "metrics.jsonl", 60, agents[0])
        kill_host(agents[lost])
        began = time.monotonic()
        assert agents[1 - lost].wait(60) != 0
        seconds = time.monotonic() - began
    finally:
        end(agents)
    assert len(errors(tmp_path / f"log{1 - lost}")) == 1, (tmp_path / f"log{1 - lost}").read_text()
    assert "another process of the run has gone" in errors(tmp_path / f"log{1 - lost}")[0]
    resume_and_compare(tmp_path, hosts)
    record(
        f"hosts: host {lost} of 2 killed",
        "bash scripts/test.sh --all tests/reliability/test_hosts.py",
        {"seconds until the other host had ended": round(seconds, 1)},
    )


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_with_those_of_the_other_host(tmp_path: Path) -> None:
    """The two agents may count their restarts differently; the workers find each other all the same."""
    hosts: list[tuple[str, tuple[str, ...]]] = [("127.0.0.1", ()), ("127.0.0.2", ())]
    agents = start(tmp_path, hosts, free_port(), *LONG, restarts=3)
    try:
        victims = [lambda host=host: below(agents[host])[0] for host in (1, 0)]
        kill_again_and_again(victims, tmp_path / "run" / "metrics.jsonl", tmp_path / "log0", agents[0])
        assert [agent.wait(400) for agent in agents] == [0, 0], (tmp_path / "log0").read_text()
    finally:
        end(agents)
    assert (tmp_path / "log0").read_text().count("continuing from") == 2
    compare(tmp_path)
    record(
        "hosts: a worker killed on either, started again by --max-restarts",
        "bash scripts/test.sh --all tests/reliability/test_hosts.py",
        {"restarts": 2},
    )


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[list[tuple[str, tuple[str, ...]]]]:
    """Two network namespaces joined by a pair of virtual interfaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"ttc{os.getpid()}{side}" for side in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    inside = [("ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=cable") for name in names]
    yield list(zip(addresses, inside, strict=True))
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_a_cable_that_is_pulled(cable: list[tuple[str, tuple[str, ...]]], tmp_path: Path) -> None:
    """Nobody says good-bye: the processes on both sides notice by their time limit of 15 seconds.

    torchrun's agent on the host that is cut off asks the rendezvous without a limit of its own, and so ends when the
    network is back; a scheduler would not wait for that.
    """
    agents = start(tmp_path, cable, "29511", *LONG)
    namespace = cable[1][1][3]
    try:
        wait_for(tmp_path / "run" / "metrics.jsonl", 60, agents[0])
        (cut_off,) = below(agents[1])
        subprocess.run(["ip", "-n", namespace, "link", "set", "cable", "down"], check=True)
        began = time.monotonic()
        assert agents[0].wait(60) != 0
        seconds = time.monotonic() - began
        while not ended(cut_off):
            assert time.monotonic() < began + 60
            time.sleep(0.1)
        subprocess.run(["ip", "-n", namespace, "link", "set", "cable", "up"], check=True)
        assert agents[1].wait(180) != 0
    finally:
        end(agents)
    for log in ("log0", "log1"):  # neither can ask the other who was first
        (told,) = errors(tmp_path / log)
        assert "another process of the run has gone or does not answer" in told
    resume_and_compare(tmp_path, cable)
    record(
        "hosts: cable pulled",
        "bash scripts/test.sh --all tests/reliability/test_hosts.py",
        {"seconds until the host of rank 0 had ended, with --timeout-minutes 0.25": round(seconds, 1)},
    )
