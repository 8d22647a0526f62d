"""One page about a sweep: a self-contained HTML file with the pictures inside, which opens without a network."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from ttc.results.clinic.summary import Page, Section
from ttc.results.figures.members import Figure
from ttc.results.tables import Table, legend
from ttc.run.escape import html, html_lines

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto; max-width: 78rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
table.text td, table.text th { text-align: left; white-space: normal; vertical-align: top; }
.named th:nth-child(-n+3), .named td:nth-child(-n+3) { text-align: left; }
tr.group td { font-style: italic; background: #f4f4f4; }
figure { margin: 1rem 0 2rem; } img { max-width: 100%; height: auto; }
figcaption, .small { color: #555; font-size: 13px; max-width: 60rem; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; font-size: 12px; }
"""


def html_report(
    title: str,
    tables: Mapping[str, Table],
    figures: Sequence[Figure],
    texts: Mapping[str, str],
    facts: Mapping[str, str],
    first: str = "",
    sections: Sequence[Section] = (),
    folder: Path = Path(),
) -> str:
    """Compose the page.

    Args:
        title: of the page.
        tables: heading -> table.
        figures: whose PNG files are put into the page.
        texts: heading -> preformatted text, such as the plan of a run.
        facts: name -> value of the table at the end: versions, commits, dates.
        first: HTML that comes before the results.
        sections: what runs say to those who act on them.
        folder: where the page will lie, for its links to report cards.

    Returns:
        HTML that needs nothing outside of itself; it links to the runs' report cards.
    """
    pictures = []
    for figure in figures:
        data = base64.b64encode(figure.path.read_bytes()).decode()
        pictures.append(
            f"<h2>{html(figure.title)}</h2>\n<figure><img alt='{html(figure.title)}' "
            f"src='data:image/png;base64,{data}'>\n<figcaption>{html(figure.caption)}</figcaption></figure>"
        )
    blocks = [f"<h2>{html(name)}</h2>\n<pre>{html_lines(text)}</pre>" for name, text in texts.items()]
    entries = "".join(f"<tr><td>{html(name)}</td><td>{html(value)}</td></tr>\n" for name, value in facts.items())
    return "\n".join(
        [
            "<!doctype html>",
            "<html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{html(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html(title)}</h1>",
            *([first] if first else []),
            *(
                f"<h2>{html(heading)}</h2>\n{_results(table)}\n<p class='small'>{html(legend(table))}</p>"
                for heading, table in tables.items()
            ),
            *(_section(section, folder) for section in sections),
            *pictures,
            *blocks,
            "<h2>How it was made</h2>",
            f"<div class='wide'><table>{entries}</table></div>",
            "</body></html>",
            "",
        ]
    )


def _results(table: Table) -> str:
    """Lay out the results, the best of each group in bold."""
    names = ["run", "seeds", *(f"{html(column.group)}<br>{html(column.heading)}" for column in table.columns)]
    lines = ["<div class='wide'><table><tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for group, rows in table.sections(table.cells(" ± ", "<b>{}</b>".format, below="&lt;")):
        if group is not None:
            lines.append(f"<tr class='group'><td colspan='{len(names)}'>{html(group)}</td></tr>")
        for run, *texts in rows:
            lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in (html(run), *texts)) + "</tr>")
    return "\n".join([*lines, "</table></div>"])


def _section(section: Section, folder: Path) -> str:
    """Lay out a section; a row that begins as the one above it leaves those cells empty."""
    lines = [f"<h2>{html(section.title)}</h2>", f"<p class='small'>{html(section.intro)}</p>"]
    lines.append(
        "<div class='wide'><table class='named'><tr>"
        + "".join(f"<th>{html(name)}</th>" for name in section.header)
        + "</tr>"
    )
    above: list[str] = []
    for row in section.rows:
        cells = [_link(cell, folder) if isinstance(cell, Page) else html(cell) for cell in row]
        same = cells[:2] == above[:2]
        lines.append(
            "<tr>" + "".join(f"<td>{text}</td>" for text in (["", "", *cells[2:]] if same else cells)) + "</tr>"
        )
        above = cells if cells[0] else above
    lines.append("</table></div>")
    notes = dict.fromkeys(html(note) for note in section.notes)
    return "\n".join([*lines, *([f"<p class='small'>{'<br>'.join(notes)}</p>"] if notes else [])])


def _link(page: Page, folder: Path) -> str:
    target = os.path.relpath(page.run.resolve() / page.file, folder.resolve())
    return f"<a href='{quote(target)}'>{html(page.file.as_posix())}</a>"
