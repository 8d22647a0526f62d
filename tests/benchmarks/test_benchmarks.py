"""The benchmarks run, compare what they say, and their page can be written. No time is tested."""

from __future__ import annotations

import csv
import importlib
import os
import re
import statistics
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import references, run_all, tables, targets, timing
from benchmarks.training import build_network
from benchmarks.write_page import SECTIONS
from tests.processes import ROOT, run
from ttc.losses import build_objective

SMALL = {
    "losses": ("--samples", 16, "--methods", "supcon", "sbc"),
    "metrics": ("--samples", 60, "--peers"),
    "augment": ("--image-size", 12),
    "decoding": ("--image-pixels", 64, "--image-size", 16, "--images", 2),
    "training": ("--image-size", 8, "--batch-size", 8, "--encoder", "resnet18-w8"),
    "bound": ("--image-size", 12, "--batch-size", 8, "--encoder", "resnet18-w8", "--steps", 1),
    "original": ("--data", "digits", "--image-size", 8, "--encoder", "convnet-w8", "--epochs", 2, "--accuracy", 0.5),
    "scaling": ("--image-size", 8, "--batch-size", 8, "--encoder", "resnet18-w8", "--ranks", 1, 2),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every benchmark on next to nothing."""
    folder = tmp_path_factory.mktemp("tables")
    for name, words in SMALL.items():
        script = "training" if name == "scaling" else name
        done = run(f"benchmarks.{script}", *words, "--repeats", 1, "--output", folder / f"{name}.csv", folder=folder)
        assert done.code == 0, done.stderr
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_micro_batches_are_timed_alone(tmp_path: Path) -> None:
    words = ("--image-size", 8, "--batch-size", 8, "--encoder", "resnet18-w8", "--steps", "ttc fp32", "--repeats", 1)
    done = run("benchmarks.training", *words, "--micro-batch-size", 4, "--output", "t.csv", folder=tmp_path)
    assert done.code == 0, done.stderr
    (row,) = read(tmp_path / "t.csv")
    assert (row["step"], row["micro_batch"]) == ("ttc fp32", "4")
    # Milliseconds of a step of 8 samples with two views each; both numbers are rounded.
    assert float(row["seconds_per_image"]) == pytest.approx(float(row["milliseconds"]) / 16e3, abs=0.6 / 16e3, rel=0.01)
    for wrong in (("--micro-batch-size", 3), ("--micro-batch-size", 4, "--peers")):
        assert run("benchmarks.training", *words, *wrong, folder=tmp_path).code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column", "cases"),
    [
        ("losses", "loss", ["masked-published", "masked-supcontrast", "supcon", "sbc"]),
        ("metrics", "computation", ["plain", "streamed", "sklearn"] * 2),
        ("augment", "pipeline", ["per-sample", "ttc"]),
        (
            "decoding",
            "way",
            ["pillow", "pillow, scaled", "torchvision", "this project", "cache, first use", "cache"],
        ),
        (
            "training",
            "step",
            ["per-sample fp32", "ttc fp32 contiguous", "ttc fp32", "ttc bf16 contiguous", "ttc bf16"],
        ),
        ("bound", "images_from", ["tensors", "disk", "jpeg"]),
        ("original", "pipeline", ["published fp32", "pretrain.py fp32", "pretrain.py bf16"]),
        ("scaling", "ranks", ["1", "2"]),
    ],
)
def test_every_case_has_a_row(written: Path, name: str, column: str, cases: list[str]) -> None:
    rows = read(written / f"{name}.csv")
    assert [row[column] for row in rows] == cases
    assert all(f"torch {torch.__version__}" in row["machine"] for row in rows)


@pytest.mark.slow
def test_the_cost_model_meets_what_two_ranks_multiply_and_send(written: Path) -> None:
    one, two = read(written / "scaling.csv")
    assert float(one["sent_kib_counted"]) == 0
    assert float(two["sent_kib_counted"]) == pytest.approx(float(two["sent_kib_model"]), rel=0.05)
    for row in (one, two):
        # The first convolution needs no gradient of its input.
        assert float(row["gflop_counted"]) == pytest.approx(float(row["gflop_model"]), rel=0.1)


@pytest.mark.slow
def test_the_page_shows_every_table(written: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("benchmarks.write_page", "--tables", written, "--page", page, folder=tmp_path)
    assert done.code == 0, done.stderr
    text = page.read_text()
    for name in SMALL:
        for row in read(written / f"{name}.csv"):
            shown = [value or "-" for key, value in row.items() if key not in ("machine", "commit", "command")]
            assert f"| {' | '.join(shown)} |" in text


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    done = run("benchmarks.write_page", "--tables", tmp_path, folder=tmp_path)
    assert done.code == 1
    assert "losses.csv is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_committed_page_belongs_to_the_committed_tables(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    done = run("benchmarks.write_page", "--tables", ROOT / "docs/performance", "--page", page, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert page.read_text() == (ROOT / "docs" / "performance.md").read_text()
    assert not re.search(r"/(tmp|home|work|root)/", page.read_text())


def test_the_seconds_of_the_readme_are_those_of_the_table() -> None:
    fp32, bf16 = (float(row["seconds_per_image"]) for row in read(ROOT / tables.FOLDER / "training_224.csv"))
    assert f"a view of an image takes {fp32:.2f} s, {bf16:.2f} s in bf16" in (ROOT / "README.md").read_text()


def test_every_committed_table_is_of_a_command_that_is_run_again() -> None:
    for path in sorted((ROOT / tables.FOLDER).glob("*.csv")):
        assert path.stem in tables.CPU | tables.GPU
        if path.stem in tables.CPU:  # of the GPU's, those of an earlier command may stay while there is no GPU
            assert {row["command"] for row in read(path)} == {tables.command_of(path.stem)}


@pytest.mark.parametrize("name", [*tables.CPU, *tables.GPU])
def test_a_table_has_a_section_and_a_command_that_parses(name: str) -> None:
    script, *words = tables.words_of(name)
    assert any(name.startswith(section) for section in SECTIONS)
    module = importlib.import_module(f"benchmarks.{Path(script).stem}")
    assert module.build_parser().parse(words).values["output"] == tables.FOLDER / f"{name}.csv"


def test_a_round_goes_on_with_the_tables_that_are_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "ROUND", tmp_path / ".round")
    (tmp_path / tables.FOLDER).mkdir(parents=True)
    for name, when in (("losses", 1000), (".round", 2000), ("metrics", 3000)):
        path = run_all.ROUND if name == ".round" else tmp_path / tables.FOLDER / f"{name}.csv"
        path.touch()
        os.utime(path, (when, when))
    assert [run_all.is_new(name) for name in ("losses", "metrics", "augment")] == [False, True, False]


def test_a_missed_figure_is_explained_and_a_missing_one_says_why() -> None:
    row = {"images_from": "disk", "command": "x", "commit": "", "percent_of_bound": "80.0", "views_percent": "15.0"}
    cpu = (targets.Target("bound", {"images_from": "disk"}, "percent_of_bound", "≥ 90"),)
    lines = list(targets.lines(cpu, {"bound": [[row]]}, "cpu"))
    assert "| bound: disk | percent of bound | ≥ 90 | 80.0 | no | - |" in lines
    assert lines[-1] == "* bound: disk: views 15.0 %."
    assert "| not measured: no GPU | - | - |" in list(targets.lines(cpu, {"bound": [[row]]}, "gpu"))[-1]
    assert not targets.Target("losses", {}, "peak_mib", "≤ 256").met("256.1")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_references_compute_supcon(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(12, 2, 5, generator=generator, dtype=torch.float64), dim=-1)
    labels = torch.arange(12) % 3 // 2
    expected = build_objective("supcon")(z, labels)
    for reference in (references.masked_published, references.masked_supcontrast):
        torch.testing.assert_close(reference(z, labels), expected, atol=1e-12, rtol=0)
    supmin = build_objective("supmin", minority_class=1)(z, labels)
    torch.testing.assert_close(references.masked_published(z, labels, minority_only=True), supmin, atol=1e-12, rtol=0)


def test_ratios_are_taken_within_a_turn() -> None:
    slow, fast = [4.0, 40.0, 8.0], [2.0, 10.0, 1.0]
    assert timing.times_faster(slow, fast) == 4.0
    assert statistics.median(slow) / statistics.median(fast) == 4.0
    assert timing.times_faster([1.0, 30.0, 2.0], [1.0, 10.0, 1.0]) == 2.0


def test_a_network_that_crashes_on_some_processors_is_refused() -> None:
    options = Namespace(encoder="resnet18-w7", image_size=8)
    with pytest.raises(ValueError, match=r"--encoder resnet18-w7 .* give resnet18-w8"):
        build_network(options)


def test_a_package_that_is_missing_is_skipped() -> None:
    assert timing.installed_peers(["torch", "no_such_package_of_ours"]) == ["torch"]


def test_the_largest_operators_are_those_that_take_longest() -> None:
    left, small = torch.randn(400, 400), torch.randn(4)
    shares = timing.largest_operators(lambda: (left @ left, small.exp()), torch.device("cpu"), most=1)
    assert re.fullmatch(r"mm \d+ %", shares)


def test_memory_of_a_fresh_process() -> None:
    # Other work on the machine can only add: the least of three is what the call took.
    assert min(timing.in_fresh_process(grow, 48) for _ in range(3)) == pytest.approx(48, abs=4)


def grow(mib: int) -> float:
    torch.ones(2**18)  # the first call brings pages of the library into memory, up to some MiB
    return timing.growth_of_peak(lambda: torch.ones(mib * 2**18), torch.device("cpu"))
