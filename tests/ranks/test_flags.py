"""Every flag that touches network, batch or loss computes the same on one and two ranks; a new one must be listed."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.ranks.flag_cases import ADAPTIVE, CASES, COMMON, EVERYWHERE, IN_FLOAT32, IRRELEVANT, Ran, prepare, run_all
from tests.ranks.launch import on_ranks
from tests.syntax import none

ALL = [f"{script}: {name}" for script, cases in CASES.items() for name in cases]


@pytest.mark.parametrize("script", CASES)
def test_every_flag_is_compared_or_has_a_reason_not_to_be(script: str) -> None:
    parser = importlib.import_module(script).build_parser()
    flags = {action.option_strings[0] for action in parser._actions if action.option_strings}
    words = {word for case in (COMMON[script], *CASES[script].values()) for word in case.split()}
    compared = {flag for flag in flags if flag in words}
    none(
        f"{flag} of {script}.py: add it to a command in tests/ranks/flag_cases.py, or say there why ranks do not matter"
        for flag in sorted(flags - compared - IRRELEVANT.keys())
    )
    none(f"{flag} is compared and has a reason not to be" for flag in sorted(compared & IRRELEVANT.keys() - EVERYWHERE))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Ran]]]:
    """Return what the commands gave, by number of ranks and rank."""
    folder = tmp_path_factory.mktemp("flags")
    on_ranks(1, partial(_prepare, folder=folder), folder)
    return {size: on_ranks(size, partial(run_all, folder=folder), folder, timeout=500) for size in (1, 2)}


def _prepare(_: object, folder: Path) -> None:
    prepare(folder)


@pytest.mark.long
@pytest.mark.parametrize("case", ALL)
def test_two_ranks_compute_what_one_does(case: str, runs: dict[int, list[dict[str, Ran]]]) -> None:
    expected, *others = (rank[case] for size in (1, 2) for rank in runs[size])
    assert [ran.error for ran in (expected, *others) if ran.error] == []
    name = case.partition(": ")[2]
    # Losses are logged in float32; fine-tuning hands its features to the classifier in float32.
    tolerance = 1e-6 if case.startswith("finetune") else 1e-9
    assert len(expected.losses) >= 3
    for ran in others:
        if name in IN_FLOAT32:  # bfloat16 has eight bits; what the last of them change grows in each step
            assert ran.losses[0] == pytest.approx(expected.losses[0], rel=2**-8)
            continue
        assert ran.losses == pytest.approx(expected.losses, rel=3e-7)
        assert ran.weights.keys() == expected.weights.keys()
        if name in ADAPTIVE:
            continue
        for key, value in expected.weights.items():
            torch.testing.assert_close(
                ran.weights[key], value, rtol=tolerance, atol=tolerance, msg=lambda text, k=key: f"{k}: {text}"
            )
