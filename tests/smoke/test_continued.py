"""A run that an earlier version began keeps its draw; a checkpoint is the same file wherever it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import run
from ttc.run import checkpoint

WORDS = ("--dataset", "csv", "--image-size", 8, "--batch-size", 16, "--method", "supmin", "--encoder", "convnet-w8")
NEW = ("split_rule", "path_column", "group_column", "split_column", "id_column")
QUICK = ("--num-workers", 0, "--bootstrap", 0, "--layers", "encoder", "--floor", "none")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eighty images of forty patients, of whom ten have one ill image each, among three."""
    generator, rows = np.random.default_rng(0), ["path,label,group"]
    for number in range(120):
        ill = number % 12 == 0
        pixels = generator.integers(0, 200, (8, 8)) + 55 * ill
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ill' if ill else 'well'},p{number // 3}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


def test_a_continued_run_keeps_the_rule_of_its_draw(table: Path, tmp_path: Path) -> None:
    words = (*WORDS, "--data-root", table, "--epochs", 1, "--num-workers", 0)
    for name, more in (("new", ()), ("earlier", ("--split-rule", 1))):
        assert run("pretrain", *words, *more, "--output", name, folder=tmp_path).code == 0
    splits = {name: (tmp_path / name / "split.csv").read_bytes() for name in ("new", "earlier")}
    assert splits["new"] != splits["earlier"]
    # As a version without the flag left it, before its last epoch.
    arguments = json.loads((tmp_path / "earlier" / "args.json").read_text())
    for name in NEW:
        del arguments[name]
    (tmp_path / "earlier" / "args.json").write_text(json.dumps(arguments))
    last = tmp_path / "earlier" / "checkpoints" / "last.pt"
    state = checkpoint.load(last, "pretrain")
    for name in NEW:
        del state["args"][name], state["description"]["data"][name]
    checkpoint.save(last, "pretrain", state)
    (tmp_path / "earlier" / "result.json").unlink()
    (tmp_path / "earlier" / "split.csv").write_bytes(splits["earlier"][:500])  # and a full disk left of its table
    done = run("pretrain", *words, "--output", "earlier", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "split.csv is not the split of this run (a full disk?); it is written again" in done.stderr
    assert (tmp_path / "earlier" / "split.csv").read_bytes() == splits["earlier"]


def test_a_checkpoint_is_the_same_file_by_any_path_and_after_a_move(table: Path, tmp_path: Path) -> None:
    words = (*WORDS, "--data-root", table, "--epochs", 0, "--num-workers", 0)
    assert run("pretrain", *words, "--output", "run", folder=tmp_path).code == 0
    first = run("linear_eval", "--checkpoint", "run/checkpoints/last.pt", *QUICK, folder=tmp_path)
    assert first.code == 0, first.stderr
    assert "probe minority is left out: it would learn from 7 images of each class" in first.stderr
    again = run("linear_eval", "--checkpoint", "./run/../run/checkpoints/last.pt", *QUICK, folder=tmp_path)
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = run("linear_eval", "--checkpoint", "moved/checkpoints/last.pt", *QUICK, folder=tmp_path)
    for result in (again, moved):
        assert result.code == 0, result.stderr
        assert "nothing to do" in result.stderr
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "moved" / "checkpoints" / "last.pt", tmp_path / "copy" / "model.pt")
    assert run("linear_eval", "--checkpoint", "copy/model.pt", *QUICK, folder=tmp_path).code == 0
    (tmp_path / "new").mkdir()
    for name in ("0.png", "._0.png", ".hidden.png"):
        shutil.copy(tmp_path / "0.png", tmp_path / "new" / name)
    done = run("scripts.predict", "--checkpoint", "copy/model.pt", "--images", "new", "--output", "-", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["id", "0.png"]
