"""The SLURM scripts on a real scheduler: arrays in chunks, elements that stop, requeue themselves alone and go on."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes import ROOT, Running, run
from tests.slurm.cluster import NODES, PATIENCE, Cluster, missing
from tests.smoke.runs import assert_same_weights, metrics

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

LONG = (
    *("--method", "supproto", "--epochs", 120, "--batch-size", 64),
    *("--log-every-steps", 1, "--metrics-every-epochs", 0),
)
LONGER = (*LONG, "--epochs", 500)
"""Trains for more than the half minute in which SLURM looks once for jobs whose time ends."""
SHORT = ("--method", "ce", "--epochs", 1)
EVALUATIONS = "--layers encoder --probes minority --probe-seeds 1 --bootstrap 0,--peu-draws 0 --max-samples 100"


def train(words: tuple[object, ...], folder: Path, patience: float = PATIENCE) -> Path:
    """Train without SLURM and without an interruption."""
    done = Running("pretrain", *words, "--output", "run", folder=folder).wait(patience)
    assert done.code == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(LONG, tmp_path_factory.mktemp("whole"))


def write(path: Path, lines: dict[str, tuple[object, ...]], *, evaluate: bool = False) -> Path:
    """Write a manifest with a run folder of the same name for each line."""
    rows = ["name,folder,pretrain" + (",linear_eval,compute_metrics" if evaluate else "")]
    rows += [f"{n},{n},{' '.join(map(str, w))}" + (f",{EVALUATIONS}" if evaluate else "") for n, w in lines.items()]
    path.write_text("\n".join(rows) + "\n")
    return path


def submit(cluster: Cluster, path: Path, results: Path, *words: str, **environment: str) -> list[str]:
    """Submit a manifest; return the ids of its arrays."""
    done = subprocess.run(
        ["bash", "scripts/slurm/submit.sh", str(path), str(results), *words],
        cwd=ROOT,
        env={**cluster.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"Submitted batch job (\d+)", done.stdout)


def state(cluster: Cluster, element: str) -> str:
    return cluster.job(element)["JobState"]


def wait_for_steps(cluster: Cluster, results: Path, steps: int) -> None:
    lines = results / "long" / "metrics.jsonl"
    cluster.wait_for(lambda: lines.exists() and len(lines.read_text().splitlines()) >= steps, f"{steps} steps")


def finish(cluster: Cluster, element: str) -> None:
    """Let an element that was put back into the queue run to its end soon; SLURM would wait for two minutes."""

    def ended() -> bool:
        found = cluster.job(element)
        # Not at once: a node refuses what was allowed in the second in which it was told to end the job.
        if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime" and found["EligibleTime"] > soon():
            cluster.ask("scontrol", "update", f"JobId={element}", "StartTime=now+5seconds")
        assert found["JobState"] not in ("FAILED", "CANCELLED", "TIMEOUT"), found
        assert "held" not in found["Reason"], found
        return found["JobState"] == "COMPLETED"

    cluster.wait_for(ended, f"end of {element}")


def soon() -> str:
    """Return the time in ten seconds as SLURM writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 10))


def table(path: Path, results: Path) -> str:
    return run("scripts.manifest_status", path, "--output", results, folder=ROOT).stdout


@pytest.mark.slow
def test_an_array_trains_probes_and_measures_and_a_signalled_element_requeues_itself_alone(
    cluster: Cluster, uninterrupted: Path, tmp_path: Path
) -> None:
    # The element that starts last is the one that has the id of the whole array.
    path = write(tmp_path / "m.csv", {"first": SHORT, "long": LONG, "third": SHORT}, evaluate=True)
    results = tmp_path / "results"
    arrays = submit(cluster, path, results, AT_ONCE="2")
    assert len(arrays) == 2, "MaxArraySize is 2, and there are three lines"
    long, others = f"{arrays[0]}_1", (f"{arrays[0]}_0", f"{arrays[1]}_0")
    wait_for_steps(cluster, results, 13)
    assert "long   running  pretrain" in table(path, results)
    cluster.ask("scancel", "--batch", "--signal=USR1", long)
    cluster.wait_for(lambda: cluster.job(long)["Restarts"] == "1", "a restart")
    stopped = len(metrics(results / "long"))
    for element in (long, *others):
        finish(cluster, element)
        assert cluster.job(element)["Restarts"] == ("1" if element == long else "0"), element
    assert_same_weights(uninterrupted, results / "long")
    steps = [line["step"] for line in metrics(results / "long")]
    assert steps == [line["step"] for line in metrics(uninterrupted)]
    assert 13 <= stopped < len(steps)
    assert "stopped by SIGUSR1" in (results / "cells" / "long.log").read_text()
    shown = table(path, results)
    assert shown.splitlines()[-1] == "done 3  running 0  stopped 0  failed 0  missing 0  of 3"
    for name in ("first", "long", "third"):
        assert (results / name / "linear_eval" / "result.json").is_file()
        assert (results / name / "metrics" / "metrics.json").is_file()
    assert {path.name for path in (results / "slurm").iterdir()} == {f"{each}.out" for each in (long, *others)}
    assert submit(cluster, path, results) == [], "nothing is left"


@pytest.mark.slow
def test_the_end_of_the_time_is_no_end(cluster: Cluster, tmp_path: Path) -> None:
    path, results = write(tmp_path / "m.csv", {"long": LONGER}), tmp_path / "results"
    (array,) = submit(cluster, path, results, "--time", "60", "--signal", "B:USR1@30")
    long = f"{array}_0"
    wait_for_steps(cluster, results, 13)
    cluster.ask("scontrol", "update", f"JobId={long}", "TimeLimit=1")
    cluster.wait_for(lambda: cluster.job(long)["Restarts"] == "1" or state(cluster, long) == "COMPLETED", "USR1")
    assert state(cluster, long) != "COMPLETED"
    cluster.ask("scontrol", "update", f"JobId={long}", "TimeLimit=60")
    finish(cluster, long)
    assert "stopped by SIGUSR1" in (results / "cells" / "long.log").read_text()
    assert_same_weights(train(LONGER, tmp_path, 3 * PATIENCE), results / "long")


@pytest.mark.slow
@pytest.mark.parametrize("event", ["requeue", "drain", "loss"])
def test_an_element_survives(event: str, cluster: Cluster, uninterrupted: Path, tmp_path: Path) -> None:
    path, results = write(tmp_path / "m.csv", {"long": LONG}), tmp_path / "results"
    (array,) = submit(cluster, path, results)
    long = f"{array}_0"
    wait_for_steps(cluster, results, 23)
    node = cluster.job(long)["BatchHost"]
    assert node in NODES
    try:
        if event == "requeue":
            cluster.ask("scontrol", "requeue", long)
        elif event == "loss":
            cluster.lose_node(node, long)
        else:
            cluster.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
            assert state(cluster, long) == "RUNNING", "a drained node finishes what it runs"
            cluster.ask("scancel", "--batch", "--signal=USR1", long)
        cluster.wait_for(lambda: cluster.job(long)["Restarts"] == "1", "a restart")
        finish(cluster, long)
        if event != "requeue":
            assert cluster.job(long)["BatchHost"] != node
    finally:
        if event == "loss":
            cluster.start_node(node)
        if event != "requeue":
            cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
            cluster.wait_for(lambda: cluster.node_state(node) == "IDLE", "idle node")
    assert "continuing from" in (results / "cells" / "long.log").read_text()
    assert_same_weights(uninterrupted, results / "long")


@pytest.mark.slow
def test_two_nodes_meet_stop_together_and_go_on(cluster: Cluster, tmp_path: Path) -> None:
    path, results = write(tmp_path / "m.csv", {"long": LONG}), tmp_path / "results"
    (array,) = submit(cluster, path, results, "--nodes", "2")
    long = f"{array}_0"
    wait_for_steps(cluster, results, 13)
    cluster.ask("scancel", "--batch", "--signal=USR1", long)
    cluster.wait_for(lambda: cluster.job(long)["Restarts"] == "1", "a restart")
    finish(cluster, long)
    steps = [line["step"] for line in metrics(results / "long")]
    assert steps == list(range(1, len(steps) + 1))
    assert '"world_size": 2' in (results / "long" / "env.json").read_text()
    assert "continuing from" in (results / "cells" / "long.log").read_text()


@pytest.mark.slow
def test_a_cancelled_element_saves_and_stays_away(cluster: Cluster, tmp_path: Path) -> None:
    path, results = write(tmp_path / "m.csv", {"long": (*LONG, "--seed", 5)}), tmp_path / "results"
    (array,) = submit(cluster, path, results)
    wait_for_steps(cluster, results, 13)
    cluster.ask("scancel", f"{array}_0")
    cluster.wait_for(lambda: state(cluster, f"{array}_0") == "CANCELLED", "the end")
    cluster.wait_for(lambda: "stopped" in table(path, results), "a stopped line")
    assert [path.name for path in (results / "slurm").iterdir()] == [f"{array}_0.out"]
