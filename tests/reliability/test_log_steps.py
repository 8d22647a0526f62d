"""Stopped after any step, a run writes the lines of the uninterrupted one, however far apart its log steps are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.processes import run
from tests.reliability.data import image_folder
from tests.reliability.ranks import finish, ranks
from tests.reliability.runs import assert_same_state, scalars
from tests.smoke.runs import metrics
from ttc.run import checkpoint

STEPS, EPOCH = 8, 4
LAST = Path("run", "checkpoints", "last.pt")
WORDS = ("--epochs", STEPS // EPOCH, "--batch-size", 24, "--method", "bcl", "--metrics-every-epochs", 1)
# The time is over before the first step: each start takes as many steps as ranks need to learn of it from each other.
AT_ONCE = ("--stop-after-minutes", 0.0001)
UNWRITTEN = ("--epochs", 1, "--batch-size", 64, "--log-every-steps", 1000, "--metrics-every-epochs", 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("digits") / "images")


def advance(size: int, words: tuple[object, ...], folder: Path) -> int:
    """Start the run, which stops as soon as it can; return the steps that it has saved."""
    with ranks(size, *words, *AT_ONCE, folder=folder) as running:
        ended = [each.wait() for each in running]
    assert len({each.code for each in ended}) == 1
    assert ended[0].code == (0 if (folder / "run" / "result.json").exists() else 75), ended[0].stderr
    return int(checkpoint.load(folder / LAST, "pretrain")["step"])


@pytest.mark.parametrize(
    ("size", "workers", "every"),
    [
        pytest.param(1, 0, 1000, id="1 process"),
        pytest.param(2, 2, 3, id="2 processes, 2 workers each", marks=pytest.mark.long),
        pytest.param(1, 0, 3, id="1 process, many lines", marks=pytest.mark.slow),
        pytest.param(2, 2, 1000, id="2 processes, few lines", marks=pytest.mark.slow),
    ],
)
def test_stops_between_log_steps_change_no_line(
    size: int, workers: int, every: int, root: Path, tmp_path: Path
) -> None:
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, *WORDS, "--output", "run")
    words += ("--num-workers", workers, "--log-every-steps", every)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    finish(size, *words, folder=whole)
    stops: list[int] = []
    while not (broken / "run" / "result.json").exists():
        stops.append(advance(size, words, broken))
        assert stops == sorted(set(stops)), "each start gets further"
    assert len(stops) >= STEPS // size, stops
    assert_same_state(whole / LAST, broken / LAST)
    logged = [step for step in range(1, STEPS + 1) if step == 1 or step % every == 0 or step % EPOCH == 0]
    assert [line["step"] for line in metrics(whole / "run") if "train/loss" in line] == logged
    lines = [(folder / "run" / "metrics.jsonl").read_bytes() for folder in (whole, broken)]
    assert lines[0] == lines[1], stops
    assert scalars(whole / "run") == scalars(broken / "run"), stops


def test_stops_during_fine_tuning_change_no_line(pretrained_run: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--epochs", 2, "--log-every-steps", 3)
    words += ("--batch-size", 128, "--bootstrap", 0, "--output", "run")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    done = run("finetune", *words, folder=whole)
    assert done.code == 0, done.stderr
    starts = 0
    while not (broken / "run" / "result.json").exists():
        starts += 1
        done = run("finetune", *words, *AT_ONCE, folder=broken)
        assert done.code == (0 if (broken / "run" / "result.json").exists() else 75), done.stderr
        assert starts < 20
    assert starts == 8, "four steps an epoch"
    lines = [(folder / "run" / "metrics.jsonl").read_bytes() for folder in (whole, broken)]
    assert lines[0] == lines[1]
    assert scalars(whole / "run") == scalars(broken / "run")
    tables = [(folder / "run" / "predictions.csv").read_bytes() for folder in (whole, broken)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("names", 3),
        ("names", []),
        ("steps", []),
        ("rows", torch.ones(1, 2, 2)),
        ("rows", torch.full((1, 1, 2), torch.nan)),
        ("rows", [0.5]),
        ("rows", None),
    ],
    ids=lambda value: " ".join(str(value).split()),
)
def test_wrong_losses_in_a_checkpoint_are_refused(
    part: str, value: object, pending: tuple[Path, checkpoint.State]
) -> None:
    assert refusal(*pending, part, value).endswith("use another one")


def test_losses_of_other_names_in_a_checkpoint_are_refused(pending: tuple[Path, checkpoint.State]) -> None:
    renamed = [f"not {name}" for name in pending[1]["pending"]["names"]]
    assert "the losses in the checkpoint have not " in refusal(*pending, "names", renamed)


@pytest.fixture(scope="module")
def pending(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, checkpoint.State]:
    """Return the folder of a run stopped after its second step, whose loss is not written yet, and its checkpoint."""
    folder = tmp_path_factory.mktemp("pending")
    for _ in range(2):  # the first step is always written
        assert run("pretrain", *UNWRITTEN, *AT_ONCE, "--output", "run", folder=folder).code == 75
    state = checkpoint.load(folder / LAST, "pretrain")
    assert state["pending"]["steps"] == [2]
    return folder, state


def refusal(folder: Path, state: checkpoint.State, part: str, value: object) -> str:
    """Continue from a checkpoint of which a part was changed; return the line that refuses it."""
    changed = {**state, "pending": {**state["pending"], part: value}}
    header = ("format", "kind")
    checkpoint.save(folder / "x.pt", "pretrain", {key: changed[key] for key in changed if key not in header})
    refused = run("pretrain", *UNWRITTEN, "--resume", "x.pt", "--output", "run", folder=folder)
    assert refused.code == 1, refused.stderr
    assert "Traceback" not in refused.stderr
    return refused.stderr.splitlines()[-1]
