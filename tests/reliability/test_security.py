"""What SECURITY.md promises, read from the syntax trees and from the files that a run leaves."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from tests.reliability.data import image_folder

CODE = sorted([*ROOT.glob("*.py"), *(ROOT / "ttc").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
SHELL = sorted([*(ROOT / "scripts").rglob("*.sh"), *(ROOT / "scripts").rglob("*.sbatch")])

UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas.read_pickle"}
RUNNING = {"eval", "exec", "compile", "os.system", "os.popen", "runpy.run_path", "subprocess.getoutput"}
SENDING = {"requests", "httpx", "aiohttp", "smtplib", "ftplib", "wandb", "mlflow", "sentry_sdk"}
EXTRACTING = {"extractall", "extract", "unpack_archive"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[tuple[str, ast.Call, dict[str | None, str]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node, {each.arg: ast.unparse(each.value) for each in node.keywords}


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_is_unpickled_executed_or_sent(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            if (name_of(path), name) == ("scripts/prepare_ukbb_labels.py", "pickle"):
                continue  # its restricted unpickler has tests of its own, and runs only when told to
            assert not {name, name.split(".")[0]} & (UNPICKLING | SENDING), f"line {node.lineno}: {name}"
            assert name != "torch.load", f"line {node.lineno}: call it as torch.load, so that this test sees it"
    for called, node, keywords in calls(path):
        where = f"line {node.lineno}: {called}"
        assert called not in RUNNING, where
        assert called not in ("pandas.read_pickle", "pd.read_pickle", "yaml.load", "torch.hub.load"), where
        assert not called.startswith("torch.serialization"), where
        assert keywords.get("allow_pickle", "False") == "False", where
        assert keywords.get("shell", "False") == "False", where
        if called == "torch.load" or called.endswith("load_state_dict_from_url"):
            assert keywords.get("weights_only") == "True", where
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", f"{where}: say it, whatever the default is"
        if re.fullmatch(r"subprocess\.\w+", called):
            assert isinstance(node.args[0], ast.List | ast.Name | ast.Tuple), (
                f"{where}: a list of words, never a string"
            )


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_archives_are_read_in_memory_with_their_sizes_checked(path: Path) -> None:
    """No member of an archive becomes a file, so no path in it matters; sizes are compared before unpacking."""
    source = path.read_text()
    for called, node, _ in calls(path):
        assert called.rpartition(".")[2] not in EXTRACTING, f"line {node.lineno}: {called}"
        if called in ("np.load", "numpy.load") and name_of(path).startswith("ttc/"):
            assert name_of(path) == "ttc/run/npz.py", "the package reads archives through ttc.npz"
    if "zipfile.ZipFile(" in source or "tarfile.open(" in source:
        assert "file_size" in source or ".size" in source, "compare the sizes before unpacking"


@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_shell_scripts_never_evaluate_words(path: Path) -> None:
    code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"(^|[;&|]\s*|\s)eval\s", code)
    assert not re.search(r"\b(bash|sh)\s+-c\b", code)
    assert not re.search(r"(curl|wget)[^\n]*\|\s*(ba)?sh", code)


def test_no_secret_and_no_environment_gets_into_a_run(tmp_path: Path) -> None:
    secret = "sk-3f9a-very-secret"
    done = run(
        "pretrain", "--epochs", 1, "--output", "run", folder=tmp_path, env={"API_TOKEN": secret, "AWS_KEY": secret}
    )
    assert done.code == 0
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in done.stdout + done.stderr


def test_logs_hold_no_sample_ids(tmp_path: Path) -> None:
    """Ids and file names may name participants: they belong in split.csv and checkpoints' neighbours, not in logs."""
    root = image_folder(tmp_path / "images", 48)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"participant-{number:04d}.png"))
    words = ("--dataset", "imagefolder", "--data-root", root, "--image-size", 16, "--batch-size", 16, "--epochs", 2)
    done = run("pretrain", *words, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "participant" in (tmp_path / "run" / "split.csv").read_text()
    told = [done.stdout, done.stderr]
    for name in ("log.txt", "metrics.jsonl", "env.json", "args.json", "result.json"):
        told.append((tmp_path / "run" / name).read_text())
    told += [path.read_bytes().decode("latin-1") for path in (tmp_path / "run" / "tb").rglob("*") if path.is_file()]
    told.append((tmp_path / "run" / "checkpoints" / "last.pt").read_bytes().decode("latin-1"))
    assert not any("participant" in text for text in told)


def test_files_belong_to_the_user_alone_where_the_umask_says_so(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        done = run("pretrain", "--epochs", 1, "--output", "run", folder=tmp_path)
    finally:
        os.umask(before)
    assert done.code == 0
    assert {oct(path.stat().st_mode & 0o077) for path in (tmp_path / "run").rglob("*")} <= {"0o0", "0o55", "0o44"}


def test_the_promises_are_written_down() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for promise in ("weights_only", "sha256", "allow_pickle", "docs/reliability.md"):
        assert promise in text
