"""Hostile names in everything that is written: tables, the report, the model card and figures."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ROOT
from ttc.models.description import Description
from ttc.results import figure_style, ledger_lines
from ttc.results.clinic.model_card import model_card
from ttc.results.curve_figures import save_training_figure
from ttc.results.embedding_figures import save_embedding_figure, save_grid_figure
from ttc.results.html_report import html_report
from ttc.results.scatter_figure import save_scatter_figure
from ttc.results.table_parts.columns import COLUMNS
from ttc.results.tables import Table, as_latex, as_markdown, as_text, build_table
from ttc.run import checkpoint, escape

SCRIPT = "<script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">"
NAMES = (
    SCRIPT,
    "=A|b `c` [l](javascript:alert(1)) & 100%_#{~^}\\input{/etc/passwd} \u202e💩 中\nsecond | line\x1b[2J",
    "q $\\frac{1}{$ $x^2$",
    "n" * 5000,
)


@pytest.fixture(scope="module")
def table() -> Table:
    texts: dict[str, object] = {name: "" for name, kind in ledger_lines.COLUMNS.items() if kind == "str"}
    numbers = {"seed": 0, "value": 1.0, "low": None, "high": None, "n": 9, "metric": COLUMNS[0].metric}
    rows = [texts | numbers | {"group": group, "run": run} for group in NAMES for run in NAMES]
    return build_table(ledger_lines.from_rows(rows))


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes = set[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_every_row_of_a_table_keeps_its_cells(table: Table) -> None:
    lines = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(table.columns) + 3}
    assert len(lines) == 2 + len(NAMES) + len(NAMES) ** 2
    assert not re.search(r"<(?!br)", as_markdown(table))
    rows = [line for line in as_latex(table).splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(table.columns) + 1}
    assert r"\input" not in as_latex(table)
    assert r"\textbackslash{}input\{/etc/passwd\}" in as_latex(table)
    assert "\x1b" not in as_text(table)
    assert r"second | line\x1b[2J" in as_text(table)


def test_the_report_holds_no_tag_of_a_name(table: Table) -> None:
    page = Tags()
    page.feed(html_report(SCRIPT, {SCRIPT: table}, [], {SCRIPT: f"a\n{SCRIPT}\x1b"}, {SCRIPT: SCRIPT}))
    page.close()
    assert not page.tags & {"script", "img", "a", "iframe"}
    assert page.attributes <= {"class", "lang", "charset", "name", "content", "colspan"}


def test_the_model_card_holds_no_markup_of_a_name() -> None:
    run = ROOT / "tests" / "upgrade" / "93a57da" / "finished"
    state = checkpoint.load(run / "checkpoints" / "last.pt", "pretrain")
    description = replace(Description.from_dict(state["description"]), class_names=list(NAMES[:2]), method=NAMES[1])
    card = model_card(run, replace(description, data={**description.data, "name": SCRIPT}), 32)
    assert "<" not in card
    rows = [line for line in card.splitlines() if re.match(r"\| [01] \|", line)]
    assert [line.count("|") for line in rows] == [6, 6]
    assert escape.markdown(SCRIPT) in rows[0]
    plain = model_card(run, Description.from_dict(state["description"]), 32)
    assert "# convnet-w8 encoder, supproto on digits" in plain
    assert "`--batch-size 64`" in plain
    assert card.count("\n") == plain.count("\n"), "a line feed of a name begins no line"


def rows_of_classes() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(1, 12, 3)), np.arange(12) % len(NAMES)


@pytest.mark.long
def test_names_in_figures_are_text(tmp_path: Path) -> None:
    """No mathematics, no warning about missing letters, and no figure of the width of a name."""
    embeddings, labels = rows_of_classes()
    points = {(name, name): [(float(place), place**2, -place)] for place, name in enumerate(NAMES)}
    pairs = {f"{name}\nx": [([0.0, 1.0], [1.0, 0.0])] for name in NAMES}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_embedding_figure(tmp_path / "a.png", embeddings, labels, NAMES, title=NAMES[2])
        grid = [(name, [(name, embeddings, labels, None)]) for name in NAMES]
        save_grid_figure(tmp_path / "b.png", grid, NAMES, panel="circle")
        save_training_figure(tmp_path / "c.png", pairs, "loss")
        save_scatter_figure(tmp_path / "d.png", points, ("x", "y", "z"))
    from PIL import Image

    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as image:
            assert max(image.size) < 3000, path
    assert len(list(tmp_path.glob("*.pdf"))) == 4


def test_a_picture_that_fails_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="ttc")
    figure_style.log.propagate = True
    with figure_style.drawing(tmp_path / "x.png"):
        raise RuntimeError("no\nfont")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/x.png could not be drawn (no font); the numbers are complete"
    ]
