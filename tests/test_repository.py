"""Rules of the repository, read from the syntax trees: layers, safe loading, sizes, tools."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "ttc").rglob("*.py"))
SCRIPTS = sorted(
    [*ROOT.glob("*.py"), *(path for room in ("scripts", "study", "benchmarks") for path in (ROOT / room).rglob("*.py"))]
)
CODE = PACKAGE + SCRIPTS
TESTS = sorted((ROOT / "tests").rglob("*.py"))

CLI_LAYER = ("ttc.flags.parser", "ttc.flags", "ttc.flags.settings")
LOWER = ("ttc.distributed",)
LIFTABLE = ("ttc/losses/", "ttc/metrics/representation.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports; `from a import b` counts as a.b where that is a module of ours."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            assert node.module is not None
            ours = {f"{node.module}.{alias.name}" for alias in node.names} & {module_of(each) for each in PACKAGE}
            found |= ours or {node.module}
    return found


def belongs(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_layers(path: Path) -> None:
    module, imported = module_of(path), imports(path)
    ours = {each for each in imported if belongs(each, "ttc")}
    script = path in SCRIPTS
    if not script and not belongs(module, *CLI_LAYER):
        assert not any(belongs(each, *CLI_LAYER) for each in ours), "only scripts use the command line"
        assert "argparse" not in imported
    if belongs(module, "ttc.flags") and module not in ("ttc.flags.parser", "ttc.flags.settings"):
        assert "argparse" not in imported, "groups of flags use ttc.flags.parser"
    if module != "ttc.run.log":
        assert not any("tensorboard" in each for each in imported)
    if not belongs(module, *LOWER):
        assert not any(belongs(each, "torch.distributed", "torch.nn.parallel") for each in imported)
    if belongs(module, *LOWER):
        assert all(belongs(each, *LOWER) for each in ours), "distributed is the lowest layer"
    siblings = {each.stem for each in SCRIPTS if each != path}
    assert not siblings & {each.split(".")[0] for each in imported}, "scripts never import each other"


@pytest.mark.parametrize("path", [each for each in PACKAGE if name_of(each).startswith(LIFTABLE)], ids=name_of)
def test_losses_and_representation_metrics_can_be_lifted_out(path: Path) -> None:
    own = module_of(path if path.name == "__init__.py" else path.parent)
    for each in imports(path):
        top = each.split(".")[0]
        if name_of(path) == "ttc/losses/subclass.py" and top == "sklearn":
            continue  # SBC's k-means, imported where it is used
        assert top == "torch" or top in sys.stdlib_module_names or belongs(each, own), each


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_nothing_below_the_command_line_takes_args(path: Path) -> None:
    if belongs(module_of(path), *CLI_LAYER):
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            assert "args" not in names, f"{node.name} in line {node.lineno}"


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_are_loaded_safely_and_nothing_is_executed(path: Path) -> None:
    for called, node in calls(tree_of(path)):
        where = f"{name_of(path)}:{node.lineno}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if called in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False", where
        assert called not in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads"), where
        assert keywords.get("shell", "False") == "False", where


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_the_package_does_not_print_and_keeps_no_global_random_state(path: Path) -> None:
    for called, node in calls(tree_of(path)):
        assert called not in ("print", "np.random.seed", "random.seed"), f"line {node.lineno}"
        if called == "torch.manual_seed":
            assert module_of(path) == "ttc.run.runtime", f"line {node.lineno}"


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_no_bare_except(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("path", CODE + TESTS, ids=name_of)
def test_sizes(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 300, f"{lines} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # What a function says about itself is no length that makes it hard to read.
            documentation = len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert node.end_lineno is not None
            body = node.end_lineno - node.lineno + 1 - documentation
            most = 100 if node.name == "main" else 60
            assert body <= most, f"{node.name} has {body} lines, more than {most}"


def test_every_module_of_the_package_says_what_it_is() -> None:
    for path in CODE:
        assert ast.get_docstring(tree_of(path)), name_of(path)
        assert "TODO" not in path.read_text(), name_of(path)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("ruff", ("check", ".")),
        ("ruff", ("format", "--check", ".")),
        ("mypy", ()),
    ],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tools_find_nothing(tool: str, words: tuple[str, ...]) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([sys.executable, "-m", tool, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
