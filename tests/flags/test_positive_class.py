"""--positive-class takes the name of a class or its label, and runs store the label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import run
from ttc.flags.evaluation import class_word
from ttc.flags.heads import label_of


@pytest.mark.parametrize(
    ("text", "names", "label"),
    [
        ("malignant", ["benign", "malignant"], 1),
        ("Benign", ["benign", "malignant"], 0),
        ("0", ["benign", "malignant"], 0),
        ("3", ["7", "3"], 1),
        ("0", ["1", "0"], 1),
        ("a", ["A", "a"], 1),
        ("01", ["01", "02"], 0),
    ],
)
def test_a_name_comes_before_a_number(text: str, names: Sequence[str], label: int) -> None:
    assert label_of(class_word(text), names) == label


@pytest.mark.parametrize("text", ["2", "-1", "malignat", ""])
def test_what_is_no_class_is_refused_with_all_classes(text: str) -> None:
    with pytest.raises(ValueError, match=f"--positive-class {text} is no class; name one of 0 = benign, 1 = malignant"):
        label_of(class_word(text), ["benign", "malignant"])


@pytest.mark.parametrize("script", ["linear_eval", "scripts.evaluate"])
def test_name_and_label_are_one_command(script: str, pretrained_run: Path, tmp_path: Path) -> None:
    """Another class than the default, so that the flag is seen to count."""
    words: list[object] = ["--checkpoint", pretrained_run / "checkpoints" / "last.pt", "--bootstrap", 0]
    fast = ["--probes", "all", "--layers", "encoder", "--floor", "none", "--figures", "none"]
    if script == "scripts.evaluate":
        assert run("linear_eval", *words, *fast, "--output", tmp_path / "probe", folder=tmp_path).code == 0
        fast = ["--head", str(tmp_path / "probe" / "heads.pt"), "--dataset", "digits", "--figures", "none"]
    made = {}
    for name in ("0", "0,1,2,3,4"):
        result = run(script, *words, *fast, "--output", tmp_path / "out", "--positive-class", name, folder=tmp_path)
        assert result.code == 0, result.stderr
        made[name] = result
    assert json.loads(made["0"].stdout)["positive_class"] == 0
    assert "nothing to do" in made["0,1,2,3,4"].stderr
    stored = json.loads((tmp_path / "out" / "args.json").read_text())
    assert stored["positive_class"]["value"] == 0, "as earlier versions store it"
