"""A pytest plugin, `-p tests.collected_files`: writes down which files would be collected, and imports none of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest


class Unread(pytest.Module):
    """A module of tests that is not looked into."""

    def collect(self) -> Iterable[pytest.Item]:
        return []


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    with Path(os.environ["TTC_COLLECTED"]).open("a") as file:
        file.write(f"{module_path}\n")
    return Unread.from_parent(parent, path=module_path)  # type: ignore[no-any-return]
