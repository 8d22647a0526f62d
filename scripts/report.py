"""Write a one-page HTML report of a sweep: python scripts/report.py --output report.html RUN [RUN ...].

The page holds the table, what the runs reach on other data, by patient and in subgroups, calibration, net benefit, the
figures, the settings and the versions. It needs nothing outside of itself and opens without a network; links lead to
the runs' report cards. The figures also lie beside it as PNG and PDF, in the folder NAME-figures.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Figures of a few hundred points gain nothing from more threads, which take the cores of other work.
if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import flags
from ttc.evaluation.probe import PROBES
from ttc.flags.parser import Parser
from ttc.results import collect, sweep_figures
from ttc.results.clinic import summary
from ttc.results.experiment.page import as_html, read_page
from ttc.results.figures.members import members_of
from ttc.results.html_report import html_report
from ttc.results.ledger_lines import of_rows
from ttc.results.table_parts import paper
from ttc.results.table_parts.columns import PAPER, WANTED
from ttc.results.table_parts.row_names import compared_with
from ttc.results.tables import Table, build_table
from ttc.run import files, roles, runtime
from ttc.run.checkpoint import write_text
from ttc.run.log import log, start_logging, with_bar
from ttc.run.readers import read_environment


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "Write a one-page HTML report of a sweep.", "python scripts/report.py --output report.html runs/quickstart/*/"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; what they lack is shown as '-'")
    parser.add_argument("--output", required=True, metavar="FILE.html", help="page to write")
    parser.add_argument("--title", default="Sweep", help="heading of the page")
    parser.add_argument(
        "--figures",
        default=",".join(sweep_figures.KINDS),
        metavar="NAME,NAME",
        help="what to draw; leave out tsne when it takes too long",
    )
    parser.add_argument(
        "--choices", metavar="FILE.json", help="what scripts/from_table.sh chose and why, to be put at the top"
    )
    flags.add_compare(parser)
    parser.add_argument("--probe", choices=PROBES, help=f"probe of the page; the default is {paper.PROBE_RULE}")
    return parser


def settings(runs: Sequence[collect.Run]) -> dict[str, str]:
    """Return the flags that all runs share and, by flag, the values in which they differ."""
    values = {
        name: [json.dumps(roles.value_of(name, run.training)) for run in runs]
        for name in dict.fromkeys(name for run in runs for name in run.training)
        if roles.makes_run(name)
    }
    shared = [f"--{name.replace('_', '-')} {texts[0]}" for name, texts in values.items() if len(set(texts)) == 1]
    varied = [
        f"--{name.replace('_', '-')}: {', '.join(dict.fromkeys(texts))}"
        for name, texts in values.items()
        if len(set(texts)) > 1
    ]
    return {"Settings that differ": "\n".join(varied) or "none", "Settings that all runs share": "\n".join(shared)}


def plan_of(run: Path) -> str:
    """Return what a run said before it began: the lines of its log up to the first epoch."""
    path = run / "log.txt"
    lines = files.read_bytes(path, run).decode(errors="replace").splitlines() if path.is_file() else []
    # Each line begins with date, time and level.
    messages = [line.split(" ", 3)[-1] for line in lines]
    end = next(
        (number for number, line in enumerate(messages) if line.startswith(("epoch", "finished"))), len(messages)
    )
    return "\n".join(messages[:end])


def facts(runs: Sequence[collect.Run], lines: pandas.DataFrame) -> dict[str, str]:
    """Return versions, devices and commits; several where the runs differ."""
    facts_by_name: dict[str, list[str]] = {"runs": [str(len(runs))]}
    for run in runs:
        path = run.path / "env.json"
        if path.is_file():
            record = read_environment(path, run.path)
            for name in ("python", "torch", "torchvision", "platform", "device"):
                facts_by_name.setdefault(name, []).append(str(record[name]))
            git = record["git"]
            assert isinstance(git, dict)
            commit = f"{git['commit']}{' with uncommitted changes' if git['dirty'] else ''}"
            facts_by_name.setdefault("trained by commit", []).append(commit)
    facts_by_name["evaluated by commit"] = [commit for commit in lines["commit"] if commit] or ["unknown"]
    return {name: ", ".join(dict.fromkeys(values)) for name, values in facts_by_name.items()}


def tables_of(lines: pandas.DataFrame, probe: str) -> dict[str, Table]:
    """Return the tables of the page by heading: what papers print, if anything was classified, and all the rest."""
    tables = {"Training and embeddings": build_table(lines, paper.columns_for(probe, lines))}
    if (lines["metric"].isin(paper.ledger_metrics()) & lines["value"].notna()).any():
        classifiers = build_table(paper.paper_lines(lines, probe), PAPER, name_groups=True)
        tables = {"Results": classifiers, **tables}
    return tables


def main() -> int:
    """Read, draw, write."""
    args = build_parser().parse(sys.argv[1:]).namespace()
    start_logging(main=True)
    page = None if args.choices is None else read_page(Path(args.choices))
    output, folders = files.place(Path(args.output)), [Path(run) for run in args.runs]
    runs = []
    for folder in with_bar(folders, "runs"):
        run, missing = collect.read_run(folder)
        for path in missing:
            log.warning("%s is missing; the table shows '-'", path)
        runs.append(run)
    compared = compared_with(args.compare)
    also = [*paper.ledger_metrics(), *sweep_figures.SCATTERED]
    lines = collect.lines_of(runs, WANTED, also=also, compared=compared, complete=False)
    members, probe = members_of(runs, compared), args.probe or paper.page_probe(lines)
    # Whatever is read is read before the drawing, which takes the time.
    texts, made_with = {**settings(runs), f"Plan of {folders[0].name}": plan_of(folders[0])}, facts(runs, lines)
    sections = summary.sections([(run.path.name, run.path, run.results) for run in runs])
    figures = sweep_figures.draw(
        members,
        of_rows(lines),
        output.with_name(f"{output.stem}-figures"),
        probe,
        sweep_figures.kinds(args.figures),
    )
    title, first = (args.title, "") if page is None else (page.title, as_html(page))
    text = html_report(title, tables_of(lines, probe), figures, texts, made_with, first, sections, output.parent)
    write_text(output, text)
    log.info("wrote %s", output)
    return 0


if __name__ == "__main__":
    runtime.run(main)
