"""Who may use a run folder, and what is written there."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.processes import call
from ttc.run import ledger
from ttc.run.folder import RunFolder, differing, shorten, tell, truncate_jsonl

VALUES: dict[str, object] = {"lr": 0.1, "classes": [["0"], ["1"]], "encoder": None, "output": "x", "num_workers": 2}
SOURCES = dict.fromkeys(VALUES, "default")


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(VALUES)
    folder.save_arguments(VALUES, SOURCES, {"encoder": "convnet-w8", "output": "y"})
    return folder


def release(folder: RunFolder) -> None:
    """End the use as the end of the process does."""
    folder._lock.close()  # type: ignore[union-attr]  # a file


def test_arguments_tell_where_they_come_from(tmp_path: Path) -> None:
    folder = begun(tmp_path / "a" / "b")
    found = json.loads((folder.path / "args.json").read_text())
    assert found["lr"] == {"value": 0.1, "source": "default"}
    assert found["encoder"] == {"value": "convnet-w8", "source": "derived"}
    assert found["output"] == {"value": "x", "source": "default"}


def test_the_same_command_comes_back_and_another_does_not(tmp_path: Path) -> None:
    release(begun(tmp_path / "run"))
    again = RunFolder(tmp_path / "run")
    again.claim({**VALUES, "classes": (("0",), ("1",)), "output": "elsewhere", "num_workers": 0})
    release(again)
    before = (tmp_path / "run" / "args.json").read_bytes()
    for changed, part in (
        ({"lr": 0.2}, r"--lr \(0\.1 there, 0\.2 now\)"),
        ({"encoder": "resnet50"}, r"--encoder \(None there, resnet50 now\)"),
        ({"new_flag": 1}, r"--new-flag \(None there, 1 now\)"),
    ):
        with pytest.raises(ValueError, match=f"holds another run: {part}; choose another folder"):
            RunFolder(tmp_path / "run").claim({**VALUES, **changed})
    with pytest.raises(ValueError, match="holds a run and --resume is never"):
        RunFolder(tmp_path / "run").claim(VALUES, resume="never")
    assert (tmp_path / "run" / "args.json").read_bytes() == before


def test_foreign_places_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("important")
    (tmp_path / "file").touch()
    for name, part in (
        ("full", "is not empty and holds no run"),
        ("file", "is a file"),
        ("file/in", "cannot be written"),
    ):
        with pytest.raises(ValueError, match=f"--output .*{name} {part}"):
            RunFolder(tmp_path / name).claim(VALUES)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"lr": 3}', '{"lr": {"value": 1}}'])
def test_damaged_arguments_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text(text)
    with pytest.raises(ValueError, match=r"args\.json(, .*,)? is damaged: .*; choose another --output"):
        RunFolder(tmp_path).claim(VALUES)


def test_what_a_failed_set_up_leaves_does_not_count(tmp_path: Path) -> None:
    for name in (".lock", "log.txt", ".args.json.99.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").claim(VALUES)
    (tmp_path / "empty" / ".lock").unlink()
    (tmp_path / "empty").rmdir()
    RunFolder(tmp_path).claim(VALUES)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "log.txt"]


def test_files_of_a_run_inside_are_left_to_it(tmp_path: Path) -> None:
    """A finished run is asked for again while a fine-tuning of it writes in a folder of its own inside."""
    release(begun(tmp_path))
    inner = begun(tmp_path / "finetune")
    half_written = tmp_path / "finetune" / "checkpoints" / ".last.pt.7.tmp"
    leftover = tmp_path / "checkpoints" / ".last.pt.99.tmp"
    for path in (half_written, leftover):
        path.parent.mkdir()
        path.touch()
    RunFolder(tmp_path).claim(VALUES)
    assert half_written.exists()
    assert not leftover.exists()
    release(inner)
    RunFolder(tmp_path / "finetune").claim(VALUES)
    assert not half_written.exists()


def claim_elsewhere(path: str) -> None:
    """Claim the folder in this process, which ends with 0 when it is refused."""
    try:
        RunFolder(Path(path)).claim(VALUES)
    except ValueError as error:
        os._exit(0 if "is in use by another process" in str(error) else 3)
    os._exit(4)


def fork_and_sleep() -> int:
    """Start a process that inherits everything, as those that decode images do; return its number."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = begun(tmp_path)
    assert call(claim_elsewhere, str(tmp_path)) == 0
    heir = fork_and_sleep()
    release(first)
    assert call(claim_elsewhere, str(tmp_path)) == 4
    os.kill(heir, signal.SIGKILL)
    os.waitpid(heir, 0)


def test_finished_means_a_result(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    assert not folder.finished
    folder.save_json("result.json", {"kind": "test"})
    assert folder.finished
    assert not RunFolder(tmp_path, result="other.json").finished


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).save_json("a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_truncated_metrics_end_at_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_jsonl(path, 3)
    assert not path.exists()
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3, 3, 4, 5)]
    path.write_text("\n".join(lines) + '\n{"step": 6, "lo')
    truncate_jsonl(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 3]
    assert path.read_text().endswith("\n")
    path.write_text(lines[0] + '\n{"st')
    truncate_jsonl(path, 3)
    assert path.read_text() == lines[0] + "\n"
    truncate_jsonl(path, 0)
    assert path.read_text() == ""


def test_differences_are_listed_in_order() -> None:
    assert differing({"b": 1, "a_b": (1, 2)}, {"b": 2, "a_b": [1, 2], "seed": 0}) == [
        "--b (1 there, 2 now)",
        "--seed (None there, 0 now)",
    ]
    assert shorten(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert shorten(["a"]) == "a"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_short_line_and_a_pipe_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = {"auroc": {"mean": 0.91234567, "low": 0.9, "high": 1.0}, "details": {"groups": ["x" * 50] * 200}, "n": 9}
    result = ledger.complete({"kind": "linear_eval", "seed": 0, "probes": {"encoder": {"all": probe}}}, {})
    folder = RunFolder(tmp_path)
    file = folder.save_json("result.json", result)

    def told(stream: io.StringIO, whole: bool, *, again: bool) -> str:
        monkeypatch.setattr("sys.stdout", stream)
        folder.tell(whole) if again else tell(result, file, whole)
        return stream.getvalue()

    for again in (True, False):
        short = told(Terminal(), whole=False, again=again)
        assert short.count("\n") == 1
        assert len(short) < 300
        assert json.loads(short) == {"kind": "linear_eval", "result": str(file), "encoder/all/auroc": 0.9123}
        for stream, whole in ((Terminal(), True), (io.StringIO(), False)):
            assert json.loads(told(stream, whole, again=again)) == json.loads(file.read_text())
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    tell(result, None)
    assert json.loads(stream.getvalue()) == result, "what no file holds is printed"
