"""Gradient caching, recomputed blocks and BatchNorm of every family, on one and two ranks."""

from __future__ import annotations

import importlib.util
from functools import partial

import pytest
import torch

from tests.ranks.encoder_steps import Step, steps
from tests.ranks.launch import on_ranks

WITHOUT_BATCHNORM = [("timm/test_vit", 32), ("timm/test_convnext", 32)]
WITH_BATCHNORM = [("timm/test_efficientnet", 32), ("timm/test_resnet", 32), ("mobilenet_v3_small", 32)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[tuple[str, int, bool], Step]]:
    """Return the steps by number of ranks; their gradients are averaged, so that the first rank's are everybody's."""
    folder = tmp_path_factory.mktemp("encoders")
    do = partial(steps, cases=WITHOUT_BATCHNORM + WITH_BATCHNORM)
    return {size: on_ranks(size, do, folder)[0] for size in (1, 2)}


def assert_equal_steps(found: Step, expected: Step) -> None:
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    assert found.gradients.keys() == expected.gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    for key, gradient in expected.gradients.items():
        torch.testing.assert_close(
            found.gradients[key], gradient, rtol=1e-9, atol=1e-9 * largest, msg=lambda text, k=key: f"{k}: {text}"
        )


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", [name for name, _ in WITHOUT_BATCHNORM])
def test_gradient_caching_with_recomputed_blocks_is_the_plain_step(
    name: str, ranks: int, made: dict[int, dict[tuple[str, int, bool], Step]]
) -> None:
    assert_equal_steps(made[ranks][name, 3, True], made[1][name, 1, False])


@pytest.mark.parametrize("pieces", [(1, False), (3, True)], ids=["whole", "micro-batches"])
@pytest.mark.parametrize("name", [name for name, _ in WITH_BATCHNORM])
def test_batchnorm_of_every_family_goes_over_all_ranks(
    name: str, pieces: tuple[int, bool], made: dict[int, dict[tuple[str, int, bool], Step]]
) -> None:
    one, two = (made[ranks][(name, *pieces)] for ranks in (1, 2))
    assert_equal_steps(two, one)
    assert any("running_mean" in key for key in one.buffers)
    for key, value in one.buffers.items():
        torch.testing.assert_close(two.buffers[key], value, rtol=1e-9, atol=1e-12)
        if "num_batches_tracked" in key:
            assert int(value) == 1, "a step is counted once, whatever it consists of"
