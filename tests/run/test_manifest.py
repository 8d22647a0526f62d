"""Manifests: what is read and refused, how lines are crossed, and what the status says about files and locks."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.make_manifest import build_parser, cross
from tests.processes import ROOT, Result, run
from ttc.run import manifest
from ttc.run.manifest import Entry, Line, status

CELL = Line("a", "runs/a", {"pretrain": ("--lr", "0.1", "--classes", "a b"), "linear_eval": ()})
WORDS: list[str] = list(CELL.steps["pretrain"])


def keep(words: Sequence[str]) -> list[str]:
    return list(words)


def done(state: str = "done", words: list[str] | None = None) -> Entry:
    return Entry(words=WORDS if words is None else words, state=state, seconds=2.0, message="the reason")


def make(*words: str, folder: Path) -> Result:
    return run("scripts.make_manifest", *words, "--output", folder / "m.csv", folder=folder)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    other = Line("b", "runs/b", {"pretrain": ("--x", 'a"b', "c,d"), "linear_eval": ("--layers", "encoder")})
    path.write_text(manifest.write_manifest([CELL, other], "made by hand"))
    assert manifest.read_manifest(path) == [CELL, other]
    assert path.read_text().startswith("# made by hand\n")
    assert CELL.command("pretrain", Path("r")) == ["pretrain.py", *WORDS, "--output", "r/runs/a"]
    assert CELL.command("linear_eval", Path("r")) == ["linear_eval.py", "--checkpoint", "r/runs/a/checkpoints/last.pt"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the first line must be name,folder,pretrain"),
        ("name,folder,linear_eval\n", "the first line must be"),
        ("name,folder,pretrain,rm\n", "column rm is no step"),
        ("name,folder,pretrain\n", "holds no line"),
        ("name,folder,pretrain\na,a\n", "m.csv:2: 2 columns instead of 3"),
        ("name,folder,pretrain\n../a,a,\n", "name '../a' must be"),
        ("name,folder,pretrain\na,../a,\n", "folder '../a' must lie in"),
        ("name,folder,pretrain\na,/a,\n", "folder '/a' must lie in"),
        ("name,folder,pretrain\na,cells/a,\n", "must lie in the folder of the results, outside"),
        ("name,folder,pretrain\na,a,--lr 'x\n", "no closing quotation"),
        ("name,folder,pretrain\na,a,--output=x\n", "--output=x is given by the runner"),
        ("name,folder,pretrain\na,a,\na,b,\n", "two lines have the name a"),
        ("name,folder,pretrain\na,a,\nb,a,\n", "two lines have the folder a"),
    ],
)
def test_bad_manifests_are_refused_in_one_line(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"m\.csv") as caught:
        manifest.read_manifest(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_never_reach_a_shell(tmp_path: Path) -> None:
    hostile = "--method '; touch hacked #' $(touch hacked)"
    (tmp_path / "m.csv").write_text(f'name,folder,pretrain\na,a,"{hostile}"\n')
    ended = run("scripts.run_cells", tmp_path / "m.csv", "--output", tmp_path / "r", folder=tmp_path)
    assert ended.code == 1
    assert "a: failed pretrain" in ended.stderr
    assert not list(tmp_path.rglob("hacked")) + list(ROOT.glob("hacked"))


def test_status_follows_records_files_and_locks(tmp_path: Path) -> None:
    assert status(CELL, tmp_path, keep).state == "missing"
    run_folder = tmp_path / CELL.folder
    (run_folder / "linear_eval").mkdir(parents=True)
    assert status(CELL, tmp_path, keep) == manifest.Status("stopped", "pretrain")
    CELL.log(tmp_path).parent.mkdir()
    manifest.write_record(CELL, tmp_path, {"pretrain": done("failed")})
    assert status(CELL, tmp_path, keep) == manifest.Status("failed", "pretrain", "the reason")
    record = {"pretrain": done(), "linear_eval": done(words=[])}
    manifest.write_record(CELL, tmp_path, record)
    (run_folder / "result.json").touch()
    assert status(CELL, tmp_path, keep) == manifest.Status("stopped", "linear_eval"), "its result is missing"
    (run_folder / "linear_eval" / "result.json").touch()
    assert status(CELL, tmp_path, keep) == manifest.Status("done", "", "4 s")
    assert status(CELL, tmp_path, lambda words: [*words, "changed recipe"]).state == "stopped"
    # The lock belongs to another process, and goes with it however it ends.
    code = "import sys, pathlib; from ttc.run import manifest; f = manifest.lock(pathlib.Path(sys.argv[1])); input()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}", str(CELL.log(tmp_path))], cwd=ROOT, stdin=subprocess.PIPE
    ) as holder:
        while status(CELL, tmp_path, keep).state != "running":
            assert holder.poll() is None
        holder.kill()
    assert status(CELL, tmp_path, keep).state == "done"


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("--lr 0.1 --classes 'a b'", "done"),
        ("--num-workers 4 --lr 0.1 --classes 'a b'", "done"),
        ("--lr 0.1 --save-every-epochs=5 --classes 'a b' --device cpu --log-every-steps 3", "done"),
        ("--lr 0.2 --classes 'a b'", "stopped"),
        ("--lr 0.1 --classes 'a b' c", "stopped"),
        ("--lr 0.1 --classes 'a b' --seed 1", "stopped"),
        ("--lr 0.1 --classes 'a b' --num-workers-of-tomorrow 4", "stopped"),
        ("--lr 0.1 --num-workers 'a b'", "stopped"),
    ],
)
def test_lines_that_differ_in_where_they_run_are_the_same(words: str, state: str, tmp_path: Path) -> None:
    cell = Line("a", "a", {"pretrain": tuple(shlex.split(words))})
    for folder in ("a", "cells"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "result.json").touch()
    manifest.write_record(cell, tmp_path, {"pretrain": done(words=["--num-workers", "0", *WORDS])})
    assert status(cell, tmp_path, keep).state == state


def test_lines_are_crossed_and_left_out(tmp_path: Path) -> None:
    words = ["--recipes", "fashion-mix5-50", "fashion-mix5-99", "--methods", "untrained:1", "supcon:2", "supmin"]
    words += ["--seeds", "1", "--samplers", "shuffle", "balanced", "--skip", "*-50-supmin-*", "*-50-*-balanced-*"]
    words += ["--method-flags", "supmin=--temperature 0.2", "--data-root", "/a b", "fashion-mix5-99=/c"]
    words += ["--steps", "pretrain=--epochs 1", "finetune=--lr 1"]
    words += ["--recipe-flags", "fashion-mix5-50:pretrain=--lr 2", "fashion-mix5-50:finetune=--epochs 3"]
    made = make(*words, folder=tmp_path)
    assert made.code == 0, made.stderr
    cells = {cell.name.removeprefix("fashion-mix5-"): cell for cell in manifest.read_manifest(tmp_path / "m.csv")}
    common = {"50-untrained-seed0", "50-supcon-seed0", "50-supcon-seed1"}
    assert cells.keys() == common | {
        *("99-untrained-seed0", "99-supcon-seed0", "99-supcon-seed1", "99-supmin-seed0"),
        *("99-supcon-balanced-seed0", "99-supcon-balanced-seed1", "99-supmin-balanced-seed0"),
    }
    cell = cells["99-supmin-balanced-seed0"]
    expected = "@scripts/recipes/fashion-mix5-99.args --data-root /c --seed 0 --method supmin --batch-sampler balanced"
    assert shlex.join(cell.steps["pretrain"]) == f"{expected} --temperature 0.2 --epochs 1"
    assert cell.steps["finetune"] == ("--lr", "1")
    assert cell.folder == "fashion-mix5-99/supmin-balanced-seed0"
    assert "'/a b'" in shlex.join(cells["50-supcon-seed0"].steps["pretrain"])
    other = cells["50-untrained-seed0"]
    assert other.steps["pretrain"][-6:] == ("--epochs", "0", "--epochs", "1", "--lr", "2")
    assert other.steps["finetune"] == ("--lr", "1", "--epochs", "3")


def test_variants_are_rows_of_their_own(tmp_path: Path) -> None:
    variants = ("cold:2=--method supcon --temperature 0.02", "joint=@scripts/recipes/joint-balanced.args")
    made = make("--recipes", "fashion-mix5-99", "--seeds", 1, "--variants", *variants, folder=tmp_path)
    assert made.code == 0, made.stderr
    cells = {cell.name: shlex.join(cell.steps["pretrain"]) for cell in manifest.read_manifest(tmp_path / "m.csv")}
    recipe = "@scripts/recipes/fashion-mix5-99.args"
    assert cells == {
        "cold-seed0": f"{recipe} --seed 0 --method supcon --temperature 0.02",
        "cold-seed1": f"{recipe} --seed 1 --method supcon --temperature 0.02",
        "joint-seed0": f"{recipe} --seed 0 @scripts/recipes/joint-balanced.args",
    }


def test_folds_are_lines_of_their_own() -> None:
    words = ["--recipes", "fashion-mix5-99", "--methods", "supmin:2", "untrained:1", "--folds", "3"]
    cells = {cell.folder: cell for cell in cross(build_parser().parse(words).namespace())}
    assert list(cells) == [
        *(f"supmin-seed{seed}-fold{fold}of3" for seed in (0, 1) for fold in (1, 2, 3)),
        *(f"untrained-seed0-fold{fold}of3" for fold in (1, 2, 3)),
    ]
    recipe = "@scripts/recipes/fashion-mix5-99.args"
    expected = f"{recipe} --seed 1 --fold 2/3 --method supmin"
    assert shlex.join(cells["supmin-seed1-fold2of3"].steps["pretrain"]) == expected
    assert cells["supmin-seed1-fold2of3"].steps["linear_eval"] == (), "the checkpoint says which fold it is"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--recipes", "none", "--methods", "supmin"], "--recipes none: scripts/recipes/none.args is missing"),
        (["--recipes", "plants-99", "--methods", "supmax"], "--methods supmax is unknown"),
        (["--recipes", "plants-99", "--methods", "supmin:x"], "write METHOD:SEEDS"),
        (["--recipes", "plants-99", "--methods", "supmin", "--steps", "linear_eval"], "the first step is pretrain"),
        (["--recipes", "plants-99", "--methods", "supmin", "--steps", "pretrain", "rm"], "--steps rm is not known"),
        (["--recipes", "plants-99", "--methods", "supmin", "--method-flags", "ce=x"], "--method-flags ce is not known"),
        (
            ["--recipes", "plants-99", "--methods", "kcl", "--recipe-flags", "plants-95:pretrain=x"],
            "plants-95:pretrain is",
        ),
        (["--recipes", "plants-99", "--methods", "supmin", "--data-root", "x=/y"], "--data-root x is not known"),
        (["--recipes", "plants-99", "--methods", "supmin", "--skip", "*"], "leaves no line"),
        (["--recipes", "plants-99"], "--methods and --variants name no row"),
        (["--recipes", "plants-99", "--variants", "a:0=--lr 1"], "write NAME:SEEDS"),
    ],
)
def test_manifests_that_cannot_be_made_are_refused(words: list[str], part: str, tmp_path: Path) -> None:
    refused = make(*words, folder=tmp_path)
    assert refused.code == 1
    assert part in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "m.csv").exists()


def test_the_manifests_of_the_papers_tables_probe_as_their_recipes_say(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    commands = re.findall(r"^python (scripts/make_manifest.py --output table\d.csv (?:.*\\\n)*.*)", page, re.MULTILINE)
    compared = {"weighted-ce", "supcon", "supmin", "supproto", "simclr", "paco", "kcl", "tsc", "sbc", "bcl"}
    # 9 recipes x (untrained + 10 methods x 2 samplers) x 3 seeds without supmin where no class is rare; 4 x 11 x 3.
    for command, count in zip(commands, (9 * 21 * 3 - 3 * 2 * 3, 4 * 11 * 3), strict=True):
        words = shlex.split(command.replace("\\\n", " "))
        made = run("scripts.make_manifest", *words[1:], folder=tmp_path)
        assert made.code == 0, made.stderr
        cells = manifest.read_manifest(tmp_path / words[2])
        assert len(cells) == count
        parsed = [dict(itertools.pairwise(cell.steps["pretrain"])) for cell in cells]
        assert {flags["--method"] for flags in parsed if flags.get("--epochs") != "0"} == compared
        for cell in cells:
            recipe = (ROOT / cell.steps["pretrain"][0].removeprefix("@")).read_text()
            (said,) = re.findall(r"linear_eval.py --checkpoint RUN/checkpoints/last.pt (.*)", recipe)
            assert shlex.join(cell.steps["linear_eval"]) == said, cell.name


@pytest.mark.parametrize("path", sorted((ROOT / "scripts" / "manifests").glob("*.csv")), ids=lambda path: path.stem)
def test_committed_manifests_are_what_their_first_line_makes(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    words = shlex.split(text.splitlines()[0].removeprefix("# "))
    assert words[:2] == ["python", "scripts/make_manifest.py"]
    assert words[-2:] == ["--output", str(path.relative_to(ROOT))]
    made = make(*words[2:-2], folder=tmp_path)
    assert made.code == 0, made.stderr
    found = (tmp_path / "m.csv").read_text()
    assert found.splitlines()[1:] == text.splitlines()[1:]
