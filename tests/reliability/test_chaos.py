"""A run dies before and after each operation on a file; a readable checkpoint and the same end remain.

The child counts the calls into the operating system that the modules of the project and pathlib make, through the
interpreter's profiling hook, and ends itself with `os._exit` (no flush, no clean-up) at the one that it is told. Writes
are also torn in the middle.
"""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from tests.processes import CONTEXT, ROOT, run
from tests.reliability.figures import record
from tests.reliability.runs import assert_same_state
from tests.smoke.runs import metrics
from ttc.run import checkpoint

OPERATIONS = {"open", "write", "flush", "fsync", "replace", "rename", "unlink", "remove", "close", "mkdir", "truncate"}
WORDS = (
    "--epochs",
    3,
    "--save-every-epochs",
    2,
    "--log-every-steps",
    5,
    "--metrics-every-epochs",
    0,
    "--output",
    "run",
)
LAST = Path("run", "checkpoints", "last.pt")
DIED = 9
PARTS = 8
"""Into so many the deaths at all boundaries of a run are shared out."""


def die_at(boundary: int) -> Callable[[], int]:
    """End the process at a boundary, counted from 1: before or after an operation; return what counts them."""
    seen = 0

    def count(frame: FrameType, event: str, function: object) -> None:
        nonlocal seen
        if event not in ("c_call", "c_return", "c_exception") or getattr(function, "__name__", "") not in OPERATIONS:
            return
        file = frame.f_code.co_filename
        if "/ttc/" in file or file.endswith("pathlib.py"):
            seen += 1
            if seen == boundary:
                os._exit(DIED)

    sys.setprofile(count)
    return lambda: seen


def save_and_die(folder: str, step: int, boundary: int) -> None:
    die_at(boundary)
    state = {"step": step, "weights": {"a": step * torch_ones()}}
    path = Path(folder) / "last.pt"
    checkpoint.save(path, "test", state, keep_previous=path.with_name("previous.pt"))
    sys.setprofile(None)
    os._exit(0)


def torch_ones() -> object:
    import torch

    return torch.ones(500)


def run_and_die(folder: str, words: tuple[object, ...], boundary: int) -> None:
    """Run pretrain.py and die; write the number of boundaries when it comes to its end."""
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open(f"stream{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["pretrain.py", *map(str, words)]
    import pretrain

    seen = die_at(boundary)
    code = pretrain.main()
    sys.setprofile(None)
    Path("boundaries").write_text(str(seen()))
    os._exit(code)


def tear(folder: str, step: int, write: int) -> None:
    """Save, and die in the middle of a write."""
    real, left = io.open, write

    class Torn:
        def __init__(self, file: io.BufferedWriter) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *rest: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            nonlocal left
            left -= 1
            if left == 0:
                self.file.write(memoryview(data)[: len(data) // 2])
                self.file.flush()
                os._exit(DIED)
            return self.file.write(data)

    def opened(*words: object, **settings: object) -> object:
        file = real(*words, **settings)  # type: ignore[call-overload]  # passed on
        return Torn(file) if isinstance(file, io.BufferedWriter) else file

    io.open = opened  # type: ignore[assignment]  # in this process only, which dies
    save_and_die(folder, step, -1)


def in_child(function: Callable[..., None], *arguments: object) -> int:
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode in (0, DIED), (function.__name__, arguments, process.exitcode)
    return int(process.exitcode)


def newest(folder: Path) -> int:
    found = checkpoint.load_latest(folder, "test")
    assert found is not None
    return int(found[0]["step"])


def in_fork(function: Callable[..., None], *arguments: object) -> int:
    """Call a function that ends its process in a fork of this one, which is there at once."""
    fork = os.fork()
    if fork == 0:
        try:
            function(*arguments)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    assert code in (0, DIED), (function.__name__, arguments, code)
    return code


def die_at_every(how: str, folder: Path) -> None:
    """Save again and again, each time with a later death, until one comes to its end; write how many died."""
    for step in (1, 2):
        assert in_fork(save_and_die, str(folder), step, -1) == 0
    current, deaths = 2, 0
    while in_fork(save_and_die if how == "boundary" else tear, str(folder), current + 1, deaths + 1) == DIED:
        deaths += 1
        assert newest(folder) in (current, current + 1), f"{how} {deaths}"
        current = newest(folder)
    assert newest(folder) == current + 1
    (folder / "deaths").write_text(str(deaths))


@pytest.mark.parametrize("how", [pytest.param("boundary", marks=pytest.mark.long), "torn"])
def test_a_save_that_dies_leaves_the_old_or_the_new_checkpoint(how: str, tmp_path: Path) -> None:
    """Every boundary, in ONE folder, so that the leftovers of a death meet the next one."""
    assert in_child(die_at_every, how, tmp_path) == 0
    deaths = int((tmp_path / "deaths").read_text())
    assert deaths >= (60 if how == "boundary" else 6)
    record(f"chaos: a save, {how}", "bash scripts/test.sh --all tests/reliability/test_chaos.py", {"deaths": deaths})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return an undisturbed run and its number of boundaries."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_child(run_and_die, str(folder), WORDS, -1) == 0
    return folder, int((folder / "boundaries").read_text())


def die_and_continue(whole: Path, boundary: int, folder: Path) -> None:
    """Die at a boundary of the whole run, look for a checkpoint, repeat the command, compare."""
    assert in_child(run_and_die, str(folder), WORDS, boundary) == DIED
    checkpoint.load_latest(folder / "run" / "checkpoints", "pretrain")
    done = run("pretrain", *WORDS, folder=folder)
    assert done.code == 0, f"boundary {boundary}: {done.stderr}"
    assert_same_state(whole / LAST, folder / LAST)
    assert metrics(whole / "run") == metrics(folder / "run"), f"boundary {boundary}"
    assert not list((folder / "run").rglob(checkpoint.TEMPORARY))


def test_a_run_that_dies_at_some_boundaries_ends_the_same(whole: tuple[Path, int], tmp_path: Path) -> None:
    expected, boundaries = whole
    assert boundaries > 300
    chance = random.Random(11)
    for boundary in sorted(chance.sample(range(1, boundaries + 1), 4)):
        folder = tmp_path / str(boundary)
        folder.mkdir()
        die_and_continue(expected, boundary, folder)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_run_that_dies_at_any_boundary_ends_the_same(part: int, whole: tuple[Path, int], tmp_path: Path) -> None:
    """In parts, every eighth boundary each, so that they can be run apart."""
    expected, boundaries = whole
    mine = range(1 + part, boundaries + 1, PARTS)
    for boundary in mine:
        folder = tmp_path / str(boundary)
        folder.mkdir()
        die_and_continue(expected, boundary, folder)
    record(
        f"chaos: a whole run, boundary, part {part + 1} of {PARTS}",
        "bash scripts/test.sh --all tests/reliability/test_chaos.py",
        {"deaths": len(mine)},
    )


def test_the_children_import_this_checkout() -> None:
    assert Path(checkpoint.__file__).is_relative_to(ROOT)
