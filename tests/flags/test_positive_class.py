"""--positive-class takes the name of a class or its label, and runs store the label."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import run
from ttc.flags.evaluation import class_word
from ttc.flags.heads import label_of, name_positive_class
from ttc.flags.parser import Given, Namespace


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


@pytest.mark.parametrize(("word", "told"), [(0, True), (1, False), ("not 0", False)])
def test_a_number_that_is_the_name_of_another_class_is_told(
    word: int | str, told: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after --positive-classes 0, whose class 1 is called 0."""
    monkeypatch.setattr(logging.getLogger("ttc"), "propagate", True)
    given, args = Given({"positive_class": word}, {}), Namespace(positive_class=word)
    name_positive_class(given, args, lambda: ["not 0", "0"])
    assert given.values["positive_class"] == args.positive_class == (0 if word == "not 0" else 1)
    line = "--positive-class 0 is the name of class 1, which is taken, not class 0"
    assert caplog.messages == [line] * told


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
