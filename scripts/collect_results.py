"""Collect runs into one table: python scripts/collect_results.py RUN [RUN ...].

A run needs result.json, linear_eval/result.json and metrics/metrics.json. Runs that differ in nothing but the seed
share a row (mean +- standard deviation). Runs that were set differently in anything else but method and batches do not
belong in one table and are refused. `--output NAME` writes NAME.csv and NAME.md; `--readme FILE --block NAME` replaces
the part of a Markdown file between the comments `NAME: begin` and `NAME: end`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ttc import runtime
from ttc.checkpoint import write_text
from ttc.cli import Parser
from ttc.runfolder import NOT_IDENTITY, shorten

COMPARED = frozenset(
    (
        "method", "method_settings", "batch_sampler", "min_minority_per_batch", "epochs", "seed", "margin",
        "temperature", "minority_class",
    )
)  # fmt: skip
"""What the rows of a table may differ in."""

COLUMNS = {
    "i acc": ("probe i", "acc", "balanced accuracy of a probe on as many images per class as the minority has, %"),
    "i auc": ("probe i", "AUC", "AUROC of this probe, %"),
    "ii acc": ("probe ii", "acc", "balanced accuracy of a probe on a balanced share of the pool, %"),
    "ii auc": ("probe ii", "AUC", "AUROC of this probe, %"),
    "SAA maj": ("SAA", "maj", "sample alignment accuracy of the majority, %"),
    "SAA min": ("SAA", "min", "sample alignment accuracy of the minority, %"),
    "CAC maj": ("CAC", "maj", "class alignment consistency of the majority, %"),
    "CAC min": ("CAC", "min", "class alignment consistency of the minority, %"),
    "cosine": ("cosine", "mean", "mean cosine of all pairs of embeddings; 1 = one point"),
    "loss": ("loss", "end", "training loss of the last steps"),
    "collapse": ("loss", "coll.", "what the loss would be if all embeddings were equal"),
    "seconds": ("time", "s", "seconds of pretraining"),
}
"""Column -> heading, sub-heading, meaning."""


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser("Collect runs into one table.", "python scripts/collect_results.py runs/quickstart/*/")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders that were probed and measured")
    parser.add_argument("--output", metavar="NAME", help="also write NAME.csv and NAME.md")
    parser.add_argument("--readme", metavar="FILE", help="Markdown file whose block is replaced")
    parser.add_argument("--block", metavar="NAME", help="name in the comments around the block")
    return parser


def read_json(path: Path) -> dict:
    """Read a result of a run."""
    try:
        return json.loads(path.read_text())
    except OSError:
        raise ValueError(f"{path} is missing; finish the run (pretrain, linear_eval, compute_metrics) first") from None
    except ValueError:
        raise ValueError(f"{path} is damaged; run that step again in a new folder") from None


def read_run(folder: Path) -> tuple[dict, dict]:
    """Return the row of one run, and the settings that all rows of a table must share."""
    values = {name: entry["value"] for name, entry in read_json(folder / "args.json").items()}
    trained = read_json(folder / "result.json")
    probes = read_json(folder / "linear_eval" / "result.json")
    measured = read_json(folder / "metrics" / "metrics.json")
    minority = measured["minority_class"]
    name = values["method"] if values["epochs"] else "untrained"
    if values["batch_sampler"] != "shuffle":
        name += f" {values['batch_sampler']}"
    if values["min_minority_per_batch"]:
        name += f" >={values['min_minority_per_batch']}"
    row: dict[str, object] = {"run": name}
    for column, probe in (("i", "minority"), ("ii", "fraction")):
        for short, metric in (("acc", "balanced_accuracy"), ("auc", "auroc")):
            row[f"{column} {short}"] = 100 * probes["probes"]["encoder"][probe][metric]["mean"]
    for metric in ("SAA", "CAC"):
        per_class = measured["projection"][metric]["per_class"]
        majority = [value for label, value in enumerate(per_class) if label != minority]
        row[f"{metric} maj"] = None if None in majority else sum(majority) / len(majority)
        row[f"{metric} min"] = per_class[minority]
    row["cosine"] = measured["projection"]["mean_cosine"]["all"]
    row["loss"], row["collapse"] = trained.get("train/loss"), trained["collapse_value"]
    row["seconds"] = trained["seconds"]
    shared = {name: value for name, value in values.items() if name not in NOT_IDENTITY | COMPARED}
    for step in ("linear_eval", "metrics"):
        given = read_json(folder / step / "args.json")
        own = NOT_IDENTITY | {"checkpoint", "checkpoint_sha256", "input_sha256"}
        shared |= {f"{step} {name}": entry["value"] for name, entry in given.items() if name not in own}
    return row, shared


def collect(folders: list[Path]) -> pandas.DataFrame:
    """Return one line per kind of run, in the order of first appearance: text cells, and `n` seeds."""
    rows, first = [], None
    for folder in folders:
        row, shared = read_run(folder)
        rows.append(row)
        if first is None:
            first = folder, shared
        elif differ := sorted(name for name in shared if shared[name] != first[1].get(name)):
            raise ValueError(f"{folder} and {first[0]} differ in {shorten(differ)}; put them in separate tables")
    table = pandas.DataFrame(rows)
    cells = []
    for name, group in table.groupby("run", sort=False):
        line = {"run": name, "n": str(len(group))}
        for column in COLUMNS:
            line[column] = cell(group[column].astype(float), column)
        cells.append(line)
    return pandas.DataFrame(cells)


def cell(values: pandas.Series, column: str) -> str:
    """Format one cell: mean, and standard deviation of several seeds; (k) if only k of them have a value."""
    known = values.dropna()
    if known.empty:
        return "-"
    digits = 2 if column in ("cosine", "loss", "collapse") else 0 if column == "seconds" else 1
    text = f"{known.mean():.{digits}f}"
    if len(known) > 1 and column not in ("collapse", "seconds"):
        text += f"+-{known.std():.{digits}f}"
    return text if len(known) == len(values) else f"{text} ({len(known)})"


def as_text(table: pandas.DataFrame) -> str:
    """Lay the table out for a terminal of 100 columns; columns that do not fit continue below."""
    name_width = max(len(name) for name in table["run"]) + 1
    parts: list[list[str]] = [[]]
    width = {column: max(6, table[column].str.len().max() + 1) for column in COLUMNS}
    for column in COLUMNS:
        if name_width + 3 + sum(width[each] for each in parts[-1]) + width[column] > 100:
            parts.append([])
        parts[-1].append(column)
    lines = []
    for columns in parts:
        groups = [COLUMNS[column][0] for column in columns]
        shown = ["" if position and groups[position - 1] == group else group for position, group in enumerate(groups)]
        lines.append(" " * (name_width + 3) + "".join(f"{g:>{width[c]}}" for g, c in zip(shown, columns, strict=True)))
        lines.append(f"{'run':<{name_width}}{'n':>3}" + "".join(f"{COLUMNS[c][1]:>{width[c]}}" for c in columns))
        for _, row in table.iterrows():
            lines.append(f"{row['run']:<{name_width}}{row['n']:>3}" + "".join(f"{row[c]:>{width[c]}}" for c in columns))
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(table: pandas.DataFrame) -> str:
    """Lay the table out in Markdown, with the meaning of the columns below."""
    heads = ["run", "seeds", *(f"{group} {head}" for group, head, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for _, row in table.iterrows():
        cells = [row["run"], row["n"], *(row[column].replace("+-", " ± ") for column in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    meanings = "; ".join(f"{group} {head}: {meaning}" for group, head, meaning in COLUMNS.values())
    return "\n".join([*lines, "", f"{meanings}.", ""])


def replace_block(path: Path, block: str, text: str) -> None:
    """Replace what stands between the comments of a block in a Markdown file."""
    try:
        before, rest = path.read_text().split(f"<!-- {block}: begin -->")
        _, after = rest.split(f"<!-- {block}: end -->")
    except (OSError, ValueError):
        raise ValueError(f"--readme {path} has no single block {block!r}; add its begin and end comments") from None
    write_text(path, f"{before}<!-- {block}: begin -->\n{text}<!-- {block}: end -->{after}")


def main() -> int:
    """Read, print, write."""
    parser = build_parser()
    args = parser.parse(sys.argv[1:]).namespace()
    if (args.readme is None) != (args.block is None):
        parser.refuse("--readme and --block go together")
    table = collect([Path(run) for run in args.runs])
    sys.stdout.write(as_text(table) + "\n")
    markdown = as_markdown(table)
    if args.output:
        write_text(Path(f"{args.output}.csv"), table.to_csv(index=False))
        write_text(Path(f"{args.output}.md"), markdown)
    if args.readme:
        replace_block(Path(args.readme), args.block, markdown)
    return 0


if __name__ == "__main__":
    runtime.run(main)
