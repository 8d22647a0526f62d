"""What SECURITY.md promises, read from the syntax trees and from the files that a run leaves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from tests.reliability.data import image_folder
from tests.syntax import calls, name_of, none, tree_of

ROOMS = ("ttc", "scripts", "study", "benchmarks")

CODE = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
SHELL = sorted([*(ROOT / "scripts").rglob("*.sh"), *(ROOT / "scripts").rglob("*.sbatch"), ROOT / ".ci" / "run"])

UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas.read_pickle"}
SENDING = {"requests", "httpx", "aiohttp", "smtplib", "ftplib", "wandb", "mlflow", "sentry_sdk"}
EXTRACTING = {"extractall", "extract", "unpack_archive"}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree_of(path)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            yield f"{name_of(path)}:{node.lineno}", name  # type: ignore[attr-defined]


def test_no_module_unpickles_or_sends() -> None:
    # The restricted unpickler of prepare_ukbb_labels.py has tests of its own, and runs only when told to.
    pairs = [
        (where, name)
        for path in CODE
        for where, name in imported(path)
        if (name_of(path), name) != ("scripts/prepare_ukbb_labels.py", "pickle")
    ]
    none(f"{where}: {name}" for where, name in pairs if {name, name.split(".")[0]} & (UNPICKLING | SENDING))
    none(
        f"{where}: call it as torch.load, so that the next test sees it"
        for where, name in pairs
        if name == "torch.load"
    )


def test_archives_are_read_in_memory_with_their_sizes_checked() -> None:
    """No member of an archive becomes a file, so no path in it matters; sizes are compared before unpacking."""
    offenders = []
    for path in CODE:
        source = path.read_text()
        for where, called, _ in calls(path):
            in_package = called in ("np.load", "numpy.load") and name_of(path).startswith("ttc/")
            if called.rpartition(".")[2] in EXTRACTING or (in_package and name_of(path) != "ttc/run/npz.py"):
                offenders.append(f"{where}: {called}; the package reads archives through ttc.run.npz")
        opens = "zipfile.ZipFile(" in source or "tarfile.open(" in source
        if opens and not ("file_size" in source or ".size" in source):
            offenders.append(f"{name_of(path)}: compare the sizes before unpacking")
    none(offenders)


def test_shell_scripts_never_evaluate_words() -> None:
    evaluates = re.compile(r"(^|[;&|]\s*|\s)eval\s|\b(bash|sh)\s+-c\b|(curl|wget)[^\n]*\|\s*(ba)?sh")
    none(
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in SHELL
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not line.lstrip().startswith("#") and evaluates.search(line)
    )


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


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022], ids=oct)
def test_files_are_for_those_whom_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    done = run("pretrain", "--epochs", 1, "--output", "run", folder=tmp_path, umask=umask)
    assert done.code == 0, done.stderr
    modes = {
        path.relative_to(tmp_path).as_posix(): oct(path.stat().st_mode & 0o777)
        for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    }
    assert "run/checkpoints/last.pt" in modes
    assert modes == {name: oct((0o777 if (tmp_path / name).is_dir() else 0o666) & ~umask) for name in modes}


def test_the_promises_are_written_down() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for promise in ("weights_only", "sha256", "allow_pickle", "docs/reliability.md"):
        assert promise in text
