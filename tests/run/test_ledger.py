"""What a result says about itself: measures by name, and a record that knows repetitions from other settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, run
from ttc.run import ledger

ARGUMENTS: dict[str, object] = {
    "method": "supmin", "lr": 0.1, "seed": 0, "output": "a", "data_root": "/x", "num_workers": 0, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize("flag", ["seed", "output", "data_root", "num_workers", "device", "checkpoint", "input_sha256"])
def test_digest_does_not_depend_on_where_and_which(flag: str) -> None:
    assert ledger.arguments_digest({**ARGUMENTS, flag: "other"}) == ledger.arguments_digest(ARGUMENTS)


def test_digest_depends_on_what_matters_and_not_on_the_order() -> None:
    digest = ledger.arguments_digest(ARGUMENTS)
    assert ledger.arguments_digest(dict(reversed(ARGUMENTS.items()))) == digest
    assert ledger.arguments_digest({**ARGUMENTS, "lr": 0.2}) != digest
    assert ledger.arguments_digest({**ARGUMENTS, "epochs": 3}) != digest


@pytest.mark.parametrize("off", [None, False])
def test_a_new_flag_that_is_off_leaves_the_digest_alone(off: object) -> None:
    assert ledger.arguments_digest({**ARGUMENTS, "new": off}) == ledger.arguments_digest(ARGUMENTS)
    assert ledger.arguments_digest({**ARGUMENTS, "new": 0}) != ledger.arguments_digest(ARGUMENTS)


def test_derived_values_count_as_not_given() -> None:
    entries = {"lr": {"value": 0.1, "source": "default"}, "encoder": {"value": "resnet50", "source": "derived"}}
    assert ledger.given_arguments(entries) == {"lr": 0.1, "encoder": None}


def test_record_of_pretraining_and_of_its_evaluations(pretrained_run: Path, tmp_path: Path) -> None:
    trained = json.loads((pretrained_run / "result.json").read_text())
    given = ledger.given_arguments(json.loads((pretrained_run / "args.json").read_text()))
    assert trained["record"]["arguments_sha256"] == ledger.arguments_digest(given)
    assert trained["record"]["seed"] == given["seed"] == 0
    assert trained["measures"]["train/loss"]["value"] == trained["train/loss"]
    for name in ("python", "torch", "numpy", "scikit-learn"):
        assert trained["record"]["versions"][name]

    checkpoint = pretrained_run / "checkpoints" / "last.pt"
    words = ("--probe-fraction", 0.1, "--probe-seeds", 2, "--bootstrap", 20, "--probes", "minority", "--floor", "none")
    probed = run("linear_eval", "--checkpoint", checkpoint, *words, "--output", tmp_path / "p", folder=tmp_path)
    result = json.loads(probed.stdout)
    auroc = result["probes"]["encoder"]["minority"]["auroc"]
    assert result["measures"]["encoder/minority/auroc"] == {
        "value": auroc["mean"], "low": auroc["low"], "high": auroc["high"], "split": "test",
        "n": result["test_samples"],
    }  # fmt: skip

    words = ("--peu-draws", 0, "--max-samples", 60, "--split", "val")
    measured = run("compute_metrics", "--checkpoint", checkpoint, *words, "--output", tmp_path / "m", folder=tmp_path)
    result = json.loads(measured.stdout)
    for label in (0, 1):
        found = result["measures"][f"projection/SAA/class{label}"]
        assert found["value"] == result["projection"]["SAA"]["per_class"][label]
        assert (found["split"], found["n"], found["low"]) == ("val", 60, None)
    assert not any("PEU" in name for name in result["measures"])


def copy_of_the_package(folder: Path) -> Path:
    shutil.copytree(ROOT / "ttc", folder / "ttc", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def record_there(folder: Path) -> dict[str, object]:
    code = "import json; from ttc.run import ledger; print(json.dumps(ledger.complete({'kind': 'x'}, {})['record']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_outside_of_a_checkout_the_commit_is_unknown(tmp_path: Path) -> None:
    assert record_there(copy_of_the_package(tmp_path))["git"] == {"commit": None, "dirty": None}


@pytest.mark.long
def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        named = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *named, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    copy_of_the_package(tmp_path)
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    assert record_there(tmp_path)["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "ttc" / "new.py").write_text("")
    assert record_there(tmp_path)["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": True}
