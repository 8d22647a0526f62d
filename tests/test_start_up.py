"""What a start costs: the packages that a command imports, and the processor time up to the end of a short run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import HANGS, ROOT

HEAVY = ("sklearn", "scipy", "pandas", "matplotlib", "medmnist", "torchvision", "PIL", "tensorboard", "torch._dynamo")
REPORT = "import sys; sys.stdout.write(' '.join(name for name in sys.modules if '.' not in name or 'dynamo' in name))"


def imported(code: str, folder: Path) -> set[str]:
    """Return the modules that are loaded after `code` ran in an interpreter of its own."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\ntry:\n    {code}\nexcept SystemExit: pass\n{REPORT}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True, timeout=HANGS
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    loaded = imported("sys.argv = ['pretrain.py', '--help']; import pretrain; pretrain.main()", tmp_path)
    assert "torch" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.long
def test_a_run_on_digits_imports_only_what_writes_its_log(tmp_path: Path) -> None:
    words = ["pretrain.py", "--epochs", "1", "--metrics-every-epochs", "0", "--output", "run"]
    loaded = imported(f"sys.argv = {words}; import pretrain; pretrain.main()", tmp_path)
    assert (tmp_path / "run" / "result.json").is_file()
    # torch.optim itself imports torch._dynamo; the images of the TensorBoard log need PIL.
    assert not loaded & (set(HEAVY) - {"tensorboard", "PIL", "torch._dynamo"})


@pytest.mark.long
def test_evaluations_on_digits_import_only_what_they_use(tmp_path: Path) -> None:
    words = ["pretrain.py", "--epochs", "0", "--output", "run"]
    imported(f"sys.argv = {words}; import pretrain; pretrain.main()", tmp_path)
    given = ["--checkpoint", "run/checkpoints/last.pt"]
    probe = ["linear_eval.py", *given, "--figures", "none", "--floor", "none", "--bootstrap", "20", "--probes", "all"]
    loaded = imported(f"sys.argv = {probe}; import linear_eval; linear_eval.main()", tmp_path)
    assert (tmp_path / "run" / "linear_eval" / "result.json").is_file()
    assert not loaded & {"matplotlib", "torch._dynamo", "torchvision", "medmnist", "PIL"}
    measure = ["compute_metrics.py", *given, "--scatter", "none", "--peu-draws", "1"]
    loaded = imported(f"sys.argv = {measure}; import compute_metrics; compute_metrics.main()", tmp_path)
    assert (tmp_path / "run" / "metrics" / "metrics.json").is_file()
    assert not loaded & {*HEAVY}


@pytest.mark.slow
def test_a_run_on_digits_trains_within_ten_seconds(tmp_path: Path) -> None:
    """Processor time of a new interpreter, past the first step: other work on the machine prolongs it far less."""
    words = ["--epochs", "1", "--log-every-steps", "1", "--metrics-every-epochs", "0", "--output", "run"]
    process = subprocess.Popen([sys.executable, ROOT / "pretrain.py", *words], cwd=tmp_path)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert '"step": 1,' in (tmp_path / "run" / "metrics.jsonl").read_text()
    seconds = usage.ru_utime + usage.ru_stime
    assert seconds < 10, f"{seconds:.1f} s"


def test_the_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    from ttc.datasets import DatasetSettings
    from ttc.datasets.readers.digits import read

    source, bunch = read(DatasetSettings("digits")), datasets.load_digits()
    assert source.labels == [str(digit) for digit in bunch.target]
    assert source.pixels is not None
    assert np.array_equal(source.pixels, np.round(bunch.images * (255 / 16)).astype(np.uint8))


@pytest.mark.parametrize("script", ["report", pytest.param("plot_results", marks=pytest.mark.long)])
def test_figures_of_a_sweep_take_one_core_unless_told_otherwise(script: str, tmp_path: Path) -> None:
    program = (
        f"import runpy, sys; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / script)!r} + '.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import torch; sys.stdout.write(f'{torch.get_num_threads()}')"
    )
    given = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for chosen, threads in (({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=given | chosen,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == threads
