from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processes import HANGS, ROOT, call
from ttc.datasets.images import FileImages, TensorImages
from ttc.datasets.loading import batches, channel_statistics
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.run.runtime import _explain


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    random = np.random.default_rng(0)
    paths = [str(tmp_path / f"{k}.png") for k in range(10)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    return FileImages(paths, Decoding(8, 3))


def test_tensor_batches_follow_the_indices() -> None:
    images = TensorImages(torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2))
    plan = torch.tensor([[5, 0], [3, 3]])
    assert torch.equal(torch.stack(list(batches(images, plan))), images.data[plan])


@pytest.mark.parametrize("workers", [0, 2])
def test_file_batches_do_not_depend_on_the_workers(files: FileImages, workers: int) -> None:
    plan = [torch.tensor([7, 1, 1]), torch.tensor([0]), torch.tensor([9, 8, 2]), torch.tensor([4, 5])]
    found = list(batches(files, plan, num_workers=workers))
    assert len(found) == len(plan)
    for rows, batch in zip(plan, found, strict=True):
        assert torch.equal(batch, torch.stack([files.decode(files.paths[row]) for row in rows]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_line_from_any_process(files: FileImages, workers: int) -> None:
    Path(files.paths[3]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png") as caught:
        list(batches(files, [torch.tensor([0, 1]), torch.tensor([2, 3])], num_workers=workers))
    assert "\n" not in str(caught.value)
    assert "--on-bad-image skip" in str(caught.value)


class Failing(FileImages):
    """Fails on one row in its own way."""

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        if 3 in indices.tolist():
            self.fail()
        return super().__getitem__(indices)

    def fail(self) -> None:
        raise TypeError("a fault of ours")


class Killed(Failing):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGBUS)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Failing, r"TypeError\('a fault of ours'\)"), (Killed, "Bus error|exited unexpectedly")]
)
def test_a_worker_that_fails_in_any_way_is_one_line(kind: type[FileImages], reason: str, files: FileImages) -> None:
    with pytest.raises((ValueError, RuntimeError)) as caught:
        list(batches(kind(files.paths, files.decoding), torch.arange(10).reshape(5, 2), num_workers=2))
    line = _explain(caught.value)
    assert line is not None
    assert re.search(f"a process that decodes images failed .*({reason}).*; use --num-workers 0", line), line
    assert "\n" not in line


def killed_while_it_takes_a_batch(files: FileImages, stderr: Connection, start_method: str) -> None:
    multiprocessing.set_start_method(start_method, force=True)
    multiprocessing.set_forkserver_preload(["ttc.datasets.images"])
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    loaded = batches(files, torch.zeros(100, 1, dtype=torch.int64), num_workers=2)
    next(loaded)
    connection.answer_challenge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    list(loaded)  # the next batch may be there already


@pytest.mark.parametrize("start_method", ["fork", pytest.param("forkserver", marks=pytest.mark.long)])
def test_workers_of_a_killed_process_end_without_a_word(start_method: str, files: FileImages) -> None:
    reading, writing = multiprocessing.Pipe(duplex=False)
    assert call(killed_while_it_takes_a_batch, files, writing, start_method) == -signal.SIGKILL
    writing.close()
    assert reading.poll(HANGS), "a worker outlives the process that reads its batches"
    assert os.read(reading.fileno(), 10_000) == b""  # so all that could write to it have ended


_FULL_MEMORY = """
mount --bind {folder} /mnt  # the folder of the tests may itself lie in the shared memory
mount -t tmpfs -o size=256k tmpfs /dev/shm
exec {python} -c '
import torch
from pathlib import Path
from tests.processes import ROOT
from ttc.datasets.images import FileImages
from ttc.datasets.loading import batches
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.run import runtime
images = FileImages(sorted(map(str, Path("/mnt").glob("*.png"))), Decoding(200, 3))
runtime.run(lambda: len(list(batches(images, torch.arange(8).reshape(2, 4), num_workers=2))))'
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_container_with_little_shared_memory_ends_in_one_line(files: FileImages) -> None:
    text = _FULL_MEMORY.format(python=sys.executable, folder=Path(files.paths[0]).parent)
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 1
    assert "no room in the shared memory /dev/shm" in done.stderr.splitlines()[-1]
    assert "--num-workers 0" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_random_state_alone(files: FileImages, workers: int) -> None:
    before = torch.get_rng_state()
    list(batches(files, torch.tensor([[0, 1]]), num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_match_the_direct_formula(channels: int) -> None:
    data = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (700, channels, 5, 4), dtype=np.uint8))
    rows = torch.arange(0, 700, 2)
    mean, std = channel_statistics(TensorImages(data), rows, channels)
    scaled = data[rows].double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), scaled.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std).double(), scaled.std(dim=(0, 2, 3), correction=0))


def test_constant_images_are_refused() -> None:
    with pytest.raises(ValueError, match="channel 0 has the same value"):
        channel_statistics(TensorImages(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)), torch.arange(4), 1)
