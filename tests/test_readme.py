"""The README tells the truth: its commands parse and plan, its files exist, its code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.processes import ROOT, run
from ttc.results import brief
from ttc.results.ledger_lines import from_csv
from ttc.results.table_parts.paper import columns_for, page_probe
from ttc.results.tables import as_markdown, build_table

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


PRETRAINED = [command for command in COMMANDS if "--data-root FOLDER" in command and "pretrain.py" in command]


def test_commands_with_pretrained_weights_are_those_that_another_test_runs() -> None:
    text = (ROOT / "docs" / "choosing.md").read_text()  # tests/smoke/test_pretrained_start.py follows that page
    assert len(PRETRAINED) == 3
    assert all(f"\n{command}\n" in text for command in PRETRAINED)


@pytest.mark.parametrize("command", [line for line in COMMANDS if "pretrain.py" in line and line not in PRETRAINED])
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


@pytest.mark.slow
def test_evaluation_commands_run(tmp_path: Path) -> None:
    make_data(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)[2:]
        if command.startswith("python pretrain.py --dataset digits"):
            assert run("pretrain", *words, "--epochs", 1, folder=tmp_path).code == 0
        elif "--output" in words and command.startswith("python pretrain.py") and command not in PRETRAINED:
            small = ("--epochs", 1, "--encoder", "convnet-w8", "--image-size", 16, "--batch-size", 64)
            assert run("pretrain", *words, *small, folder=tmp_path).code == 0
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


def test_tables_are_those_of_their_ledgers() -> None:
    """A table that was edited by hand, or left behind by a new ledger or another layout, is stale."""
    ledgers = sorted((ROOT / "docs" / "results").glob("*-ledger.csv"))
    assert len(ledgers) >= 6
    for path in ledgers:
        page = path.with_name(path.name.replace("-ledger.csv", ".md"))
        remedy = (
            f"python scripts/collect_results.py --from-csv {path.relative_to(ROOT)} --output {page.with_suffix('')}"
        )
        lines = from_csv(path)
        table = build_table(lines, columns_for(page_probe(lines), lines))
        assert page.read_text() == as_markdown(table), f"{page} is stale; run {remedy}"


def test_the_quickstarts_table_is_that_of_its_ledger() -> None:
    path = "docs/results/quickstart-ledger.csv"
    (text,) = re.findall(r"<!-- quickstart: begin -->\n(.*?)<!-- quickstart: end -->", README, re.DOTALL)
    remedy = f"python scripts/collect_results.py --from-csv {path} --brief --readme README.md --block quickstart"
    assert text == brief.as_markdown(from_csv(ROOT / path)), f"stale; run {remedy}"
    assert text.count("\n| ") >= 7
