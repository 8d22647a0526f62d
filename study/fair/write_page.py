"""Fill the pages of the fair study and draw its figures from docs/results/fair.csv.

bash scripts/run_study.sh                       runs the study and keeps the ledger
python study/fair/write_page.py                 fills docs/study.md and docs/study-tables.md

A page holds the comments `<!-- NAME: begin -->` and `<!-- NAME: end -->` of each of its blocks; what stands between
them is replaced, the text around them stays. A ledger that is not complete gives pages that say so.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from study.fair import figures, ledger, page_answers, page_tables
from study.fair.state import State
from ttc.flags.parser import Parser
from ttc.results.tables import replace_block
from ttc.run import files, runtime

PAGE = {
    "fair-status": page_tables.status,
    "fair-replicated": page_answers.replicated,
    "fair-summary": page_answers.summary,
    "fair-starts-compared": page_tables.starts_compared,
    "fair-recipe": page_answers.recipe,
}
"""Blocks of the page of findings."""
TABLES = {
    "fair-status": page_tables.status,
    "fair-coverage": page_tables.coverage,
    "fair-settings": page_tables.settings,
    "fair-results": page_tables.results,
    "fair-answers": page_answers.answers,
    "fair-heads": page_answers.heads,
    "fair-by-task": page_answers.by_task,
    "fair-starts": page_tables.starts,
    "fair-pretrained": page_answers.pretrained,
    "fair-candidates": page_answers.candidates,
    "fair-alignment": page_tables.alignment,
    "fair-ranks": page_tables.ranks,
    "fair-tuning": page_tables.tuning,
}
"""Blocks of the page of tables."""


def main() -> int:
    """Read, tabulate, draw."""
    parser = Parser("Fill the pages of the fair study from its ledger.", "python study/fair/write_page.py")
    add = parser.add_argument
    docs = ROOT / "docs"
    add("--ledger", default=str(docs / "results" / "fair.csv"), metavar="FILE", help="finished runs")
    add("--page", default=str(docs / "study.md"), metavar="FILE", help="page of findings whose blocks are replaced")
    add("--tables", default=str(docs / "study-tables.md"), metavar="FILE", help="page of tables, likewise")
    add("--images", default=str(docs / "images"), metavar="FOLDER", help="where the figures go")
    args = parser.parse(sys.argv[1:]).namespace()
    known = ledger.read(Path(args.ledger))
    if known.empty:
        raise ValueError(f"--ledger {args.ledger} holds no run; bash scripts/run_study.sh runs the study")
    state = State(known)
    pages = {"--page": (Path(args.page), PAGE), "--tables": (Path(args.tables), TABLES)}
    # All pages are looked at before any is changed.
    for flag, (path, blocks) in pages.items():
        text = files.read_bytes(path).decode() if path.is_file() else ""
        missing = [
            name for name in blocks if f"<!-- {name}: begin -->" not in text or f"<!-- {name}: end -->" not in text
        ]
        if missing:
            raise ValueError(f"{flag} {path} lacks the begin and end comments of {', '.join(missing)}; add them")
    for path, blocks in pages.values():
        for name, text_of in blocks.items():
            replace_block(path, name, text_of(state))
    figures.draw(Path(args.images), state)
    print(f"{args.page}, {args.tables}: {state.held} of {state.total} planned runs")
    return 0


if __name__ == "__main__":
    runtime.run(main)
