"""One cluster for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a SLURM that runs."""
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()
