"""Errors of users: one line on stderr, which names the flag, and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import run

ERRORS = {
    "unknown class": (("--classes", "0,1", "77"), 1, "--classes 0,1 77: unknown label '77'"),
    "one class": (("--classes", "0,1"), 1, "--classes"),
    "class twice": (("--classes", "0,1", "1"), 1, "--classes"),
    "empty class": (("--class-ratios", 0.999, 0.001), 1, "--class-ratios"),
    "ratios not 1": (("--class-ratios", 0.9, 0.2), 1, "--class-ratios 0.9 0.2 sums to 1.1, not 1"),
    "ratio above 1": (("--class-ratios", 1.9, 0.2), 2, "--class-ratios"),
    "three ratios": (("--class-ratios", 0.5, 0.3, 0.2), 1, "--class-ratios"),
    "unknown dataset": (("--dataset", "nonesuch"), 1, "--dataset nonesuch"),
    "no data root": (("--dataset", "imagefolder"), 1, "--data-root"),
    "missing data root": (("--dataset", "imagefolder", "--data-root", "/no/such"), 1, "--data-root /no/such"),
    "missing table": (("--dataset", "csv", "--data-root", "/no/such.csv"), 1, "/no/such.csv"),
    "batch above the data": (("--batch-size", 5000), 1, "--batch-size 5000 is larger than the training set"),
    "zero batch": (("--batch-size", 0), 2, "--batch-size"),
    "one-sample balance": (("--batch-size", 1, "--batch-sampler", "balanced"), 1, "--batch-size 1"),
    "minority above batch": (("--min-minority-per-batch", 500), 1, "--min-minority-per-batch 500"),
    "larger class is rare": (("--minority-class", 0), 1, "--minority-class 0"),
    "no such class is rare": (("--minority-class", 5), 1, "--minority-class 5"),
    "nothing is rare": (("--class-ratios", 0.5, 0.5), 1, "--minority-class"),
    "unknown method": (("--method", "supmax"), 2, "--method"),
    "idle flag": (("--method", "simclr", "--margin", 1), 2, "--margin has no effect with --method simclr"),
    "idle temperature": (("--method", "ce", "--temperature", 1), 2, "--temperature has no effect with --method ce"),
    "unknown setting": (("--method-settings", "nope=1"), 1, "--method-settings nope=1"),
    "setting of a wrong type": (("--method", "kcl", "--method-settings", "k=x"), 1, "--method-settings k=x"),
    "three margins": (("--method", "supproto", "--margin", 1, 2, 3), 1, "margin"),
    "zero temperature": (("--temperature", 0), 2, "--temperature"),
    "NaN": (("--lr", "nan"), 2, "--lr"),
    "unknown flag": (("--learning-rate", 1), 2, "--learning-rate"),
    "abbreviated flag": (("--epoch", 1), 2, "--epoch"),
    "text for a number": (("--epochs", "ten"), 2, "--epochs"),
    "huge seed": (("--seed", 10**20), 2, "--seed"),
    "unknown encoder": (("--encoder", "resnet7"), 1, "--encoder resnet7"),
    "no such weights": (("--weights", "/no/such.pt"), 1, "--weights /no/such.pt"),
    "weights of ImageNet for a small encoder": (("--weights", "imagenet"), 1, "--weights imagenet"),
    "unknown device": (("--device", "gpu"), 1, "--device gpu"),
    "device of another kind": (("--device", "meta"), 1, "--device meta"),
    "crop upside down": (("--crop-scale", 0.9, 0.1), 1, "--crop-scale 0.9 0.1"),
    "missing recipe": (("@none.args",), 2, "none.args"),
    "missing checkpoint": (("--resume", "/no/such.pt"), 1, "/no/such.pt"),
    "output is a file": (("--output", "taken"), 1, "--output taken is a file"),
    "output is in a file": (("--output", "taken/run"), 1, "--output taken/run cannot be written"),
    "output is another folder": (("--output", "other"), 1, "--output other is not empty and holds no run"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_users_errors_are_one_line(name: str, tmp_path: Path) -> None:
    words, code, part = ERRORS[name]
    (tmp_path / "taken").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    done = run("pretrain", "--epochs", 1, *words, folder=tmp_path)
    assert done.code == code, done.stderr
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_a_corrected_command_may_use_the_folder_of_a_failed_one(tmp_path: Path) -> None:
    assert run("pretrain", "--batch-size", 5000, "--output", "run", folder=tmp_path).code == 1
    done = run("pretrain", "--epochs", 0, "--output", "run", folder=tmp_path)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("report", ("none",)),
        ("compare", ("none", "none")),
        ("collect_results", ("none",)),
        ("predict", ("--checkpoint", "none.pt", "--images", "none")),
    ],
)
@pytest.mark.parametrize(("place", "why"), [("taken/a", "cannot be written"), ("folder", "is a folder")])
def test_a_place_that_cannot_be_written_is_told_first(
    script: str, words: tuple[str, ...], place: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / ("folder.csv" if script == "collect_results" else "folder")).mkdir()
    done = run(f"scripts.{script}", *words, "--output", place, folder=tmp_path)
    assert done.code == 1
    assert f"--output {place}" in done.stderr
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
