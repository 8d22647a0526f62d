"""Run a property on many inputs: some in every test run, thousands with --all, all of them counted."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.reliability.figures import record

SIZES = [pytest.param(60, id="short"), pytest.param(2000, id="long", marks=pytest.mark.slow)]
"""Numbers of inputs, as a parameter `cases` of a test."""


def try_inputs(name: str, cases: int, inputs: SearchStrategy[object], check: Callable[[object], str]) -> None:
    """Call `check` on so many inputs, the same ones in every run.

    Args:
        name: of the figure.
        cases: how many.
        inputs: what they are drawn from.
        check: raises if the project misbehaves, else says what it did: "accepted" or "refused".
    """
    outcomes: dict[str, int] = {}

    # No shrinking phase is left out: a failure is shown as its smallest input.
    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def attempt(value: object) -> None:
        outcome = check(value)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    attempt()
    assert sum(outcomes.values()) >= cases // 2
    assert outcomes.get("refused"), outcomes
    if cases >= 1000:
        record(f"inputs: {name}", "bash scripts/test.sh --all tests/reliability", outcomes)


def verdict(action: Callable[[], object]) -> str:
    """Return "accepted", or "refused" where an action ends as a user's error does; anything else is a failure.

    A refusal is exit code 2 with one line on stderr, or an error that `runtime.run` shows as one line.
    """
    told, code, reason = io.StringIO(), None, None
    with contextlib.redirect_stderr(told):
        try:
            action()
        except SystemExit as ended:
            code = ended.code
        except (ValueError, OSError) as error:
            reason = str(error)
    lines = told.getvalue().splitlines()
    if code is not None:
        assert (code, len(lines)) == (2, 1), lines
        return "refused"
    assert lines == []
    assert reason is None or reason
    return "accepted" if reason is None else "refused"
