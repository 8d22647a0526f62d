"""Collect runs into one table: python scripts/collect_results.py RUN [RUN ...].

A run needs result.json, linear_eval/result.json and metrics/metrics.json. Runs that differ in nothing but the seed
share a row (mean +- standard deviation). Runs that are the folds of one experiment are one row as well, of their pooled
predictions: every image is tested once. Runs on other data or another ratio form a group of rows of their own. Runs
that were trained, split or evaluated differently in anything but the method and its settings are refused. `--output
NAME` writes the table as NAME.csv, NAME.md and NAME.tex, and one line per run and metric as NAME-ledger.csv. From such
a ledger `--from-csv` makes the table again, without the runs, and with more runs it grows.

`--paper` makes the table that papers print: a part per classifier (a probe of the frozen encoder, the fine-tuned
network), test images and positives, AUROC, AUPRC, balanced accuracy, sensitivity and specificity with 95 % intervals.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import flags
from ttc.evaluation.probe import PROBES
from ttc.flags.parser import Parser
from ttc.results import brief, collect, ledger_lines
from ttc.results.clinic.further_columns import all_columns
from ttc.results.table_parts import paper
from ttc.results.table_parts.columns import PAPER, WANTED, Column
from ttc.results.table_parts.row_names import compared_with
from ttc.results.tables import as_csv, as_latex, as_markdown, as_text, build_table, replace_block
from ttc.run import files, runtime
from ttc.run.checkpoint import write_text
from ttc.run.log import log, start_logging


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Collect runs into one table.", "python scripts/collect_results.py runs/quickstart/*/")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders that were probed and measured")
    parser.add_argument(
        "--from-csv",
        metavar="FILE",
        help="make the table from a ledger that --output wrote before; run folders given too are added to it",
    )
    parser.add_argument(
        "--results",
        metavar="FOLDER",
        help="the ledger names runs relative to this folder; the default is the nearest one that they all lie in",
    )
    flags.add_compare(parser)
    parser.add_argument(
        "--allow-missing", action="store_true", help="show '-' for what an unfinished run lacks, instead of refusing it"
    )
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="put further metrics of the runs in the ledger than the table's: names with * and ?; '*' for all",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="a part per classifier (probe, fine-tuned), with the test set's size and intervals",
    )
    parser.add_argument("--probe", choices=PROBES, help=f"probe that is shown; the default is {paper.PROBE_RULE}")
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="only these columns, in this order: titles such as AUROC, or metrics of the ledger",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="ROW=NAME",
        help="print rows and groups under other names, such as 'supmin=SupMin (ours)'; the ledger keeps its own",
    )
    parser.add_argument(
        "--brief", action="store_true", help="print five columns that need no glossary, and put them in --block"
    )
    parser.add_argument("--output", metavar="NAME", help="also write NAME.csv, NAME.md, NAME.tex and NAME-ledger.csv")
    parser.add_argument("--readme", metavar="FILE", help="Markdown file whose block is replaced")
    parser.add_argument("--block", metavar="NAME", help="name in the comments around the block")
    return parser


def read_runs(folders: list[Path], allow_missing: bool, *, embeddings: bool) -> list[collect.Run]:
    """Read run folders; what they lack is an error, or a warning; `embeddings`: whether their metrics are needed."""
    runs = []
    for folder in folders:
        run, missing = collect.read_run(folder)
        missing = [path for path in missing if embeddings or path.parent.name != "metrics"]
        if missing and not allow_missing:
            raise ValueError(
                f"{missing[0]} is missing; finish the run (pretrain, linear_eval, compute_metrics) or --allow-missing"
            )
        for path in missing:
            log.warning("%s is missing; the table shows '-'", path)
        runs.append(run)
    return runs


def main() -> int:
    """Read, print, write."""
    # 1. parse
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    if (args.readme is None) != (args.block is None):
        parser.refuse("--readme and --block go together")
    if not args.runs and args.from_csv is None:
        parser.refuse("give run folders, --from-csv or both")
    if args.brief and (args.paper or args.columns or args.names or args.probe):
        parser.refuse("--brief has rows and columns of its own; leave out --paper, --columns, --names and --probe")
    if args.output:
        files.place(Path(f"{args.output}.csv"))
    names = dict(word.partition("=")[::2] for word in args.names)
    if not all(names.values()):
        parser.refuse("--names: write ROW=NAME")

    # 2. ledger
    lines = ledger_lines.from_rows([]) if args.from_csv is None else ledger_lines.from_csv(Path(args.from_csv))
    if args.runs:
        collected = collect.lines_of(
            read_runs([Path(run) for run in args.runs], args.allow_missing, embeddings=not args.paper),
            WANTED,
            also=[*paper.ledger_metrics(), *args.also],
            compared=compared_with(args.compare),
            root=args.results and Path(args.results),
            complete=not args.allow_missing,
        )
        lines = ledger_lines.update(lines, collected)
    commits = lines["commit"][lines["commit"] != ""].str[:12].unique()
    if len(commits) > 1:
        log.warning("the runs were evaluated by %d commits: %s", len(commits), ", ".join(sorted(commits)))
    if (lines["dirty"] == "true").any():
        log.warning("some runs were evaluated by code with uncommitted changes")

    # 3. table
    probe = args.probe or paper.page_probe(lines)
    shown = paper.renamed(lines, names)
    columns: Sequence[Column] = PAPER if args.paper else paper.columns_for(probe, lines)
    shown = paper.paper_lines(shown, probe) if args.paper else shown
    in_file = columns if args.paper else all_columns(list(shown["metric"].unique()), columns)
    if args.columns:
        columns = in_file = paper.choose_columns(in_file, args.columns, shown)
    table = build_table(shown, columns, name_groups=args.paper)
    sys.stdout.write(brief.as_text(lines) if args.brief else as_text(table))
    if args.output:
        for suffix, text in (
            (".csv", as_csv(build_table(shown, in_file, name_groups=args.paper))),
            (".md", as_markdown(table)),
            (".tex", as_latex(table)),
            ("-ledger.csv", ledger_lines.to_csv(lines)),
        ):
            write_text(Path(f"{args.output}{suffix}"), text)
    if args.readme:
        replace_block(Path(args.readme), args.block, brief.as_markdown(lines) if args.brief else as_markdown(table))
    return 0


if __name__ == "__main__":
    runtime.run(main)
