"""What the data and the machine decide where the flags leave it open; what earlier runs had stays theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune
import pretrain
from tests.processes import run
from ttc.batches.samplers import BatchSampler
from ttc.flags import data_settings as open_flags
from ttc.flags import fit_batch
from ttc.flags.parser import Given
from ttc.flags.settings import batch_sampler
from ttc.flags.training import choose_length
from ttc.training import budget as rules

CPU = torch.device("cpu")


def given(*words: object, script: object = pretrain) -> Given:
    """Parse a command line of a training script."""
    parser = script.build_parser()  # type: ignore[attr-defined]  # both scripts have one
    made: Given = parser.parse([str(word) for word in words])
    choose_length(parser, made)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """Return the flags of 200 pictures of 8 px: gray, gray with the rounding of a JPEG as RGB, and coloured."""
    folder, generator = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    gray = generator.integers(0, 240, (200, 8, 8), dtype=np.uint8)
    pixels = {
        "gray": gray,
        "rgb": gray[..., None] + generator.integers(0, 4, (200, 8, 8, 3), dtype=np.uint8),
        "colour": generator.integers(0, 255, (200, 8, 8, 3), dtype=np.uint8),
    }
    labels, splits = np.arange(200) % 6 == 0, np.repeat(["train", "val", "test"], [140, 30, 30])
    for name, images in pixels.items():
        np.savez(folder / f"{name}.npz", images=images, label=labels.astype(int), split=splits)
    return {name: ("--dataset", "arrays", "--data-root", folder / f"{name}.npz") for name in pixels}


def filled(made: Given, folder: Path = Path("none")) -> tuple[dict[str, object], list[str]]:
    """Return the flags as pretrain.py fills them in, and its lines."""
    stored = open_flags.stored_arguments(made.namespace(), folder)
    open_flags.leave_open(made, stored)
    args = made.namespace()
    dataset = open_flags.load_own_size(args, open_flags.dataset_settings(args), stored, CPU)
    lines = open_flags.fill_in(args, dataset, stored, made, CPU)
    open_flags.whole_epochs(args, batch_sampler(args, dataset, 1))
    return vars(args), lines


def test_data_sets_with_published_numbers_keep_their_values() -> None:
    for name in ("digits", "fashion", "breastmnist", "inat21-plants", "fracatlas", "ukbb-cardiac"):
        made = given("--dataset", name)
        open_flags.leave_open(made, {})
        assert (made.values["epochs"], made.values["batch_size"]) == (30, 128)
    assert filled(given())[1] == []


def test_images_of_ones_own_get_steps_crops_size_and_encoder_with_reasons(
    files: dict[str, tuple[object, ...]],
) -> None:
    values, lines = filled(given(*files["gray"]))
    assert (values["epochs"], values["batch_size"]) == (200, 64)  # 140 training images: two steps
    assert (values["image_size"], values["encoder"], values["augmentation"]) == (8, "convnet-w8", "medical")
    assert values["crop_scale"] == list(rules.CROPS)
    flags = (
        "--image-size 8",
        "--crop-scale",
        "--encoder convnet-w8",
        "--batch-size 64",
        "--steps 400",
    )
    for flag, line in zip(flags, lines, strict=True):
        assert line.startswith(flag)
        assert len(line.partition(": ")[2]) > 5, "the reason"
        assert len(line) <= 100


def test_gray_pictures_stored_as_rgb_are_found(files: dict[str, tuple[object, ...]]) -> None:
    values, lines = filled(given(*files["rgb"]))
    assert (values["augmentation"], values["crop_scale"]) == ("medical", list(rules.CROPS))
    assert any("gray, stored as RGB" in line for line in lines)
    values, lines = filled(given(*files["colour"]))
    assert (values["augmentation"], values["crop_scale"]) == ("natural", None)
    assert not any("gray" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--epochs", 2), "epochs", 2),
        (("--epochs", 0), "epochs", 0),
        (("--steps", 13, "--batch-size", 20), "epochs", 2),
        (("--steps", 14, "--batch-size", 20), "epochs", 2),
        (("--steps", 15, "--batch-size", 20), "epochs", 3),
        (("--batch-size", 30), "batch_size", 30),
        (("--batch-size", 30), "epochs", 200),
        (("--crop-scale", 0.2, 1), "crop_scale", [0.2, 1.0]),
        (("--augmentation", "medical"), "crop_scale", None),
        (("--augmentation", "none"), "augmentation", "none"),
        (("--encoder", "convnet-w4"), "encoder", "convnet-w4"),
        (("--image-size", 12), "image_size", 12),
    ],
)
def test_what_is_named_wins(
    words: tuple[object, ...], name: str, value: object, files: dict[str, tuple[object, ...]]
) -> None:
    made = given(*files["gray"], *words)
    values, lines = filled(made)
    assert values[name] == value
    for flag in (word for word in words if str(word).startswith("--") and word != "--steps"):
        assert not any(line.startswith(f"{flag} ") for line in lines)
    assert (made.values[name] is not None) == (f"--{name.replace('_', '-')}" in words)


def test_what_a_run_began_with_stays(files: dict[str, tuple[object, ...]], tmp_path: Path) -> None:
    """An earlier version wrote its fixed values; this one what its rules chose, whatever they choose later."""
    made = given(*files["rgb"])
    before = {"encoder": "convnet-w16", "image_size": 16, "augmentation": "natural"}
    entries = {name: {"value": value, "source": made.sources[name]} for name, value in made.values.items()}
    old = {**entries, **{name: {"value": value, "source": "derived"} for name, value in before.items()}}
    del old["steps"]
    (tmp_path / "args.json").write_text(json.dumps(old))
    values, lines = filled(made, tmp_path)
    assert (values["epochs"], values["batch_size"]) == (made.values["epochs"], made.values["batch_size"]) == (30, 128)
    assert {name: values[name] for name in before} == before
    assert (values["crop_scale"], lines) == (None, [])

    chosen = {"steps": 77, "batch_size": 20, "crop_scale": [0.3, 0.9], **before}
    entries["epochs"]["value"] = None
    new = {**entries, **{name: {"value": value, "source": "derived"} for name, value in chosen.items()}}
    (tmp_path / "args.json").write_text(json.dumps(new))
    made = given(*files["rgb"])
    values, lines = filled(made, tmp_path)
    assert ({name: values[name] for name in chosen}, values["epochs"], lines) == (chosen, 11, [])
    assert (made.values["epochs"], made.values["batch_size"]) == (None, None)


def test_steps_and_epochs_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("epochs", "--epochs 9"), ("steps", "--steps 90"), ("both", "--steps 90 --epochs 9")):
        (tmp_path / f"{name}.args").write_text(words)
    recipe = {name: f"@{tmp_path / name}.args" for name in ("epochs", "steps", "both")}
    for script in (pretrain, finetune):
        more = () if script is pretrain else ("--checkpoint", "last.pt")
        lengths = {
            (): (30, None),
            ("--steps", 50): (None, 50),
            (recipe["steps"],): (None, 90),
            (recipe["epochs"], "--steps", 50): (None, 50),
            ("--epochs", 5, recipe["steps"]): (5, None),
        }
        for words, length in lengths.items():
            values = given(*more, *words, script=script).values
            assert (values["epochs"], values["steps"]) == length, words
        for words in (("--steps", 50, "--epochs", 5), (recipe["both"],)):
            with pytest.raises(SystemExit) as caught:
                given(*more, *words, script=script)
            assert caught.value.code == 2
            assert "both say how long; leave one out" in capsys.readouterr().err


def test_rules_in_numbers() -> None:
    def of(train: int, **changes: object) -> rules.Budget:
        usual: dict[str, object] = {"train": train, "side": 300, "gray": True, "gpu": False, "cores": 2}
        return rules.budget(**{**usual, **changes})  # type: ignore[arg-type]  # as named there

    assert [of(train).steps for train in (40, 170, 546, 9_000)] == [200, 400, 1_500, 1_500]
    assert (of(100_000).steps, of(100_000).batch_size) == (10 * (100_000 // 128), 128)
    assert [of(train).batch_size for train in (40, 64, 10_000, 10_001)] == [32, 64, 64, 128]
    assert [of(train, processes=3).batch_size for train in (64, 20)] == [63, 15]
    assert [of(500, cores=cores).image_size for cores in (1, 2, 64)] == [48, 64, 64]
    assert [of(500, gpu=True, side=side).image_size for side in (28, 512)] == [28, 224]
    assert of(500, side=28).image_size == 28
    assert (of(500).encoder, of(500, gpu=True).encoder, of(500, side=12).encoder) == (
        "convnet-w16", "resnet50", "convnet-w8",
    )  # fmt: skip
    assert (of(500).crop_scale, of(500, gray=False).crop_scale) == (rules.CROPS, None)


def test_a_short_run_is_told(tmp_path: Path) -> None:
    def of(images: int, epochs: int, dataset: str = "csv") -> str | None:
        sampler = BatchSampler((torch.arange(images) % 6 == 0).long(), batch_size=64, kind="shuffle", seed=0)
        return rules.length_warning(epochs, sampler, dataset)

    assert of(600, 84) is of(600, 0) is of(600, 83, "digits") is of(299, 1) is None  # of 9 steps: 756 and 747
    warning = of(600, 83)
    assert warning is not None
    assert warning.startswith("747 steps (83 epochs) are few")
    assert warning.endswith("try --steps 1500")

    gray, labels = np.random.default_rng(0).integers(0, 240, (400, 8, 8, 1), dtype=np.uint8), np.arange(400) % 6 == 0
    splits = np.repeat(["train", "val", "test"], [340, 30, 30])
    np.savez(tmp_path / "many.npz", images=gray.repeat(3, 3), label=labels.astype(int), split=splits)
    words = ("--dataset", "arrays", "--data-root", "many.npz", "--batch-size", 20, "--steps", 30, "--output", "run")
    done = run("pretrain", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    low, high = (f"{100 * share:g}" for share in rules.CROPS)
    for line in ("34 steps (2 epochs) are few", f"views: medical, crops of {low} to {high} % of the area"):
        assert line in done.stderr
    entries = json.loads((tmp_path / "run" / "args.json").read_text())
    assert (entries["epochs"]["value"], entries["steps"]) == (None, {"value": 30, "source": "command line"})
    assert entries["crop_scale"] == {"value": list(rules.CROPS), "source": "derived"}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 34
    words = ("--checkpoint", "run/checkpoints/last.pt", "--from-scratch", "--batch-size", 20, "--steps", 30)
    tuned = run("finetune", *words, "--dry-run", folder=tmp_path)
    assert tuned.code == 0, tuned.stderr
    assert "2 epochs of 17 steps = 34 steps" in tuned.stderr
    assert "34 steps (2 epochs) are few" in tuned.stderr


def test_the_default_batch_of_finetuning_fits_a_small_set() -> None:
    made = given("--checkpoint", "a.pt", script=finetune)
    for train, batch in ((200, 128), (127, 64), (63, 32), (36, 32)):
        args = made.namespace()
        lines = fit_batch(args, made, train)
        assert args.batch_size == batch
        assert lines == ([] if batch == 128 else [f"--batch-size {batch}: {rules.batch_size(train)[1]}"])
    named = given("--checkpoint", "a.pt", "--batch-size", 128, script=finetune)
    args = named.namespace()
    assert fit_batch(args, named, 36) == []
    assert args.batch_size == 128  # refused later, by name
