"""A data set gives the same predictions in whichever encoding its pictures are saved."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.datasets.pixels.encodings import ENCODINGS
from tests.evaluation.test_same_input import SMALL, write_set
from tests.processes import run

PLAIN = ("8-bit PNG", "8-bit colour PNG", "8-bit gray-as-RGB PNG")


def predictions(folder: Path, encoding: str) -> dict[str, float]:
    """Pretrain, probe and predict; return the score of every image by the number in its name."""
    folder.mkdir()
    # A level more or less moves a short training by more than it moves a picture; each depth has these 256 exactly.
    table = write_set(folder, encoding, levels=256)
    words = (
        "--dataset",
        "csv",
        "--data-root",
        table,
        *SMALL,
        "--method",
        "weighted-ce",
        "--epochs",
        3,
        "--output",
        "run",
    )
    checkpoint = ("--checkpoint", "run/checkpoints/last.pt", "--num-workers", 0)
    for script, more in (
        ("pretrain", words),
        ("linear_eval", (*checkpoint, "--probes", "all", "--layers", "encoder", "--bootstrap", 0, "--floor", "none")),
        ("scripts.predict", (*checkpoint, "--images", table, "--output", "p.csv")),
    ):
        result = run(script, *more, folder=folder)
        assert result.code == 0, result.stderr
    with (folder / "p.csv").open() as file:
        return {Path(row["id"]).stem: float(row["score"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Return the predictions of 8-bit files: in gray, in colour, and of gray pictures saved as colours."""
    folder = tmp_path_factory.mktemp("plain")
    return {name: predictions(folder / name.replace(" ", "-"), name) for name in PLAIN}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODINGS)
def test_predictions_do_not_depend_on_the_encoding(
    name: str, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    # Transparency and palettes are read as colours.
    kind = 1 if "colour" in name else 2 if "alpha" in name or "palette" in name else 0
    plain = expected[PLAIN[kind]]
    found = predictions(tmp_path / "set", name)
    assert len(plain) == 60
    assert max(plain.values()) - min(plain.values()) > 0.2
    assert found == pytest.approx(plain, abs=0.01)
