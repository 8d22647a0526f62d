"""What scripts/predict.py and its siblings say about images that are none, or look like none of the run's."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.batches.augment import PRESETS
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.datasets.pixels.preprocessing import Decoding, Preprocessing
from ttc.datasets.pixels.survey import Intensity
from ttc.evaluation.elsewhere.frozen import read_scores
from ttc.evaluation.new_images import encode, other_brightness, read_images
from ttc.evaluation.new_predictions import read_groups
from ttc.models.description import Description
from ttc.models.encoders import EncoderSpec


def described(dataset: Dataset) -> Description:
    """Return the description of a run, as its checkpoint holds it."""
    made = Description.of(
        method="simclr",
        objective={},
        spec=EncoderSpec("convnet-w8", dataset.channels, dataset.image_size),
        projection_dim=8,
        dataset=dataset,
        augmentation=PRESETS["natural"],
        seed=0,
    )
    return Description.from_dict(asdict(made))


@pytest.fixture(scope="module")
def description() -> Description:
    """Return that of a run on digits."""
    return described(load_dataset(DatasetSettings("digits")))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("0.png", "is a single image"),
        ("folder", "does not exist; give a folder of images, a CSV table with a column path, or an .npz file"),
        ("*.jpg", r"does not exist \(the shell found no file that matches\)"),
        ("gone.npz", "does not exist; give"),
    ],
)
def test_what_is_no_folder_table_or_npz_file_is_told(
    name: str, fault: str, description: Description, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=f"^--images .*{fault}") as caught:
        read_images(str(tmp_path / name), description)
    assert "\n" not in str(caught.value)


def test_groups_of_new_images_and_scores_in_two_spellings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient\n0.png,1\n1.png,1.0\n2.png,2\n")
    with pytest.raises(ValueError, match=r"^--images .*t.csv: groups '1' .* and '1.0' \(1 image\) look like one group"):
        read_groups(tmp_path / "t.csv", "patient")
    (tmp_path / "s.csv").write_text("id,label,score,group\na,0,0.1,1\nb,1,0.9,1.0\n")
    with pytest.raises(ValueError, match=r"^--scores .*s.csv: groups '1' .* look like one group"):
        read_scores(tmp_path / "s.csv", ())


@pytest.fixture
def deep(tmp_path: Path) -> DatasetSettings:
    """Write 12-bit pictures, as ultrasound or X-rays are saved, and their table."""
    rows = ["path,label"]
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 2600, (18, 18)).astype(np.uint16)
        pixels[0, 0] = 4095
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ill' if number % 3 else 'well'}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return DatasetSettings("csv", str(tmp_path / "t.csv"), image_size=16)


@pytest.mark.parametrize(
    ("intensity", "line"),
    [
        (None, None),
        ((0.0, 4095.0), None),
        ((0.0, 2047.0), None),  # twice as bright
        ("full", "the new images have a mean of 0.020 of full range, those of training 0.319; check --intensity"),
        ((0.0, 100.0), "the new images have a mean of 0.981 of full range, those of training 0.319; check"),
    ],
)
def test_images_read_with_a_wrong_range_are_told(
    intensity: Intensity | None, line: str | None, deep: DatasetSettings, caplog: pytest.LogCaptureFixture
) -> None:
    description = described(load_dataset(deep))
    _, images = read_images(str(deep.data_root), description, intensity=intensity)
    logging.getLogger("ttc").propagate = True
    with caplog.at_level(logging.WARNING, logger="ttc"):
        encode(description.network().eval(), description, images, 0)
    assert caplog.messages == ([] if line is None else [caplog.messages[0]])
    assert line is None or caplog.messages[0].startswith(line)


@pytest.mark.parametrize(
    ("training", "deviation", "new", "told"),
    [
        (0.31, 0.2, 0.02, True),
        (0.31, 0.2, 0.93, True),
        (0.31, 0.2, 0.12, False),  # a darker hospital
        (0.31, 0.2, 0.62, False),  # and a brighter one
        (0.31, 0.05, 0.52, True),  # more than 3 deviations
        (0.8712, 0.1, 0.7, False),  # slides with much tissue, others with little
        (0.8712, 0.2, 0.96, False),
        (0.009, 0.03, 0.001, False),  # black but for some points: nothing can be told
        (0.485, 0.229, 0.02, False),  # of the weights that the run started from
        (0.449, 0.226, 0.02, False),  # the same for one channel
    ],
)
def test_the_brightness_of_other_hospitals_is_not_told(
    training: float, deviation: float, new: float, told: bool
) -> None:
    measured = 0.0 if training in (0.485, 0.449) else 1.7e-9  # statistics of images are no round numbers
    preprocessing = Preprocessing("files", Decoding(8, 1), 8, 1.0, (training + measured,), (deviation + measured,))
    assert (other_brightness(new, preprocessing) is not None) == told
