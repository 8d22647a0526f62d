"""What scripts/predict.py and its siblings say about images that are none, or look like none of the run's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.batches.augment import PRESETS
from ttc.datasets import DatasetSettings, load_dataset
from ttc.evaluation.elsewhere.frozen import read_scores
from ttc.evaluation.new_images import read_images
from ttc.evaluation.new_predictions import read_groups
from ttc.models.description import Description
from ttc.models.encoders import EncoderSpec


@pytest.fixture(scope="module")
def description() -> Description:
    """Return that of a run on digits, as its checkpoint holds it."""
    dataset = load_dataset(DatasetSettings("digits"))
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
