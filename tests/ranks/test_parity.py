"""Every method gives the same loss and gradient on one, two and three ranks; a new method is compared unasked."""

from __future__ import annotations

import pytest
import torch

from tests.ranks.launch import on_ranks
from tests.ranks.parity import CASES, STEPS, Trace, train
from ttc import distributed


def train_all(world: distributed.World) -> dict[str, Trace]:
    traces = {}
    for case in CASES:
        try:
            traces[case] = train(case, world)
        except (RuntimeError, ValueError) as error:  # one broken method must not hide the others
            traces[case] = Trace(error=str(error))
    return traces


@pytest.fixture(scope="module")
def alone() -> dict[str, Trace]:
    return train_all(distributed.World(0, 1, 0, torch.device("cpu")))


@pytest.fixture(scope="module", params=[2, 3], ids=lambda size: f"{size} ranks")
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Trace]]:
    return on_ranks(request.param, train_all, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_do_not_depend_on_the_ranks(
    case: str, alone: dict[str, Trace], together: list[dict[str, Trace]]
) -> None:
    expected = alone[case]
    assert [trace.error for trace in (expected, *(ranks[case] for ranks in together)) if trace.error] == []
    assert len(expected.gradients[0]) >= 15  # five convolutions with their BatchNorms at least
    for ranks in together:
        found = ranks[case]
        assert found.losses == pytest.approx(expected.losses, rel=1e-9)
        for step in range(STEPS):
            assert found.gradients[step].keys() == expected.gradients[step].keys()
            largest = max(float(gradient.abs().max()) for gradient in expected.gradients[step].values())
            for name, gradient in expected.gradients[step].items():
                off = float((found.gradients[step][name] - gradient).abs().max())
                assert off < 1e-9 * largest, f"step {step}: gradient of {name} is off by {off:.1e}"
        assert found.buffers.keys() == expected.buffers.keys()
        for name, buffer in expected.buffers.items():
            torch.testing.assert_close(
                found.buffers[name], buffer, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_the_second_step_differs_from_the_first(alone: dict[str, Trace]) -> None:
    for case, trace in alone.items():
        assert trace.losses[0] != trace.losses[1], case
