"""The page of an experiment is read as it was written, refuses what is none, and names stay names in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ttc.results.experiment.page import Page, as_html, as_markdown, read_page

PAGE = Page(
    "cells: a against <b>",
    ["Validation chose joint, probe."],
    [["joint, probe", "81.0", "80.1", "chosen"], ["floor", "70.0", "71.2", ""]],
    [["batch", "64 | 32", "small batches", "--batch-size"]],
    ["python scripts/predict.py --images 'a&b'"],
)


def test_a_page_is_read_as_it_was_written(tmp_path: Path) -> None:
    PAGE.save(tmp_path / "choices.json")
    assert read_page(tmp_path / "choices.json") == PAGE


@pytest.mark.parametrize(
    "change", [{"says": "text"}, {"candidates": [["one cell"]]}, {"choices": None}, {"title": 3}, {"commands": [1]}]
)
def test_another_file_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    PAGE.save(tmp_path / "choices.json")
    stored = json.loads((tmp_path / "choices.json").read_text()) | change
    (tmp_path / "choices.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"choices\.json.*damaged"):
        read_page(tmp_path / "choices.json")


def test_every_cell_is_on_both_pages_and_adds_no_markup() -> None:
    text, page = as_markdown(PAGE), as_html(PAGE)
    assert "| joint, probe | 81.0 | 80.1 | chosen |" in text
    assert "| batch | 64 &#124; 32 | small batches | `--batch-size` |" in text
    assert "a against &#60;b>" in text
    assert "<td>64 | 32</td>" in page
    assert "--images &#x27;a&amp;b&#x27;" in page
    assert "<b>" not in page
