"""A real SLURM on this machine for the length of a test: one controller, two nodes, files in one temporary folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import environment_of_this_python, free_port

NODES = ("n1", "n2")
PATIENCE = 600.0
"""Seconds after which something that is waited for will not come, on a machine with much else to do."""
PROGRAMS = ("sbatch", "scontrol", "squeue", "slurmctld", "slurmd", "munged")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
JobRequeue=1
KillWait=5
MaxArraySize=2
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def path_of(program: str) -> str | None:
    """Return where a program is; daemons are often outside of a user's path."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")


def missing() -> str:
    """Return why no cluster can be had here, or nothing."""
    if os.geteuid() != 0:
        return "the daemons of SLURM need root"
    absent = [program for program in PROGRAMS if path_of(program) is None]
    return f"{', '.join(absent)} not installed (Debian's packages slurm-wlm and munge)" if absent else ""


class Cluster:
    """Controller and nodes; `stop` ends exactly the processes that `start` has started."""

    def __init__(self) -> None:
        """Make the folder and the configuration."""
        # Not pytest's folder: munge wants every folder above its socket to be open to all.
        self.folder = Path(tempfile.mkdtemp(prefix="ttc-slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**21
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 RealMemory={memory}"
            for name in NODES
        )
        self.configuration = self.folder / "slurm.conf"
        self.configuration.write_text(
            CONFIGURATION.format(folder=self.folder, controller_port=free_port(), nodes=nodes)
        )
        # Jobs run on the interpreter of the tests, and install nothing.
        self.environment = environment_of_this_python(self.folder / "venv") | {"SLURM_CONF": str(self.configuration)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons and wait until every node is idle."""
        place = self.folder / "munge"
        munge = [f"--socket={self.folder}/munge.socket", f"--key-file={self.folder}/munge.key"]
        munge += [f"--pid-file={place}.pid", f"--log-file={place}.log", f"--seed-file={place}.seed"]
        self._start("munged", "munged", "--foreground", *munge)
        self.wait_for((self.folder / "munge.socket").exists, "munge's socket")
        self._start("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.configuration))
        for name in NODES:
            self.start_node(name)
        self.wait_for(lambda: all(self.node_state(name) == "IDLE" for name in NODES), "idle nodes")

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self._start(name, "slurmd", "-D", "-N", name, "-f", str(self.configuration))

    def lose_node(self, name: str, job: str) -> None:
        """End a node's daemon and the job that runs there at once, as when its power goes; tell the controller."""
        self.processes[name].kill()
        self.processes[name].wait()
        ours = {f"SLURM_CONF={self.configuration}", f"SLURM_JOB_ID={self.job(job)['JobId']}"}
        running: list[int] = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # others come and go
                if ours <= set((place / "environ").read_text(errors="replace").split("\0")):
                    running.append(int(place.name))
        parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in running}
        # What watches over the job goes first, or it would tell the controller how the job ended.
        watching = [pid for pid in parents if b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for pid in (*watching, *running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.ask("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def _start(self, name: str, program: str, *words: str) -> None:
        path = path_of(program)
        assert path is not None
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen([path, *words], env=self.environment, stdout=out, stderr=out)

    def stop(self) -> None:
        """End the jobs and the daemons and remove the folder."""
        try:
            if self.processes["slurmctld"].poll() is None:
                subprocess.run(["scancel", "--user=root"], env=self.environment, check=False, timeout=PATIENCE)
                self.wait_for(lambda: not self.ask("squeue", "--noheader"), "an empty queue")
        finally:
            for process in reversed(self.processes.values()):
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            shutil.rmtree(self.folder)

    def ask(self, *command: str) -> str:
        """Run a command of SLURM and return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def node_state(self, name: str) -> str:
        """Return a node's state, such as IDLE or MIXED+DRAIN; empty while the controller is not up."""
        done = subprocess.run(
            ["scontrol", "show", "node", name], env=self.environment, capture_output=True, text=True, check=False
        )
        return dict(word.partition("=")[::2] for word in done.stdout.split()).get("State", "")

    def job(self, job: str) -> dict[str, str]:
        """Return what the controller says about a job or an element such as 3_0."""
        return dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job).split())

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait until a condition holds; fail with what was waited for and the end of the logs."""
        give_up = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > give_up:
                ends = [f"-- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log"))]
                pytest.fail(f"no {what} within {timeout} s\n" + "\n".join(ends))
            time.sleep(0.1)
