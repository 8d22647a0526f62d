"""Killed or stopped at random steps and continued, a run is the uninterrupted one: tensors, numbers, TensorBoard."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.reliability.data import image_folder
from tests.reliability.figures import record
from tests.reliability.ranks import count, finish, ranks, wait_for
from tests.reliability.runs import assert_same_state, scalars
from tests.smoke.runs import metrics
from ttc.losses import METHODS, settings_of

SHORT = ("--epochs", 3, "--batch-size", 16, "--metrics-every-epochs", 2, "--output", "run")
STEPS, EPOCH = 18, 6
LAST = Path("run", "checkpoints", "last.pt")

Place = tuple[str, int, int, int]
"""Method, processes, workers, steps between two log steps."""
FEW: list[Place] = [("paco", 1, 2, 1), ("sbc", 2, 0, 4)]
ALL: list[Place] = [
    (method, size, workers, every) for method in METHODS for size in (1, 2) for workers, every in ((0, 1), (2, 4))
]


def words_of(place: Place, root: Path) -> tuple[object, ...]:
    method, _, workers, every = place
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, "--method", method)
    if "warmup_epochs" in settings_of(method):  # so that the later epochs have sub-classes
        words += ("--method-settings", "warmup_epochs=1", "every=1")
    return (*words, *SHORT, "--num-workers", workers, "--log-every-steps", every)


def logged(place: Place) -> list[int]:
    """Return the steps whose loss the run writes."""
    return [step for step in range(1, STEPS + 1) if step == 1 or step % place[3] == 0 or step % EPOCH == 0]


def interrupt(place: Place, words: tuple[object, ...], folder: Path, chance: random.Random) -> str | None:
    """Start the run, and kill or stop one of its ranks soon after a random line of its log.

    Returns:
        What was done, or None where the run had already come too far, or came to its end before the signal.
    """
    method, size, *_ = place
    last = len(logged(place)) * 2 // 3
    name, line, rank = chance.choice(("SIGKILL", "SIGTERM")), chance.randint(1, last), chance.randrange(size)
    log = folder / "run" / "metrics.jsonl"
    already = count(log, "\n")
    if already >= last:
        return None
    with ranks(size, *words, folder=folder) as running:
        wait_for(log, max(line, already + 1), running[0])
        process = running[rank].process
        assert process.pid is not None
        os.kill(process.pid, getattr(signal, name))
        ended = [each.wait() for each in running]
    done = f"{method}: {name} to rank {rank} after line {line}"
    assert not any("Traceback" in each.stderr for each in ended), "\n".join([done, *(each.stderr for each in ended)])
    if (folder / "run" / "result.json").exists():
        return None
    if name == "SIGTERM":
        assert {each.code for each in ended} == {75}, f"{done}: {ended[0].stderr}"
    return done


def compare(place: Place, root: Path, folder: Path, times: int) -> int:
    """Interrupt a run up to so many times and compare its end with an uninterrupted one's; return how many it were."""
    size, words, chance = place[1], words_of(place, root), random.Random(str(place))
    (folder / "whole").mkdir()
    (folder / "broken").mkdir()
    finish(size, *words, folder=folder / "whole")
    tried = [interrupt(place, words, folder / "broken", chance) for _ in range(times)]
    done = [each for each in tried if each is not None]
    assert done, "the run was never interrupted"
    finish(size, *words, folder=folder / "broken")
    assert_same_state(folder / "whole" / LAST, folder / "broken" / LAST)
    whole, broken = folder / "whole" / "run", folder / "broken" / "run"
    assert metrics(whole) == metrics(broken), done
    assert [line["step"] for line in metrics(broken) if "train/loss" in line] == logged(place), done
    assert scalars(whole) == scalars(broken), done
    assert [step for step, _ in scalars(broken)["train/loss"]] == logged(place), done
    return len(done)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("digits") / "images")


@pytest.mark.parametrize("place", [FEW[0], pytest.param(FEW[1], marks=pytest.mark.long)], ids=str)
def test_an_interrupted_run_is_the_uninterrupted_one(place: Place, root: Path, tmp_path: Path) -> None:
    compare(place, root, tmp_path, times=2)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_one_and_two_processes_and_workers(method: str, root: Path, tmp_path: Path) -> None:
    places, interruptions = [place for place in ALL if place[0] == method], 0
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        interruptions += compare(place, root, folder, times=3)
    record(
        f"exactness: {method}",
        "bash scripts/test.sh --all tests/reliability/test_exactness.py",
        {"places": len(places), "interruptions": interruptions},
    )


def test_another_number_of_processes_is_refused_unless_the_checkpoint_is_named(root: Path, tmp_path: Path) -> None:
    place = ("supcon", 2, 0, 1)
    words = words_of(place, root)
    with ranks(2, *words, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 8, running[0])
        for each in running:
            each.process.kill()
    with ranks(1, *words, folder=tmp_path) as running:
        refused = running[0].wait()
    assert refused.code == 1
    assert "is of a run with 2 process(es), not 1; start as many" in refused.stderr
    (went_on,) = finish(1, *words, "--resume", LAST, folder=tmp_path)
    assert "results will agree up to rounding" in went_on.stderr


def test_changed_data_are_refused(root: Path, tmp_path: Path) -> None:
    own = image_folder(tmp_path / "own")
    words = words_of(("supcon", 1, 0, 1), own)
    with ranks(1, *words, folder=tmp_path) as running:
        wait_for(tmp_path / "run" / "metrics.jsonl", 8, running[0])
    next((own / "val" / "odd").iterdir()).unlink()
    with ranks(1, *words, folder=tmp_path) as running:
        refused = running[0].wait()
    assert refused.code == 1
    assert "was trained on other splits: the data have changed since" in refused.stderr
