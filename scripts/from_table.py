"""From one's own images to a table, a report and a model: what scripts/from_table.sh runs.

    python scripts/from_table.py TABLE.csv|FOLDER|FILE.npz OUT [FLAGS of pretrain.py]
    python scripts/from_table.py - OUT --dataset breastmnist --data-root MEDMNIST

Checks the data, writes a recipe (OUT/recipe.args) and a manifest (OUT/manifest.csv), runs the manifest, collects
OUT/table.md, .tex and .csv, lets validation choose a model, copies it to OUT/model, and writes OUT/choices.md and
OUT/report.html. Every step is a command of its own, which is printed. Run again, it goes on where it stopped.

Exit codes: 0 done, 1 failed or some runs are not done, 2 wrong usage, 75 stopped on request; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from scripts.experiment_plan import (
    Plan,
    digest_of,
    flags_of,
    flat,
    make_plan,
    read_data,
    words_of,
)
from ttc import flags
from ttc.datasets import Dataset, load_dataset
from ttc.datasets.prepare import side_of
from ttc.datasets.registry import read_source
from ttc.datasets.table import Source
from ttc.flags.data_settings import dataset_settings
from ttc.flags.parser import Given, Parser, whole
from ttc.results.collect import read_run
from ttc.results.experiment import chosen
from ttc.results.experiment.page import USES, Page, as_markdown
from ttc.results.table_parts.row_names import places_of
from ttc.run import manifest, runtime
from ttc.run.checkpoint import write_text
from ttc.run.folder import RunFolder
from ttc.run.log import log, start_logging
from ttc.training.budget import image_size


def build_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        "From one's own images to a table, a report and a model.",
        "bash scripts/from_table.sh TABLE.csv runs/mine --label-column ill --group-column patient",
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="TABLE.csv, a folder with a folder per class, FILE.npz, or - with --dataset NAME")
    add("out", metavar="OUT", help="folder of all results")
    add = parser.add_argument_group("experiment").add_argument
    add("--seeds", type=whole(1), metavar="N", help="repeat with seeds 0 to N-1; the default goes by the data's size")
    add("--folds", type=whole(2), metavar="K", help="K folds of the whole experiment in place of seeds; for small data")
    add("--skip-finetuning", action="store_true", help="only probes of frozen features, when time is short")
    add("--jobs", type=whole(1), metavar="N", help="runs at a time; the default is the number of cores, 1 with a GPU")
    add("--dry-run", action="store_true", help="check, choose, write recipe and manifest, then stop")
    for group in (flags.add_data, flags.add_augmentation, flags.add_model, flags.add_layers, flags.add_method):
        group(parser)
    for group in (flags.add_optimisation, flags.add_runtime, flags.add_monitoring, flags.add_groups):
        group(parser)
    return parser


def claim(args: argparse.Namespace, given: Given, source: Source) -> RunFolder:
    """Lock OUT; refuse it where it holds the experiment of other data or flags."""
    folder = RunFolder(Path(args.out).resolve(), "report.html")
    values = {name: value for name, value in vars(args).items() if name not in ("data", "out", "jobs", "dry_run")}
    values["data"] = digest_of(source)
    sources, arguments = {**given.sources, "data": "content of the data"}, folder.path / "args.json"
    trained = (folder.path / "manifest.csv").is_file()
    if not trained and arguments.is_file() and "skip_finetuning" in arguments.read_text():
        folder.save_arguments(values, sources, {})  # a check that failed: data that were mended take the folder
    folder.claim(values)
    folder.save_arguments(values, sources, {})
    return folder


def call(script: str, *words: str, chatty: bool = False, stop: runtime.StopRequest | None = None) -> int:
    """Tell a command, run it in the project's folder, and return its exit code.

    Args:
        script: relative to the project's folder.
        words: what follows it.
        chatty: whether its standard output goes to standard error, as no result of this command.
        stop: whose signals are handed on.
    """
    log.info("$ %s", shlex.join(["python", script, *words]))
    stdout = sys.stderr.fileno() if chatty else None
    process = subprocess.Popen([sys.executable, script, *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout)
    return process.wait() if stop is None else stop.wait_for(process)


def must(what: str, code: int) -> None:
    """End with a command that failed; it has said why.

    Raises:
        ValueError: it did.
    """
    if code:
        raise ValueError(f"{what} ended with exit code {code}, see above; mend that and call the same command again")


def check(out: Path, words: Sequence[str]) -> None:
    """Look at all images once, unless that was done."""
    path = out / "check" / "report.json"
    if not path.is_file() or json.loads(path.read_text())["problems"]:
        must("the check", call("scripts/check_dataset.py", *words, "--output", str(path.parent), chatty=True))


def rows_of(out: Path, rows: Sequence[str]) -> dict[str, list[Path]]:
    """Return the run folders of the manifest by row."""
    folders: dict[str, list[Path]] = {row: [] for row in rows}
    for line in manifest.read_manifest(out / "manifest.csv"):
        row = next(
            row
            for row in sorted(rows, key=len, reverse=True)
            if re.match(rf"{re.escape(row)}-(seed|fold)\d", line.name)
        )
        folders[row].append(out / "runs" / line.folder)
    return folders


def example_images(dataset: Dataset, folder: Path) -> Path:
    """Write eight test images of a named data set as files, for predict.py to read."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(dataset.images[dataset.indices("test")[:8]]):
        array = pixels.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(folder / f"{number}.png")
    return folder


def commands(args: argparse.Namespace, dataset: Dataset, out: Path, checkpoint: Path, head: str) -> list[str]:
    """Return two commands that use the model, with the data of this experiment in the place of others."""
    python, words = "python", [] if not head else ["--head", head]
    at = str(checkpoint)
    columns = flat(
        words_of(args, {"label_column", "path_column", "group_column", "id_column", "classes", "positive_classes"})
    )
    images = args.data_root if args.data != "-" else str(example_images(dataset, out / "example-images"))
    predict = [
        python,
        "scripts/predict.py",
        "--checkpoint",
        at,
        *words,
        "--images",
        images,
        "--output",
        str(out / "predictions-new.csv"),
    ]
    evaluate = [python, "scripts/evaluate.py", "--checkpoint", at, *words, "--dataset", args.dataset]
    evaluate += [] if args.data_root is None else ["--data-root", args.data_root]
    return [shlex.join(predict), shlex.join([*evaluate, *columns])]


def conclude(args: argparse.Namespace, out: Path, plan: Plan, dataset: Dataset) -> Page:
    """Let validation choose, copy the model, write the page of choices."""
    rows = rows_of(out, plan.rows)
    firsts = [read_run(folders[0])[0] for folders in rows.values()]
    named = {name: folders for (_, name), folders in zip(places_of(firsts), rows.values(), strict=True)}
    candidates = chosen.read_candidates(named)  # under the names of the table
    winner = chosen.choose(candidates, ("untrained",))
    cells = [
        [c.name, *(f"{100 * mean:.1f}" for mean in c.means), "chosen" if c is winner else ""]
        for c in sorted(candidates, key=lambda candidate: -candidate.means[0])
    ]
    page = Page(
        f"{args.dataset if args.data == '-' else Path(args.data_root).stem}: {' against '.join(dataset.class_names)}",
        chosen.verdict(winner, candidates, plan.repeated.text, min(dataset.class_counts("val"))),
        cells,
        [[choice.what, choice.chosen, choice.reason, choice.change] for choice in plan.choices],
        commands(args, dataset, out, *chosen.copy_model(winner, out / "model")),
    )
    page.save(out / "choices.json")
    write_text(out / "choices.md", as_markdown(page))
    return page


def main() -> int:
    """Check, choose, run, collect, conclude."""
    # 1. parse
    parser = build_parser()
    given = parser.parse(sys.argv[1:])
    args = given.namespace()
    if args.folds is not None and args.seeds is not None:
        parser.refuse("--folds repeats the experiment in folds, with one seed; leave out --folds or --seeds")
    read_data(parser, args, given)

    # 2. folder; reading tells what every step tells again
    source = read_source(dataset_settings(args))
    folder = claim(args, given, source)
    out = folder.path
    start_logging(main=True)
    stop = runtime.StopRequest()

    # 3. check, with the size that the images will have
    gpu = torch.cuda.is_available()
    typed = {name for name, given_by in given.sources.items() if given_by != "default"} | {"dataset", "data_root"}
    own_size = args.data != "-" and args.image_size is None and args.weights is None
    wanted = argparse.Namespace(**vars(args))
    if own_size:
        wanted.image_size = image_size(side_of(source), gpu, 1)[0]
    if source.pixels is None and "cache" not in typed:
        wanted.cache, wanted.cache_folder = "disk", str(out / "cache")
    of_data = flags_of(flags.add_data)
    check(out, flat(words_of(wanted, typed & of_data | {"image_size", "cache", "cache_folder"})))

    # 4. choose
    plan = make_plan(args, typed, source, dataset := load_dataset(dataset_settings(wanted)), out)
    for choice in plan.choices:
        text = f"{choice.what}: {choice.chosen} ({choice.reason}; {choice.change})"
        for line in textwrap.wrap(text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False):
            log.info("%s", line)
    recipe = f"@{out / 'recipe.args'}"
    fold = [] if plan.repeated.folds is None else ["--fold", f"1/{plan.repeated.folds}"]
    if not (out / "runs").is_dir():
        must("the plan", call("pretrain.py", recipe, *plan.advised, *fold, "--dry-run", chatty=True))
    must("the manifest", call("scripts/make_manifest.py", *plan.manifest))
    if args.dry_run:
        return 0

    # 5. run
    jobs = args.jobs or (1 if gpu else runtime.usable_cores())
    code = call(
        "scripts/run_cells.py", str(out / "manifest.csv"), "--jobs", str(jobs), "--output", str(out / "runs"), stop=stop
    )
    if code == runtime.EXIT_STOPPED:
        return code
    must("some runs", code)

    # 6. collect
    runs = [str(run) for row in rows_of(out, plan.rows).values() for run in row]
    must(
        "the table",
        call("scripts/collect_results.py", "--paper", "--probe", "all", "--output", str(out / "table"), *runs),
    )
    page = conclude(args, out, plan, dataset)
    words = ["--choices", str(out / "choices.json"), "--output", str(out / "report.html"), "--probe", "all"]
    must("the report", call("scripts/report.py", *words, *runs))
    says = [line for sentence in page.says for line in textwrap.wrap(sentence, 100)]
    sys.stdout.write("\n".join(["", *says, f"Report: {out / 'report.html'}", f"{USES}:", *page.commands, ""]))
    return 0


if __name__ == "__main__":
    runtime.run(main)
