"""Rules of the repository, read from the syntax trees: one test per rule, which lists every line that breaks it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.syntax import calls, keywords_of, name_of, none, tree_of

TOP = sorted(ROOT.glob("*.py"))
ROOMS = ("scripts", "study", "benchmarks")
PACKAGE = sorted((ROOT / "ttc").rglob("*.py"))
SCRIPTS = sorted([*TOP, *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))])
CODE = PACKAGE + SCRIPTS
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "scripts").rglob("*.args")])

LAYERS = (
    ("ttc.distributed", "ttc.losses", "ttc.metrics"),
    ("ttc.batches", "ttc.run"),
    ("ttc.datasets",),
    ("ttc.models",),
    ("ttc.evaluation",),
    ("ttc.results",),
    ("ttc.training",),
    ("ttc.flags",),
)
"""From the lowest to the highest; above them are the scripts, study/ and benchmarks/."""
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LIFTABLE = {"ttc.losses": {"torch"}, "ttc.metrics": {"torch", "numpy", "scipy", "sklearn"}}
"""What rooms that fit into any other project may import, apart from the standard library and themselves."""
MOST_FILES = {"ttc/losses": 18, "ttc/metrics": 14}
"""Rooms of more than a dozen: one file per family of losses and of metrics is what a reader looks for there."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


OUR_MODULES = {module_of(path) for path in CODE}


@functools.cache
def imports(path: Path) -> list[tuple[str, str]]:
    """Return where a file imports what; `from a import b` counts as a.b where that is a module of ours."""
    lines = []
    for node in ast.walk(tree_of(path)):
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # as in ttc/losses, which other projects copy under other names
                package = module_of(path if path.name == "__init__.py" else path.parent).split(".")
                module = ".".join([*package[: len(package) - node.level + 1], *module.split(".")]).removesuffix(".")
            names = {f"{module}.{alias.name}" for alias in node.names} & OUR_MODULES or {module}
        lines += [(f"{name_of(path)}:{node.lineno}", name) for name in sorted(names)]  # type: ignore[attr-defined]
    return lines


def belongs(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def room_of(module: str) -> str:
    """Return ttc.ROOM for what is in the package, the first word for anything else."""
    words = module.split(".")
    return ".".join(words[:2] if words[0] == "ttc" else words[:1])


def test_imports_only_go_down() -> None:
    offenders = [
        f"{name_of(path)} lies in no room of LAYERS"
        for path in PACKAGE
        if room_of(module_of(path)) not in (*LEVELS, "ttc")
    ]
    for path in PACKAGE:
        room = room_of(module_of(path))
        for where, name in imports(path):
            if belongs(name, "ttc") and room_of(name) != room and LEVELS.get(room_of(name), 99) >= LEVELS.get(room, -1):
                offenders.append(f"{where}: {room} imports {name}, which is not below it")
    none(offenders)


def test_losses_and_metrics_can_be_lifted_out() -> None:
    """They know no ranks, no command line and no files; scikit-learn is imported where a method needs it."""
    outside = {"argparse", "pathlib", "os", "io", "shutil", "tempfile", "subprocess", "json", "csv"}
    offenders = []
    for path in PACKAGE:
        if (room := room_of(module_of(path))) not in LIFTABLE:
            continue
        for where, name in imports(path):
            top = name.split(".")[0]
            lazy = (
                room == "ttc.losses"
                and top == "sklearn"
                and name not in {each.module for each in tree_of(path).body if isinstance(each, ast.ImportFrom)}
            )
            allowed = top in LIFTABLE[room] or belongs(name, room) or lazy
            if not (allowed or top in sys.stdlib_module_names) or top in outside or belongs(name, "torch.distributed"):
                offenders.append(f"{where}: {room} imports {name}")
        offenders += [f"{where}: {room} opens a file" for where, called, _ in calls(path) if called == "open"]
    none(offenders)


def test_nobody_imports_a_script_and_rooms_above_the_package_only_themselves() -> None:
    runnable = {module_of(path) for path in SCRIPTS if path in TOP or "__main__" in path.read_text()}
    offenders = []
    for path in CODE:
        for where, name in imports(path):
            room = room_of(name)
            if (room in ROOMS and room != room_of(module_of(path))) or name in runnable or room in runnable:
                offenders.append(f"{where}: imports {name}")
    none(offenders)


def test_only_the_flags_know_the_command_line() -> None:
    offenders = []
    for path in PACKAGE:
        module = module_of(path)
        if module not in ("ttc.flags.parser", "ttc.flags.settings"):
            offenders += [f"{where}: imports argparse" for where, name in imports(path) if belongs(name, "argparse")]
        if belongs(module, "ttc.flags"):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
                offenders += [f"{name_of(path)}:{node.lineno}: {node.name} takes args"] * ("args" in names)
    none(offenders)


def test_collectives_and_tensorboard_have_one_place() -> None:
    places = {
        "torch.distributed": "ttc.distributed",
        "torch.nn.parallel": "ttc.distributed",
        "torch.utils.tensorboard": "ttc.run.log",
        "tensorboard": "ttc.run.log",
    }
    none(
        f"{where}: imports {name}, which is for {place}"
        for path in CODE
        for where, name in imports(path)
        for package, place in places.items()
        if belongs(name, package) and not belongs(module_of(path), place)
    )


def test_imports_are_absolute() -> None:
    """Except in ttc/losses, which has to work under any name, and there from its own folder only."""
    none(
        f"{name_of(path)}:{node.lineno}: relative import"
        for path in CODE + TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and node.level > (room_of(module_of(path)) == "ttc.losses" or name_of(path).startswith("tests/losses/added/"))
    )


def test_the_losses_import_each_other_under_any_name() -> None:
    none(
        f"{name_of(path)}:{node.lineno}: imports {node.module}"
        for path in PACKAGE
        if room_of(module_of(path)) == "ttc.losses"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and belongs(node.module or "", "ttc") and node.level == 0
    )


def test_files_are_loaded_safely_and_nothing_is_executed() -> None:
    """Said where a file is loaded, whatever the default is; programs are started with a list of words."""
    executes = {"eval", "exec", "compile", "os.system", "os.popen", "runpy.run_path", "subprocess.getoutput"}
    unpickles = {"pickle.load", "pickle.loads", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "torch.hub.load"}
    offenders = []
    for path in CODE:
        # Of settings that files hold beside tensors, empty shells are read: with weights_only, and only there.
        shells = {"torch.serialization.safe_globals"} if path.name == "weight_files.py" else set()
        for where, called, node in calls(path):
            keywords, loader = keywords_of(node), called.rpartition(".")[2]
            words = node.args[0] if node.args else None
            if (
                called in executes | unpickles
                or (called.startswith("torch.serialization") and called not in shells)
                or (called == "torch.load" and keywords.get("weights_only") != "True")
                or (loader == "load_state_dict_from_url" and keywords.get("weights_only") != "True")
                or (called in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False")
                or keywords.get("allow_pickle", "False") != "False"
                or keywords.get("shell", "False") != "False"
                or (re.fullmatch(r"subprocess\.\w+", called) and not isinstance(words, ast.List | ast.Name | ast.Tuple))
            ):
                offenders.append(f"{where}: {called}")
    none(offenders)


def test_the_package_does_not_print_and_keeps_no_global_random_state() -> None:
    offenders = []
    for path in PACKAGE:
        for where, called, _ in calls(path):
            seeds = called == "torch.manual_seed" and module_of(path) != "ttc.run.runtime"
            if called in ("print", "np.random.seed", "random.seed") or seeds:
                offenders.append(f"{where}: {called}")
    none(offenders)


def test_no_bare_except() -> None:
    none(
        f"{name_of(path)}:{node.lineno}"
        for path in CODE + TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    )


def test_files_and_functions_are_short() -> None:
    offenders = []
    for path in CODE + TESTS:
        if (lines := len(path.read_text().splitlines())) > 300:
            offenders.append(f"{name_of(path)} has {lines} lines, more than 300")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # What a function says about itself is no length that makes it hard to read.
                documentation = len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert node.end_lineno is not None
                body = node.end_lineno - node.lineno + 1 - documentation
                if body > (most := 100 if node.name == "main" else 60):
                    offenders.append(f"{name_of(path)}:{node.lineno}: {node.name} has {body} lines, more than {most}")
    none(offenders)


def test_rooms_hold_a_dozen_files_and_nothing_lies_flat() -> None:
    offenders = [f"{name_of(path)} lies in no room" for path in (ROOT / "ttc").glob("*.py") if path.stem != "__init__"]
    for folder in sorted({path.parent for path in PACKAGE} - {ROOT / "ttc"}):
        count, most = len([*folder.glob("*.py")]) - 1, MOST_FILES.get(name_of(folder), 12)
        offenders += [f"{name_of(folder)} holds {count} files, more than {most}"] * (count > most)
        offenders += [f"{name_of(folder)} has no __init__.py"] * (not (folder / "__init__.py").is_file())
    none(offenders)


def test_every_module_says_what_it_is_and_leaves_nothing_to_do() -> None:
    silent = [f"{name_of(path)}: no docstring" for path in CODE if not ast.get_docstring(tree_of(path))]
    marked = re.compile(r"\b(TODO|FIXME|XXX)\b")
    none(silent + [f"{name_of(path)}: {word[0]}" for path in CODE if (word := marked.search(path.read_text()))])


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and the texts of a module, and the lines of a page."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), token.start[0])


def test_no_text_cites_a_document_that_a_user_does_not_have() -> None:
    names = r"(METHODS|METRICS|DESIGN|STUDY|FORMATS|TRUST|ENCODERS|CLINIC|MOVES)"
    cited = re.compile(rf"\b{names}(\.md)?,? (section|chapter|part) \d|(Source: |\s\(|see ){names}\b|\b{names}\.md\b")
    none(
        f"{name_of(path)}:{line}: {text.strip()}"
        for path in [*CODE, *TESTS, *PAGES]
        if path != Path(__file__)
        for line, text in prose_of(path)
        if cited.search(text)
    )


@pytest.mark.parametrize("words", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join)
def test_tools_find_nothing(words: tuple[str, ...]) -> None:
    if importlib.util.find_spec(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
