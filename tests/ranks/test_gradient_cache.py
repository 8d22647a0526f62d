"""Micro-batches give the gradient of the whole batch: all methods, dropout, precision, BatchNorm, one and two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.ranks.cached_steps import Setting, Step, step, step_on
from tests.ranks.launch import on_ranks
from tests.ranks.parity import BATCH, CASES
from ttc import distributed
from ttc.datasets import DatasetSettings, load_dataset
from ttc.models.batchnorm import running_statistics_moving_by
from ttc.run import runtime

ALONE = distributed.World(0, 1, 0, torch.device("cpu"))
MICRO_BATCHES = 3


def all_methods(world: distributed.World, micro_batches: int = MICRO_BATCHES) -> dict[str, Step]:
    return {case: step(case, world, Setting(micro_batches=micro_batches)) for case in CASES}


def with_batch_norm(world: distributed.World) -> Step:
    return step("supcon", world, Setting(micro_batches=MICRO_BATCHES, norm=True))


def everything(world: distributed.World) -> dict[str, Step]:
    return all_methods(world) | {"with BatchNorm": with_batch_norm(world)}


@pytest.fixture(scope="module")
def whole() -> dict[str, Step]:
    """Return the step of each method without micro-batches, in one process."""
    return all_methods(ALONE, 1)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def cached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Step]]:
    """Return the steps with micro-batches of each rank."""
    if request.param == 1:
        return [everything(ALONE)]
    return on_ranks(request.param, everything, tmp_path_factory.mktemp("ranks"))


def largest_of(value: Tensor) -> float:
    return float(value.double().abs().max()) if value.numel() else 0.0


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    assert found.keys() == expected.keys()
    largest = max(map(largest_of, expected.values()), default=0.0)
    for name, value in expected.items():
        off = largest_of(found[name].double() - value.double())
        assert off <= relative * largest, f"{name} is off by {off:.1e} of {largest:.1e}"


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_whole_batch(
    case: str, whole: dict[str, Step], cached: list[dict[str, Step]]
) -> None:
    expected = whole[case]
    assert max(map(largest_of, expected.gradients.values())) > 1e-4
    for rank in cached:
        assert rank[case].loss == pytest.approx(expected.loss, rel=1e-9)
        assert_close(rank[case].gradients, expected.gradients, 1e-9)
        assert_close(rank[case].buffers, expected.buffers, 1e-9)


def test_batch_norm_sees_the_same_micro_batches_on_any_number_of_ranks(cached: list[dict[str, Step]]) -> None:
    expected = with_batch_norm(ALONE)
    for rank in cached:
        assert_close(rank["with BatchNorm"].gradients, expected.gradients, 1e-9)
        assert_close(rank["with BatchNorm"].buffers, expected.buffers, 1e-9)


def test_dropout_is_replayed() -> None:
    how = Setting(micro_batches=MICRO_BATCHES, dropout=0.5)
    found = step("supcon", ALONE, how)
    expected = step("supcon", ALONE, Setting(micro_batches=MICRO_BATCHES, dropout=0.5, textbook=True))
    assert found.loss == expected.loss
    assert_close(found.gradients, expected.gradients, 1e-9)
    without = step("supcon", ALONE, Setting(micro_batches=MICRO_BATCHES))
    assert abs(without.loss - expected.loss) > 1e-3


def bf16() -> torch.autocast:
    found = runtime.autocast(torch.device("cpu"), "bf16")
    assert isinstance(found, torch.autocast)
    return found


@pytest.mark.parametrize("case", ["supcon", "bcl", "paco", "ce", "supmin with three more terms"])
def test_half_precision_adds_micro_batches_up_in_float32(case: str) -> None:
    how = Setting(micro_batches=6, dtype=torch.float32, autocast=bf16)
    found = step(case, ALONE, how)
    expected = step(case, ALONE, Setting(micro_batches=6, dtype=torch.float32, autocast=bf16, textbook=True))
    assert found.loss == expected.loss
    assert_close(found.gradients, expected.gradients, 1e-6)


def test_cutmix_takes_its_patches_from_the_whole_batch() -> None:
    expected = step("supmin", ALONE, Setting(cutmix_area=0.6))
    found = step("supmin", ALONE, Setting(micro_batches=MICRO_BATCHES, cutmix_area=0.6))
    assert_close(found.gradients, expected.gradients, 1e-9)
    assert abs(expected.loss - step("supmin", ALONE, Setting()).loss) > 1e-4


def test_running_statistics_move_once_per_step() -> None:
    size = BATCH * 2 // MICRO_BATCHES  # two views
    found = with_batch_norm(ALONE)
    counted = {name: value for name, value in found.buffers.items() if "num_batches_tracked" in name}
    assert [int(value) for value in counted.values()] == [1, 1]
    # A single micro-batch moves the statistics as far as the whole step does.
    one = step("supcon", ALONE, Setting(norm=True))
    for name in ("network.layers.1.running_mean", "network.layers.1.running_var"):
        torch.testing.assert_close(found.buffers[name], one.buffers[name], rtol=2 / size, atol=0)


@pytest.mark.parametrize("passes", [1, 4, 32])
def test_passes_of_a_step_share_its_momentum(passes: int) -> None:
    norm = nn.BatchNorm1d(2).double()
    made = torch.Generator().manual_seed(0)
    batches = torch.randn(passes, 5, 2, generator=made, dtype=torch.float64) + 4
    with running_statistics_moving_by(norm, 1 / passes):
        for batch in batches:
            norm(batch)
    assert norm.momentum == 0.1
    assert norm.running_mean is not None
    means = batches.mean(1)
    # No micro-batch counts a ninth more than another, and all of them together as much as one batch.
    off = (0.1 * means.mean(0) - norm.running_mean).abs().max()
    assert off < 0.1 * 0.06 * float(means.std(0, correction=0).max()) + 1e-12
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with running_statistics_moving_by(norm, 0.0):
        norm(batches[0])
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert norm.num_batches_tracked == 1


def test_a_cumulative_average_counts_steps_not_passes() -> None:
    norm = nn.BatchNorm1d(2, momentum=None).double()
    made = torch.Generator().manual_seed(0)
    steps = torch.randn(3, 4, 5, 2, generator=made, dtype=torch.float64)
    for passes in steps:
        with running_statistics_moving_by(norm, 1 / 4):
            for batch in passes:
                norm(batch)
        with running_statistics_moving_by(norm, 0.0):
            norm(passes[0])
    assert norm.momentum is None
    assert norm.num_batches_tracked == 3
    torch.testing.assert_close(norm.running_mean, steps.mean((0, 1, 2)))


def test_nothing_but_embeddings_is_kept_between_the_passes() -> None:
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel()
        return tensor

    for count in (1, MICRO_BATCHES):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step("supcon", ALONE, Setting(micro_batches=count))
    # Two convolutions of 4 and 8 channels on 24 views of 8 x 8 pixels lie between.
    assert kept[1] < kept[0] - 24 * (4 * 16 + 8 * 4)


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def large() -> dict[tuple[torch.dtype, int], Step]:
    """Return the first step on 8,192 real images with pretrain.py's encoder, by precision and micro-batches."""
    if not FASHION.is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    dataset = load_dataset(DatasetSettings("fashion", str(FASHION), train_samples=8192))
    rows = dataset.indices("train")
    batch = dataset.images[rows], (dataset.labels[rows] >= 5).long(), rows, torch.zeros_like(rows)
    return {
        (dtype, count): step_on(batch, "supcon", ALONE, Setting(convnet=True, micro_batches=count, dtype=dtype))
        for dtype in (torch.float64, torch.float32)
        for count in (1, 32)
    }


def off_by(found: Step, expected: Step) -> float:
    """Return the largest difference of two gradients, relative to the largest entry."""
    largest = max(map(largest_of, expected.gradients.values()))
    return max(largest_of(found.gradients[n].double() - g) for n, g in expected.gradients.items()) / largest


@pytest.mark.slow
def test_a_batch_of_8192_real_images_has_the_gradient_of_one_shot(large: dict[tuple[torch.dtype, int], Step]) -> None:
    one_shot, cached = large[torch.float64, 1], large[torch.float64, 32]
    assert cached.loss == pytest.approx(one_shot.loss, rel=1e-9)
    assert_close(cached.gradients, one_shot.gradients, 1e-9)


@pytest.mark.slow
def test_in_float32_micro_batches_round_less_than_one_shot(large: dict[tuple[torch.dtype, int], Step]) -> None:
    exact = large[torch.float64, 1]
    cached, one_shot = (off_by(large[torch.float32, count], exact) for count in (32, 1))
    figures = f"of the largest entry: {cached:.1e} in micro-batches, {one_shot:.1e} in one shot"
    print(figures)
    assert cached < 2e-5, figures  # 1.4e-5 on one processor, below 1e-5 on others
    # One shot adds up the gradients of three million pixels one after the other, micro-batches in 32 parts.
    assert cached < one_shot, figures
