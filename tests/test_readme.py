"""The README tells the truth: its commands parse and plan, its files exist, its code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from study import paired, tables
from tests.processes import ROOT, run
from ttc.results.ledger_lines import from_csv
from ttc.results.tables import as_markdown, build_table
from ttc.run.manifest import read_manifest

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
FASHION = Path("/usr/share/datasets/fashion-mnist")


def make_data(folder: Path) -> None:
    from PIL import Image

    lines = ["path,label"]
    for label, count in ((0, 220), (1, 60)):
        for number in range(count):
            path = folder / "FOLDER" / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = (number % 256, (7 * number + 100 * label) % 256, (13 * number) % 256)
            Image.new("RGB", (16, 16), colour).save(path)
            lines.append(f"{path},{label}")
    (folder / "TABLE.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("command", [each for each in COMMANDS if "pretrain.py" in each])
def test_pretraining_commands_plan(command: str, tmp_path: Path) -> None:
    if "fashion" in command and not FASHION.is_dir():
        pytest.skip(f"needs {FASHION} (Debian's package dataset-fashion-mnist)")
    make_data(tmp_path)
    words = shlex.split(command)
    words = words[words.index("pretrain.py") + 1 :]
    words = [f"@{ROOT / word[1:]}" if word.startswith("@") else word for word in words]
    result = run("pretrain", *words, "--encoder", "convnet-w8", "--dry-run", folder=tmp_path)
    assert result.code == 0, result.stderr
    assert "epochs of" in result.stderr


def test_every_other_command_is_known() -> None:
    known = ("bash scripts/", "torchrun", "python scripts/", "python -m tensorboard.main")
    scripts = tuple(f"python {path.name}" for path in ROOT.glob("*.py") if path.name != "hubconf.py")
    for command in COMMANDS:
        assert command.startswith((*known, *scripts)), command
        for name in re.findall(r"(?:scripts/)?[a-z_]+\.(?:py|sh)\b", command):
            assert (ROOT / name).is_file(), name


def test_evaluation_commands_run(tmp_path: Path) -> None:
    for command in COMMANDS:
        words = shlex.split(command)
        if command.startswith("python pretrain.py --dataset digits"):
            assert run("pretrain", *words[2:], "--epochs", 1, folder=tmp_path).code == 0
    for command in COMMANDS:
        for script in ("linear_eval", "finetune", "compute_metrics"):
            if command.startswith(f"python {script}.py"):
                result = run(script, *shlex.split(command)[2:], folder=tmp_path)
                assert result.code == 0, result.stderr


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"`((?:ttc|tests|scripts|docs)/[\w./]*)`", README):
        assert (ROOT / target).exists(), target


def test_the_snippet_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    z = torch.nn.functional.normalize(torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    scope: dict[str, object] = {"z": z, "labels": torch.tensor([0, 0, 0, 0, 1, 1])}
    exec(compile(snippet, "README.md", "exec"), scope)  # the project's own text
    loss = scope["loss"]
    assert isinstance(loss, torch.Tensor)
    assert loss.isfinite()


def test_the_summary_of_the_study_is_that_of_its_ledger() -> None:
    cells = read_manifest(ROOT / "scripts" / "manifests" / "study.csv")
    runs = paired.finished_runs(cells, from_csv(ROOT / "docs" / "results" / "study-ledger.csv"))
    (text,) = re.findall(r"<!-- study: begin -->\n(.*?)<!-- study: end -->", README, re.DOTALL)
    stale = "stale; run python study/write_page.py --readme README.md"
    assert text == tables.summary(runs), stale


@pytest.mark.parametrize("block", sorted({*re.findall(r"<!-- ([\w-]+): begin -->", README)} - {"study"}))
def test_tables_are_those_of_the_ledger(block: str) -> None:
    """A table that was edited by hand, or left behind by a new ledger or another layout, is stale."""
    path = ROOT / "docs" / "results" / f"{block}-ledger.csv"
    assert path.is_file(), f"make it: scripts/collect_results.py --output docs/results/{block} RUN ..."
    (text,) = re.findall(rf"<!-- {block}: begin -->\n(.*?)<!-- {block}: end -->", README, re.DOTALL)
    command = (
        f"python scripts/collect_results.py --from-csv {path.relative_to(ROOT)} --readme README.md --block {block}"
    )
    assert text == as_markdown(build_table(from_csv(path))), f"stale; run {command}"
    assert text.count("\n| ") >= 7
