from __future__ import annotations

from pathlib import Path

import pytest

from ttc.losses import METHODS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def sections() -> dict[str, str]:
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.partition("\n")[0].strip(): part for part in parts}


@pytest.mark.parametrize("name", METHODS)
def test_section_with_equation_and_source(name: str) -> None:
    section = sections()[name]
    assert "\n    " in section, "no equation"
    assert "\nSource: " in section
    title = METHODS[name].source.split('"')[1]
    assert title in " ".join(section.split())


def test_order_is_that_of_the_registry() -> None:
    assert [name for name in sections() if name in METHODS] == list(METHODS)
