"""docs/methods.md, the docstrings and reference.py tell of the same methods and settings."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from ttc.losses import METHODS, reference, settings_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
COMMON = ("temperature", "base_temperature")
SHOWN = {True: "true", False: "false"}


def sections() -> dict[str, str]:
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {part.partition("\n")[0].strip(): part for part in parts}


@pytest.mark.parametrize("name", METHODS)
def test_section_with_equation_source_and_settings(name: str) -> None:
    section = sections()[name]
    assert "\n    " in section, "no equation"
    assert "\nSource: " in section
    title = METHODS[name].source.split('"')[1]
    assert title in " ".join(section.split())
    settings = {key: value for key, value in settings_of(name).items() if key not in COMMON}
    listed = {line.split("`")[1]: line.partition("(")[2] for line in section.splitlines() if line.startswith("* `")}
    assert set(listed) == set(settings)
    for key, default in settings.items():
        text = SHOWN[default] if isinstance(default, bool) else default if isinstance(default, str) else f"{default:g}"
        assert listed[key].startswith((f"{text})", f"{text};")), f"{key} has the default {text}"


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.streamed])
def test_section_and_docstring_link_to_the_plain_form(name: str) -> None:
    function = name.replace("-", "_")
    assert callable(getattr(reference, function))
    assert f"Plain form: `reference.{function}`." in (inspect.getdoc(METHODS[name].objective) or "")
    assert f"Plain form: `{function}` in [reference.py](../ttc/losses/reference.py)." in sections()[name]


def test_order_is_that_of_the_registry() -> None:
    assert [name for name in sections() if name in METHODS] == list(METHODS)
