"""Files of a run are opened without following links, without truncating, and never wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.processes import run
from ttc.run import checkpoint, files, manifest, npz
from ttc.run.folder import RunFolder

KINDS = ("link", "dangling link", "link to a folder", "pipe", "socket", "device")


def put(kind: str, path: Path, outside: Path) -> None:
    """Put something that is no regular file in the place of an entry of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listening:  # by a short name: these are at most 108 letters long
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    else:
        target = {"link": outside / "thesis.tex", "dangling link": outside / "new", "link to a folder": outside}[kind]
        path.symlink_to(target)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder of the user's that no script may touch or show."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "thesis.tex").write_text("important")
    return folder


def untouched(outside: Path) -> bool:
    return [(path.name, path.read_text()) for path in outside.iterdir()] == [("thesis.tex", "important")]


@pytest.mark.parametrize(
    "name", [".lock", "log.txt", "tb", "metrics", "linear_eval/.lock", "checkpoints/last.pt", "a/b"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_folder_with_links_or_pipes_is_refused(kind: str, name: str, outside: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / name
    try:
        put(kind, path, outside)
    except PermissionError:
        pytest.skip("making a device needs root")
    with pytest.raises(ValueError, match=rf"/run/{name} is a (link|pipe|socket|device); "):
        RunFolder(tmp_path / "run").claim({"lr": 1})
    assert untouched(outside)


def test_a_run_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch disk").mkdir()
    (tmp_path / "run").symlink_to("scratch disk")
    folder = RunFolder(tmp_path / "run")
    assert not folder.claim({"lr": 1})
    folder.save_arguments({"lr": 1}, {"lr": "default"}, {})
    assert folder.settings() == {"lr": 1}
    assert (tmp_path / "scratch disk" / "args.json").is_file()


def readers(path: Path, within: Path) -> list[Callable[[], object]]:
    return [
        lambda: files.read_bytes(path, within),
        lambda: files.open_binary(path, within).close(),
        lambda: files.open_append(path, within).close(),
        lambda: checkpoint.load(path, "heads", within=within),
        lambda: npz.read_arrays(path, ["a"], within),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_reading_and_appending_refuse_what_is_no_regular_file(kind: str, outside: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "inner" / "x"
    try:
        put(kind, path, outside)
    except PermissionError:
        pytest.skip("making a device needs root")
    for use in readers(path, tmp_path / "run"):
        with pytest.raises((ValueError, OSError), match=r"."):
            use()
    assert untouched(outside)


def test_a_link_on_the_way_is_refused_and_named(outside: Path, tmp_path: Path) -> None:
    put("link to a folder", tmp_path / "run" / "linear_eval", outside)
    for use in readers(tmp_path / "run" / "linear_eval" / "thesis.tex", tmp_path / "run"):
        with pytest.raises(ValueError, match=r"linear_eval/thesis\.tex is, or lies behind, a link"):
            use()
    assert untouched(outside)


def test_what_the_user_names_may_be_a_link_but_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "named").symlink_to("real")
    assert files.read_bytes(tmp_path / "named") == b"content"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe; name a regular file"):
        files.read_bytes(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        files.read_bytes(tmp_path)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "last.pt").open("wb") as file:
        file.truncate(2**42)  # takes no space
    with pytest.raises(ValueError, match="has 4096 GiB, this machine's memory"):
        checkpoint.load(tmp_path / "last.pt", "pretrain")


def test_writing_replaces_links_and_leaves_their_targets_alone(outside: Path, tmp_path: Path) -> None:
    put("link", tmp_path / "run" / "result.json", outside)
    put("link", tmp_path / "run" / f".result.json.{os.getpid()}.tmp", outside)
    files.replace(tmp_path / "run" / "result.json", b"{}")
    assert (tmp_path / "run" / "result.json").read_bytes() == b"{}"
    assert not (tmp_path / "run" / "result.json").is_symlink()
    assert untouched(outside)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_log_of_a_manifests_line_is_never_a_link(kind: str, outside: Path, tmp_path: Path) -> None:
    cell = manifest.Line("a", "a", {"pretrain": ()})
    put(kind, cell.log(tmp_path / "results"), outside)
    with pytest.raises(ValueError, match=r"cells/a\.log is"):
        manifest.lock(cell.log(tmp_path / "results"))
    put(kind, cell.record(tmp_path / "results"), outside)
    with pytest.raises(ValueError, match=r"cells/a\.json is"):
        manifest.read_record(cell, tmp_path / "results")
    assert untouched(outside)


@pytest.mark.parametrize("name", ["metrics", "metrics/.lock", "checkpoints/last.pt"])
def test_an_evaluation_touches_nothing_outside_of_its_run(
    name: str, pretrained_run: Path, outside: Path, tmp_path: Path
) -> None:
    """The worst of the reports: the lock of a downloaded run was a link, and its target lost its content."""
    copy = tmp_path / "run" / "checkpoints"
    copy.mkdir(parents=True)
    for path in (pretrained_run / "checkpoints").glob("last.pt*"):
        (copy / path.name).write_bytes(path.read_bytes())
    put("link to a folder" if name == "metrics" else "link", tmp_path / "run" / name, outside)
    done = run("compute_metrics", "--checkpoint", copy / "last.pt", "--peu-draws", 0, folder=tmp_path)
    assert (done.code, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"{tmp_path}/run/{name} is" in done.stderr
    assert untouched(outside)


def test_arrays_are_read_through_the_same_door(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", a=np.arange(3))
    assert npz.read_arrays(tmp_path / "e.npz", ["a"], tmp_path)[0].tolist() == [0, 1, 2]
    assert npz.array_names(tmp_path / "e.npz", tmp_path) == {"a"}
