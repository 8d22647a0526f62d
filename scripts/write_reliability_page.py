"""Write docs/reliability.md from what the reliability tests counted.

TTC_FIGURES=figures bash scripts/test.sh --all tests/reliability       each test writes its counts to a file there
TTC_FIGURES=figures python -m tests.reliability.soak --minutes 60      so does the soak
python scripts/write_reliability_page.py figures

docs/reliability.json keeps the last figures of every test; new ones take the place of old ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ttc.flags.parser import Parser
from ttc.run import runtime

SECTIONS = {
    "soak": (
        "An hour of kills",
        "A run gets SIGKILL at random moments, seconds to a minute apart, and its command is repeated at once. A "
        "second run of the same command is left alone. In the end both are compared.",
    ),
    "chaos": (
        "Death at every operation on a file",
        "The process ends itself, without clean-up, before and after each open, write, flush, fsync, replace, unlink "
        "and close, or in the middle of a write. After each death a checkpoint can be read; repeating the command "
        "gives the tensors and the numbers of a run that nobody disturbed.",
    ),
    "exactness": (
        "Interrupted at random steps",
        "Every method, on image files, with one and two processes, without and with workers: killed (SIGKILL) or "
        "stopped (SIGTERM) up to three times at random steps on a random rank, then compared with a run that nobody "
        "disturbed: every tensor of the checkpoint, every line of metrics.jsonl, every number in TensorBoard, with a "
        "line after each or after each fourth step.",
    ),
    "ranks": (
        "One rank fails",
        "All ranks end, and one message says why. Under torchrun with --max-restarts they start again and go on.",
    ),
    "hosts": (
        "One host is lost",
        "Two agents of torchrun on two addresses, or in two network namespaces joined by a virtual cable. The run "
        "fails with one message, and continued on both hosts it ends as a run that nobody disturbed; so does one whose "
        "workers torchrun has started again. torchrun's own agent on a host that is cut off waits for the network or "
        "for the scheduler to end it; the processes of the run do not.",
    ),
    "inputs": (
        "Bad input",
        "Inputs that were read or did what they say (accepted), and inputs that ended with exit code 1 or 2 and one "
        "line (refused). None gave a traceback, hung, or changed a file. Shapes are those of files that scripts read "
        "back: JSON whose parts are missing or something else, tables with cells, rows and columns that are not due, "
        "arrays of other shapes, and damaged bytes; a refusal names the file and says what to do.",
    ),
    "strangers": (
        "A run of a stranger",
        "Whole commands meet a run folder in which one thing is not as a run has it. Each ends with exit code 1 and "
        "one line that names the file; a file and a folder outside of the run have the same content afterwards, and no "
        "page shows it. Seconds are those of a busy machine.",
    ),
    "leaks": ("Long runs", "Memory, open files, threads and child processes of one run, early and late."),
}

Entry = dict[str, object]


def render(entries: dict[str, Entry]) -> str:
    """Return the page: a table per section, and sums where rows count the same things."""
    lines = [
        "# Reliability",
        "",
        "What was tried to lose, corrupt or hang a run, and how often. Written by `scripts/write_reliability_page.py`",
        "from the counts of the tests in `tests/reliability`; nothing here is typed by hand. At the end of each row:",
        "day and commit of the test.",
    ]
    for kind, (title, prose) in SECTIONS.items():
        rows = {name.partition(": ")[2]: entry for name, entry in entries.items() if name.startswith(f"{kind}: ")}
        if not rows:
            continue
        columns = list(dict.fromkeys(column for entry in rows.values() for column in figures_of(entry)))
        lines += ["", f"## {title}", "", prose, ""]
        commands = dict.fromkeys(str(entry["command"]) for entry in rows.values())
        lines += [*(f"    {command}" for command in commands), ""]
        if len(rows) == 1:
            ((name, entry),) = rows.items()
            lines += [f"| {name} | {entry['day']}, {entry['commit']} |", "|---|--:|"]
            lines += [f"| {column} | {value} |" for column, value in figures_of(entry).items()]
            continue
        lines += ["| | " + " | ".join(columns) + " | |", "|---|" + "--:|" * len(columns) + "---|"]
        for name, entry in sorted(rows.items()):
            cells = [str(figures_of(entry).get(column, "")) for column in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {entry['day']}, {entry['commit']} |")
        if kind in ("chaos", "exactness", "inputs"):
            sums = [sum(int(str(figures_of(entry).get(column, 0))) for entry in rows.values()) for column in columns]
            lines.append("| **in all** | " + " | ".join(f"**{total}**" for total in sums) + " | |")
    return "\n".join(lines) + "\n"


def figures_of(entry: Entry) -> dict[str, object]:
    """Return what a test counted."""
    figures = entry["figures"]
    assert isinstance(figures, dict)
    return figures


def main() -> int:
    """Merge, render, write."""
    parser = Parser("Write docs/reliability.md.", "python scripts/write_reliability_page.py figures")
    parser.add_argument("folder", metavar="FOLDER", help="what TTC_FIGURES named when the tests ran")
    folder = Path(parser.parse(sys.argv[1:]).namespace().folder)
    new = sorted(folder.glob("*.json"))
    if not new:
        raise ValueError(f"{folder} holds no figures; run the tests with TTC_FIGURES={folder}")
    figures_file = ROOT / "docs" / "reliability.json"
    entries: dict[str, Entry] = json.loads(figures_file.read_text()) if figures_file.exists() else {}
    for path in new:
        entries.update(json.loads(path.read_text()))
    entries = dict(sorted(entries.items()))  # the order of the columns too is that of a second run
    figures_file.write_text(json.dumps(entries, indent=1) + "\n")
    (ROOT / "docs" / "reliability.md").write_text(render(entries))
    return 0


if __name__ == "__main__":
    runtime.run(main)
