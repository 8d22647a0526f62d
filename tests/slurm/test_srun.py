"""`srun python pretrain.py`, one task per device, on a real scheduler; the batch script around it is no task."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, run_ranks
from tests.slurm.cluster import Cluster, missing
from tests.smoke.runs import assert_same_weights

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

WORDS = ("--method", "supproto", "--epochs", 1, "--metrics-every-epochs", 0, "--num-workers", 0, "--device", "cpu")


def test_tasks_of_a_batch_job_train_together(cluster: Cluster, tmp_path: Path) -> None:
    words = " ".join(map(str, WORDS))
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        "export OMP_NUM_THREADS=1\n"
        f"{sys.executable} -c 'from ttc.distributed.launch import task; print(task())'\n"
        f"srun --ntasks 2 --overcommit {sys.executable} pretrain.py {words} --output {tmp_path}/srun\n"
        f"srun --ntasks 2 --overcommit {sys.executable} pretrain.py {words} --batch-size 63 --output {tmp_path}/x\n"
    )
    place = ("--chdir", str(ROOT), "--output", f"{tmp_path}/out.txt", "--nodes", "1", "--ntasks", "2", "--overcommit")
    job = cluster.ask("sbatch", "--parsable", *place, str(script))
    cluster.wait_for(lambda: cluster.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), "end of the job")
    said = (tmp_path / "out.txt").read_text()
    assert "Task(rank=0, size=1, local_rank=0, slurm=False)" in said
    assert "64 on each of 2 processes" in said
    assert said.count("--batch-size 63 cannot be divided among 2 processes") == 1, said
    run_ranks(2, "pretrain", *WORDS, "--output", "torchrun", folder=tmp_path)
    assert_same_weights(tmp_path / "srun", tmp_path / "torchrun")
