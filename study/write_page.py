"""Fill the tables of docs/study-first.md and draw its figures from the ledgers in docs/results.

bash scripts/run_manifest.sh scripts/manifests/study.csv 2
bash scripts/collect_study.sh                                    adds the runs to the ledgers and calls this script

The page's blocks are replaced, its text stays. Manifests without a ledger count as not run.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from study import factorial, figures, paired, tables
from study.tables import SHARES, SUMMARY_ROWS, Sweep
from ttc.flags.parser import Parser
from ttc.results import ledger_lines
from ttc.results.tables import replace_block
from ttc.run import manifest, runtime

SWEEPS = ("study", "study-ablations", "study-factorial", "study-final")


def read(name: str, results: Path) -> Sweep:
    """Read a manifest and what its ledger holds."""
    planned = manifest.read_manifest(ROOT / "scripts" / "manifests" / f"{name}.csv")
    ledger = results / f"{name}-ledger.csv"
    lines = ledger_lines.from_csv(ledger) if ledger.is_file() else ledger_lines.from_rows([])
    return Sweep(name, planned, paired.finished_runs(planned, lines))


def main() -> int:
    """Read, tabulate, draw."""
    parser = Parser("Fill docs/study-first.md from the ledgers.", "python study/write_page.py")
    add = parser.add_argument
    add("--results", default=str(ROOT / "docs" / "results"), metavar="FOLDER", help="where the ledgers lie")
    add("--page", default=str(ROOT / "docs" / "study-first.md"), metavar="FILE", help="page whose blocks are replaced")
    add("--images", default=str(ROOT / "docs" / "images"), metavar="FOLDER", help="where the figures go")
    args = parser.parse(sys.argv[1:]).namespace()
    sweeps = {name: read(name, Path(args.results)) for name in SWEEPS}
    runs = sweeps["study"].runs
    if runs.empty:
        raise ValueError(
            f"--results {args.results}: study-ledger.csv holds no run of the study; collect its runs first"
        )
    blocks = {
        "coverage": tables.coverage(list(sweeps.values())),
        "summary": tables.summary(runs),
        "collapse": tables.collapse(runs, SHARES),
        "differences": tables.differences(runs, SHARES),
        "ranks": tables.rank_table(runs, SHARES, SUMMARY_ROWS),
        "ranks-all": tables.ranks_of_all(runs, SHARES),
        **{f"rows-{share}": tables.all_rows(runs, share) for share in SHARES},
        "ablations": tables.ablations(runs, sweeps["study-ablations"].runs),
        "factorial": factorial.table(sweeps["study-factorial"].runs, SHARES[:2]),
        "final": tables.final(sweeps["study-final"].runs, SHARES[:2]),
    }
    for name, text in blocks.items():
        replace_block(Path(args.page), name, text)
    images = Path(args.images)
    figures.draw_shares(images / "study-shares.png", runs, SHARES)
    if len(sweeps["study-ablations"].runs):
        figures.draw_ablations(images / "study-ablations.png", runs, sweeps["study-ablations"].runs)
    return 0


if __name__ == "__main__":
    runtime.run(main)
