"""The page of an experiment: what validation chose and how good that is, every choice with its reason, two commands.

It is kept as a JSON file, from which scripts/from_table.py writes choices.md, and scripts/report.py the first part of
its HTML page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ttc.run import escape, readers
from ttc.run.checkpoint import write_text

CHOICES = ("what", "chosen", "why", "change it with")
CANDIDATES = ("model", "validation AUROC, %", "test AUROC, %", "")
USES = "The model on new images, and on another table: put their names in the place of your data"


@dataclass(frozen=True)
class Page:
    """What there is to say.

    Attributes:
        title: data and classes.
        says: sentences about the chosen model.
        candidates: rows of CANDIDATES.
        choices: rows of CHOICES; the last cell is a flag.
        commands: that use the model.
    """

    title: str
    says: list[str]
    candidates: list[list[str]]
    choices: list[list[str]]
    commands: list[str]

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def read_page(path: Path) -> Page:
    """Read what `Page.save` wrote.

    Raises:
        ValueError: it is no such file; one line that names it.
    """
    source = readers.Source(path, "run scripts/from_table.sh again", what="--choices")
    stored = source.json()

    def table(name: str, width: int) -> list[list[str]]:
        rows = source.part(stored, name, (list,))
        assert isinstance(rows, list)
        checked = [source.texts(row, f"{name}/{number}") for number, row in enumerate(rows)]
        if any(len(row) != width for row in checked):
            source.refuse(f"is damaged: rows of other than {width} cells", name)
        return checked

    return Page(
        str(source.part(stored, "title", readers.TEXT)),
        source.texts(stored.get("says"), "says"),
        table("candidates", len(CANDIDATES)),
        table("choices", len(CHOICES)),
        source.texts(stored.get("commands"), "commands"),
    )


def as_markdown(page: Page) -> str:
    """Lay the page out in Markdown."""

    def table(head: Sequence[str], rows: Sequence[Sequence[str]], last: Callable[[str], str]) -> list[str]:
        cells = [[*map(escape.markdown, row[:-1]), last(row[-1])] for row in rows]
        return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]

    return "\n".join(
        [
            f"# {escape.markdown(page.title)}",
            "",
            *map(escape.markdown, page.says),
            "",
            *table(CANDIDATES, page.candidates, escape.markdown),
            "",
            "## What was chosen, and why",
            "",
            *table(CHOICES, page.choices, escape.markdown_code),
            "",
            f"## {USES}",
            "",
            "```",
            *page.commands,
            "```",
            "",
        ]
    )


def as_html(page: Page) -> str:
    """Lay the page out as a part of an HTML page."""

    def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [f"<tr>{''.join(f'<th>{escape.html(cell)}</th>' for cell in head)}</tr>"]
        lines += [f"<tr>{''.join(f'<td>{escape.html(cell)}</td>' for cell in row)}</tr>" for row in rows]
        return "<div class='wide'><table class='text'>\n" + "\n".join(lines) + "\n</table></div>"

    commands = escape.html_lines("\n".join(page.commands))
    return "\n".join(
        [
            *(f"<p>{escape.html(sentence)}</p>" for sentence in page.says),
            table(CANDIDATES, page.candidates),
            "<h2>What was chosen, and why</h2>",
            table(CHOICES, page.choices),
            f"<h2>{escape.html(USES)}</h2>\n<pre>{commands}</pre>",
        ]
    )
