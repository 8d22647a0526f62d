"""Kill a run again and again for an hour and compare it with one that is left alone.

python -m tests.reliability.soak --minutes 60 --folder /tmp/soak

Two processes run the same command in two folders. One of them gets SIGKILL at random moments, a few seconds to a minute
apart, and the command is repeated at once. The other is only held back (SIGSTOP) when it is far ahead. At the end both
are stopped, and all that they have in common must be equal: every kept checkpoint with all its tensors, and every
logged number. After each kill the newest checkpoint must be readable. An interrupted soak continues where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.processes import Running
from tests.reliability.figures import record
from tests.reliability.runs import assert_same_history, assert_same_state
from ttc.run import checkpoint

KEEP_EVERY, AHEAD = 20, 400
"""Epochs between two kept checkpoints; steps by which the run that is left alone may lead."""

WORDS = ("--method", "paco", "--batch-sampler", "balanced", "--batch-size", 64, "--epochs", 100_000)
WORDS += ("--save-every-epochs", KEEP_EVERY, "--metrics-every-epochs", 50, "--output", "run")
WORDS += ("--log-every-steps", 1)  # so that the log tells how many steps a kill cost


def last_step(folder: Path) -> int:
    """Return the newest step that a run has logged."""
    path = folder / "run" / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        complete = file.read().decode().split("\n")[:-1]
    return int(json.loads(complete[-1])["step"]) if complete and complete[-1].startswith("{") else 0


def saved_step(folder: Path) -> int:
    """Return the step of the checkpoint that the next start will take, or 0; raise when none can be read."""
    found = checkpoint.load_latest(folder / "run" / "checkpoints", "pretrain")
    return 0 if found is None else int(found[0]["step"])


class Soak:
    """The two runs and what has been counted."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.killed, self.alone, self.path = folder / "killed", folder / "alone", folder / "soak.json"
        for each in (self.killed, self.alone):
            each.mkdir(parents=True, exist_ok=True)
        new = {"kills": 0, "seconds": 0.0, "steps_repeated": 0, "most_repeated": 0}
        self.counts: dict[str, float] = json.loads(self.path.read_text()) if self.path.exists() else new
        self.random = random.Random(f"{seed} {self.counts['kills']}")
        self.reference = Running("pretrain", *WORDS, folder=self.alone)

    def life(self) -> None:
        """Let the run live for a moment, and kill it."""
        began, span = time.monotonic(), self.random.uniform(2, 60)
        running = Running("pretrain", *WORDS, folder=self.killed)
        while time.monotonic() - began < span:
            time.sleep(0.05)
            assert running.process.exitcode is None, running.wait().stderr
            self.hold_back()
        running.process.kill()
        running.process.join()
        reached, kept = last_step(self.killed), saved_step(self.killed)
        repeated = max(0, reached - kept)
        self.counts["kills"] += 1
        self.counts["seconds"] += time.monotonic() - began
        self.counts["steps_repeated"] += repeated
        self.counts["most_repeated"] = max(self.counts["most_repeated"], repeated)
        self.path.write_text(json.dumps(self.counts))
        sys.stderr.write(f"kill {self.counts['kills']} after {span:.1f} s at step {reached}, saved {kept}\n")

    def hold_back(self) -> None:
        """Stop the run that is left alone while it leads by far."""
        assert self.reference.process.pid is not None
        assert self.reference.process.exitcode is None, self.reference.wait().stderr
        leads = last_step(self.alone) > last_step(self.killed) + AHEAD
        os.kill(self.reference.process.pid, signal.SIGSTOP if leads else signal.SIGCONT)

    def finish(self) -> None:
        """Let both runs come to a kept checkpoint that they share, and stop them."""
        running = Running("pretrain", *WORDS, folder=self.killed)
        assert running.process.pid is not None
        target = 1 + max(1, self.epoch(self.killed) // KEEP_EVERY)
        for process, folder in ((running.process, self.killed), (self.reference.process, self.alone)):
            assert process.pid is not None
            os.kill(process.pid, signal.SIGCONT)
            while not (folder / "run" / "checkpoints" / f"epoch_{target * KEEP_EVERY:04d}.pt.sha256").exists():
                time.sleep(0.2)
                assert process.exitcode is None
            time.sleep(1)
            os.kill(process.pid, signal.SIGTERM)
        for each in (running, self.reference):
            stopped = each.wait()
            assert stopped.code == 75, stopped.stderr

    def epoch(self, folder: Path) -> int:
        """Return the epochs that a run has completed and saved."""
        found = checkpoint.load_latest(folder / "run" / "checkpoints", "pretrain")
        return 0 if found is None else int(found[0]["epoch"])


def compare(killed: Path, alone: Path, counts: dict[str, float]) -> dict[str, float]:
    """Compare all that two runs have in common up to the newest checkpoint that both keep; return the figures."""
    folders = [each / "run" / "checkpoints" for each in (killed, alone)]
    shared = sorted(path.name for path in folders[0].glob("epoch_*.pt") if (folders[1] / path.name).exists())
    for name in shared:
        assert_same_state(*(folder / name for folder in folders))
    last = int(checkpoint.load(folders[0] / shared[-1], "pretrain")["step"])
    assert_same_history(killed / "run", alone / "run", last)
    return {**counts, "checkpoints_equal": len(shared), "steps_equal": last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long kills go on")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/soak"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    soak = Soak(given.folder.resolve(), given.seed)
    while soak.counts["seconds"] < 60 * given.minutes:
        soak.life()
    soak.finish()
    figures = compare(soak.killed, soak.alone, soak.counts)
    record(
        "soak: paco on digits",
        f"python -m tests.reliability.soak --minutes {given.minutes:g} --seed {given.seed}",
        {
            "minutes of kills": round(figures["seconds"] / 60),
            "SIGKILLs survived, a readable checkpoint after each": int(figures["kills"]),
            "steps computed twice, on average per kill": round(figures["steps_repeated"] / figures["kills"], 1),
            "steps computed twice, at most": int(figures["most_repeated"]),
            "steps in the end, every logged number equal": int(figures["steps_equal"]),
            "kept checkpoints, every tensor equal": int(figures["checkpoints_equal"]),
        },
    )
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
