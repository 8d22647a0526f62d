"""The same image and the same checkpoint give the same input tensor in every script, whatever flag changes pixels."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.pixels.encodings import save
from tests.evaluation.same_input import digests, record
from tests.processes import call, run
from ttc.batches.augment import PRESETS
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.evaluation.new_images import read_images
from ttc.models.description import Description
from ttc.models.encoders import EncoderSpec
from ttc.models.pretrained import load_network, load_pretrained

CPU = torch.device("cpu")
Words = tuple[object, ...]
SMALL: Words = ("--image-size", 16, "--encoder", "convnet-w8", "--batch-size", 16, "--num-workers", 0)
VARIATIONS: dict[str, tuple[str, Words]] = {
    "defaults": ("8-bit PNG", ()),
    "colour": ("8-bit colour PNG", ()),
    "stored size": ("8-bit PNG", ("--stored-size", 24)),
    "twice the stored size": ("12-bit PNG", ("--stored-size", 36)),
    "no margin": ("8-bit PNG", ("--stored-size", 16)),
    "pad": ("8-bit colour PNG", ("--framing", "pad")),
    "squash": ("12-bit TIFF", ("--framing", "squash", "--stored-size", 30)),
    "auto": ("14-bit PNG", ("--intensity", "auto")),
    "full": ("12-bit PNG", ("--intensity", "full")),
    "two values": ("16-bit PNG", ("--intensity", "1000", "50000", "--framing", "pad", "--stored-size", 23)),
    "window": ("12-bit MONOCHROME1 DICOM", ("--dicom-window", "1800", "3000")),
    "without window": ("12-bit MONOCHROME2 DICOM", ()),
    "cache": ("12-bit PNG", ("--cache", "disk", "--cache-folder", "cache", "--stored-size", 25)),
}


def write_set(folder: Path, encoding: str, *, levels: int | None = None) -> Path:
    """Write 60 pictures of 24 x 18 px, a third of them rare, and their table; of so many levels of grey, if given."""
    rows = ["path,label,split"]
    for number in range(60):
        random = np.random.default_rng(number)
        channels = 3 if "colour" in encoding else 1
        picture = random.random((18, 24, channels)).squeeze() * 0.6
        rare = number % 3 == 0
        picture[5:12, 4:9] += 0.4 * rare
        if levels is not None:
            picture = (picture * (levels - 1)).round() / (levels - 1)
        path = save(picture, encoding, folder / f"{number:02d}")
        split = "val" if number % 5 == 1 else "test" if number % 5 == 2 else "train"
        rows.append(f"{path.name},{'rare' if rare else 'usual'},{split}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder / "t.csv"


def settings_of(table: Path, words: Words) -> DatasetSettings:
    """Read the flags as pretrain.py does."""
    import pretrain
    from ttc.flags import data_settings

    given = ("--dataset", "csv", "--data-root", table, *SMALL, *words)
    return data_settings.dataset_settings(pretrain.build_parser().parse([str(word) for word in given]).namespace())


def description_of(dataset: Dataset) -> Description:
    """Return the description as a checkpoint holds it."""
    made = Description.of(
        method="simclr",
        objective={},
        spec=EncoderSpec("convnet-w8", dataset.channels, 16),
        projection_dim=8,
        dataset=dataset,
        augmentation=PRESETS["natural"],
        seed=0,
    )
    return Description.from_dict(asdict(made))


@pytest.mark.parametrize("name", VARIATIONS)
def test_the_run_and_new_images_make_the_same_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoding, words = VARIATIONS[name]
    table = write_set(tmp_path, encoding)
    settings = settings_of(table, words)
    trained = load_dataset(settings)
    description = description_of(trained)
    again = load_dataset(description.dataset_settings(), description.preprocessing)
    ids, new = read_images(str(table), description)
    order = [ids.index(each) for each in trained.ids]
    rows, views = torch.arange(len(ids)), description.view_generator()
    sources = ((trained.images, rows), (again.images, rows), (new, torch.tensor(order)))
    inputs = [views.plain(images[each]) for images, each in sources]
    assert inputs[0].shape == (60, trained.channels, 16, 16)
    assert torch.equal(inputs[0], inputs[1])
    assert torch.equal(inputs[0], inputs[2])
    assert again.preprocessing == trained.preprocessing == description.preprocessing
    assert again.content_digest == trained.content_digest


@pytest.mark.parametrize(
    "name", [name if name == "two values" else pytest.param(name, marks=pytest.mark.slow) for name in VARIATIONS]
)
def test_every_script_sees_the_same_input(name: str, tmp_path: Path) -> None:
    encoding, words = VARIATIONS[name]
    table = write_set(tmp_path, encoding)
    fixed = ("--dataset", "csv", "--data-root", table, *SMALL)
    result = run("pretrain", *fixed, *words, "--method", "ce", "--epochs", 0, "--output", "run", folder=tmp_path)
    assert result.code == 0, result.stderr
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    run_of = load_pretrained(str(path), None, 0, CPU)
    dataset, views = run_of.dataset, run_of.views
    rows = {split: dataset.indices(split) for split in ("train", "val", "test")}
    plain = {split: set(digests(views.plain(dataset.images[each]))) for split, each in rows.items()}
    everything = set().union(*plain.values())
    # Views of compute_metrics.py: draw -1000 of the test rows.
    test = rows["test"]
    augmented = views.views(dataset.images[test], test, torch.full_like(test, -1000), 2).flatten(0, 1)
    common = ["--checkpoint", str(path), "--num-workers", "0"]
    scripts: dict[str, tuple[list[str], set[str]]] = {
        "linear_eval": (["--probes", "all", "--layers", "encoder", "--bootstrap", "0"], everything),
        "compute_metrics": (["--views", "2", "--peu-draws", "0", "--scatter", "none"], set(digests(augmented))),
        "finetune": (["--epochs", "1", "--batch-size", "8", "--bootstrap", "0"], plain["val"] | plain["test"]),
        "scripts.predict": (["--head", "own", "--images", str(table)], everything),
        "scripts.export": (["--format", "features", "--images", str(table), "--output", "export"], everything),
    }
    for script, (more, expected) in scripts.items():
        output = tmp_path / f"{script}.json"
        code = call(record, script, [*common, *more], str(tmp_path), str(output))
        assert code == 0, output.with_suffix(".log").read_text()
        found = set(json.loads(output.read_text()))
        assert expected <= found, f"{script}: {len(expected - found)} of {len(expected)} inputs are others"
        if script != "finetune":  # which also sees training views
            assert found == expected, script


def test_predictions_are_those_of_the_evaluation_for_files(tmp_path: Path) -> None:
    """With a stored size, which predict.py once ignored: the scores of the same ids differed by up to 0.7."""
    table = write_set(tmp_path, "12-bit PNG")
    fixed = ("--dataset", "csv", "--data-root", table, *SMALL)
    words = ("--method", "weighted-ce", "--epochs", 1, "--stored-size", 24, "--output", "run")
    checkpoint = ("--checkpoint", "run/checkpoints/last.pt", "--num-workers", 0)
    for script, more in (
        ("pretrain", (*fixed, *words)),
        ("linear_eval", (*checkpoint, "--probes", "all", "--layers", "encoder", "--bootstrap", 0)),
        ("scripts.predict", (*checkpoint, "--images", table, "--output", "p.csv")),
    ):
        result = run(script, *more, folder=tmp_path)
        assert result.code == 0, result.stderr
    with (tmp_path / "run" / "linear_eval" / "predictions.csv").open() as file:
        expected = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    with (tmp_path / "p.csv").open() as file:
        found = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert len(expected) == 24
    assert {each: found[each] for each in expected} == pytest.approx(expected, abs=1e-6)


def test_new_images_of_another_depth(tmp_path: Path) -> None:
    """Refused by name, or read as --intensity says."""
    folder = tmp_path / "set"
    folder.mkdir()
    table = write_set(folder, "12-bit PNG")
    fixed = ("--dataset", "csv", "--data-root", table, *SMALL)
    result = run("pretrain", *fixed, "--method", "ce", "--epochs", 0, "--output", "run", folder=tmp_path)
    assert result.code == 0, result.stderr
    assert "intensity: files of 16-bit; black to white is 0 to 4095" in result.stderr
    _, description, _ = load_network(str(tmp_path / "run" / "checkpoints" / "last.pt"), CPU)
    picture = np.linspace(0, 1, 400).reshape(20, 20)
    (tmp_path / "new").mkdir()
    save(picture, "16-bit PNG", tmp_path / "new" / "a")
    words = ("--checkpoint", "run/checkpoints/last.pt", "--head", "own", "--images", "new", "--num-workers", 0)
    result = run("scripts.predict", *words, folder=tmp_path)
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert "new/a.png: its values reach 65535" in last
    assert "pass --intensity full or LOW HIGH" in last
    assert run("scripts.predict", *words, "--intensity", "full", folder=tmp_path).code == 0
    save(picture, "12-bit PNG", tmp_path / "new" / "b")
    _, deep = read_images(str(tmp_path / "new"), description, intensity=(0.0, 65535.0))
    _, fitting = read_images(str(tmp_path / "new"), description)
    difference = deep[torch.tensor([0])].int() - fitting[torch.tensor([1])].int()
    assert difference.abs().max() <= 1


def test_memory_and_files_are_told_apart_by_the_description_and_not_by_a_name(tmp_path: Path) -> None:
    dataset = load_dataset(DatasetSettings("digits"))
    description = description_of(dataset)
    assert description.preprocessing.source == "memory"
    Image.fromarray(np.full((30, 60), 99, dtype=np.uint8)).save(tmp_path / "a.png")
    _, images = read_images(str(tmp_path), description)
    assert images[torch.tensor([0])].shape == (1, 1, 8, 8)
    folder = tmp_path / "digits"
    folder.mkdir()
    files = load_dataset(settings_of(write_set(folder, "8-bit PNG"), ()))
    _, images = read_images(str(tmp_path), description_of(files))
    assert images[torch.tensor([0])].shape == (1, 1, 18, 18)
