"""Another method, data set, split, seed or anything else that makes another run never continues one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import Result, run
from tests.reliability.ranks import agent, finish, message, start_rank

# Flag and words -> what the refusal says; the run itself has the defaults.
CHANGED: dict[str, tuple[tuple[object, ...], str]] = {
    "method": (("--method", "bcl"), "--method (supmin there, bcl now)"),
    "seed": (("--seed", 1), "--seed (0 there, 1 now)"),
    "split, ratio": (("--class-ratios", 0.9, 0.1), "--class-ratios (None there, [0.9, 0.1] now)"),
    "split, size": (("--train-samples", 150), "--train-samples (None there, 150 now)"),
    "split, classes": (("--classes", "0,1", "2,3"), "--classes (None there, ['0,1', '2,3'] now)"),
    "global batch": (("--batch-size", 32), "--batch-size (128 there, 32 now)"),
    "sampler": (("--batch-sampler", "balanced"), "--batch-sampler (shuffle there, balanced now)"),
    "micro-batch": (("--micro-batch-size", 64), "--micro-batch-size (None there, 64 now)"),
    "encoder": (("--encoder", "convnet-w8"), "--encoder (None there, convnet-w8 now)"),
    "precision": (("--precision", "bf16"), "--precision (fp32 there, bf16 now)"),
    "two": (("--seed", 3, "--lr", 0.01), "--lr (0.25 there, 0.01 now), --seed (0 there, 3 now)"),
}
SHORT = ("--epochs", 0)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that has a checkpoint and no result."""
    folder = tmp_path_factory.mktemp("begun")
    done = run("pretrain", *SHORT, "--output", "run", folder=folder)
    assert done.code == 0, done.stderr
    (folder / "run" / "result.json").unlink()
    return folder / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("name", CHANGED)
def test_another_command_is_refused_by_the_names_of_its_flags(name: str, begun: Path, tmp_path: Path) -> None:
    words, part = CHANGED[name]
    before = content(begun)
    last = begun / "checkpoints" / "last.pt"
    for refused, how in (
        (run("pretrain", *SHORT, *words, "--output", begun, folder=tmp_path), f"holds another run: {part}; choose"),
        (
            run("pretrain", *SHORT, *words, "--resume", last, "--output", "own", folder=tmp_path),
            f"belongs to another run: {part}; use the same flags",
        ),
    ):
        assert refused.code == 1
        assert how in refused.stderr.splitlines()[-1]
        assert refused.stderr.count("error") == 1
    assert content(begun) == before


def test_another_data_set_is_refused(begun: Path, tmp_path: Path) -> None:
    words = ("--dataset", "csv", "--data-root", tmp_path)
    refused = run("pretrain", *SHORT, *words, "--output", begun, folder=tmp_path)
    assert refused.code == 1
    assert "holds another run: --dataset (digits there, csv now)" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_same_command_goes_on_wherever_it_computes(begun: Path, tmp_path: Path) -> None:
    words = ("--device", "cpu", "--num-workers", 1, "--log-every-steps", 3, "--stop-after-minutes", 50)
    done = run("pretrain", *SHORT, *words, "--output", begun, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "continuing from" in done.stderr


@pytest.mark.parametrize("finished", [True, False])
def test_hosts_that_share_no_folder_are_told_so(finished: bool, tmp_path: Path) -> None:
    """Only the first host sees what the run has left: both end together, and nobody waits for the other."""
    words = ("--epochs", 1, "--metrics-every-epochs", 0, "--output", "run")
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    finish(2, *words, folder=folders[0])
    if not finished:
        (folders[0] / "run" / "result.json").unlink()
    with agent(2) as env:
        running = [start_rank(rank, env, *words, folder=folder) for rank, folder in enumerate(folders)]
        ended: list[Result] = [each.wait() for each in running]
    if finished:
        assert [each.code for each in ended] == [0, 0], ended
    else:
        assert [each.code for each in ended] == [1, 1], ended
        assert "read checkpoints of different steps (4, 0) from " in message(ended)
        assert "use an --output that all hosts share" in message(ended)
