from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ttc.datasets.images import FileImages, TensorImages
from ttc.datasets.loading import batches, channel_statistics


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    random = np.random.default_rng(0)
    paths = [str(tmp_path / f"{k}.png") for k in range(10)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    return FileImages(paths, 8, 3)


def test_tensor_batches_follow_the_indices() -> None:
    images = TensorImages(torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2))
    plan = torch.tensor([[5, 0], [3, 3]])
    assert torch.equal(torch.stack(list(batches(images, plan))), images.data[plan])


@pytest.mark.parametrize("workers", [0, 2])
def test_file_batches_do_not_depend_on_the_workers(files: FileImages, workers: int) -> None:
    plan = [torch.tensor([7, 1, 1]), torch.tensor([0]), torch.tensor([9, 8, 2]), torch.tensor([4, 5])]
    found = list(batches(files, plan, num_workers=workers))
    assert len(found) == len(plan)
    for rows, batch in zip(plan, found, strict=True):
        assert torch.equal(batch, torch.stack([files.decode(files.paths[row]) for row in rows]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_line_from_any_process(files: FileImages, workers: int) -> None:
    Path(files.paths[3]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png") as caught:
        list(batches(files, [torch.tensor([0, 1]), torch.tensor([2, 3])], num_workers=workers))
    assert "\n" not in str(caught.value)
    assert "--on-bad-image skip" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_random_state_alone(files: FileImages, workers: int) -> None:
    before = torch.get_rng_state()
    list(batches(files, torch.tensor([[0, 1]]), num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_match_the_direct_formula(channels: int) -> None:
    data = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (700, channels, 5, 4), dtype=np.uint8))
    rows = torch.arange(0, 700, 2)
    mean, std = channel_statistics(TensorImages(data), rows, channels)
    scaled = data[rows].double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), scaled.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std).double(), scaled.std(dim=(0, 2, 3), correction=0))


def test_constant_images_are_refused() -> None:
    with pytest.raises(ValueError, match="channel 0 has the same value"):
        channel_statistics(TensorImages(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)), torch.arange(4), 1)
