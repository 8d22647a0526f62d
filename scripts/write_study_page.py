"""Fill the tables of docs/study.md and draw its figures from the ledgers in docs/results.

bash scripts/run_manifest.sh scripts/manifests/study.csv 2
bash scripts/collect_study.sh                                    adds the runs to the ledgers and calls this script

The page's blocks are replaced, its text stays. Manifests without a ledger count as not run.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ttc import ledger_lines, manifest, runtime, study, study_factorial, study_figures, study_tables
from ttc.cli import Parser
from ttc.result_tables import replace_block
from ttc.study_tables import SHARES, SUMMARY_ROWS, Sweep

SWEEPS = ("study", "study-ablations", "study-factorial", "study-final")


def read(name: str, results: Path) -> Sweep:
    """Read a manifest and what its ledger holds."""
    cells = manifest.read_manifest(ROOT / "scripts" / "manifests" / f"{name}.csv")
    ledger = results / f"{name}-ledger.csv"
    lines = ledger_lines.from_csv(ledger) if ledger.is_file() else []
    return Sweep(name, cells, study.entries_of(cells, lines))


def main() -> int:
    """Read, tabulate, draw."""
    parser = Parser("Fill docs/study.md from the ledgers.", "python scripts/write_study_page.py")
    add = parser.add_argument
    add("--results", default=str(ROOT / "docs" / "results"), metavar="FOLDER", help="where the ledgers lie")
    add("--page", default=str(ROOT / "docs" / "study.md"), metavar="FILE", help="page whose blocks are replaced")
    add("--images", default=str(ROOT / "docs" / "images"), metavar="FOLDER", help="where the figures go")
    add("--readme", metavar="FILE", help="file whose block `study` gets the summary, such as README.md")
    args = parser.parse(sys.argv[1:]).namespace()
    sweeps = {name: read(name, Path(args.results)) for name in SWEEPS}
    entries = sweeps["study"].entries
    if not entries:
        raise ValueError(
            f"--results {args.results}: study-ledger.csv holds no run of the study; collect its runs first"
        )
    blocks = {
        "coverage": study_tables.coverage(list(sweeps.values())),
        "collapse": study_tables.collapse(entries, SHARES),
        "differences": study_tables.differences(entries, SHARES),
        "ranks": study_tables.rank_table(entries, SHARES, SUMMARY_ROWS),
        "ranks-all": study_tables.ranks_of_all(entries, SHARES),
        **{f"rows-{share}": study_tables.all_rows(entries, share) for share in SHARES},
        "ablations": study_tables.ablations(entries, sweeps["study-ablations"].entries),
        "factorial": study_factorial.table(sweeps["study-factorial"].entries, SHARES[:2]),
        "final": study_tables.final(sweeps["study-final"].entries, SHARES[:2]),
    }
    for name, text in blocks.items():
        replace_block(Path(args.page), name, text)
    if args.readme is not None:
        replace_block(Path(args.readme), "study", study_tables.summary(entries))
    images = Path(args.images)
    study_figures.draw_shares(images / "study-shares.png", entries, SHARES)
    if sweeps["study-ablations"].entries:
        study_figures.draw_ablations(images / "study-ablations.png", entries, sweeps["study-ablations"].entries)
    return 0


if __name__ == "__main__":
    runtime.run(main)
