from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from check_metrics import main

HERE = Path(__file__).parent
FILE = HERE / "metrics_small.npz"


def single_case():
    with np.load(FILE) as file:
        return {name.removeprefix("case0/"): file[name] for name in file.files if name.startswith("case0/")}


def test_golden_cases_and_a_single_case_pass(tmp_path):
    np.savez(tmp_path / "alone.npz", **single_case())
    command = [sys.executable, str(HERE / "check_metrics.py"), str(FILE), str(tmp_path / "alone.npz")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["case0"] * 5 + ["case1"] * 5 + ["alone"] * 5
    assert {line[1] for line in lines} == {"SAD", "SAA", "CAD", "CAC", "gaussian_potential"}
    assert max(float(line[2]) for line in lines) < 1e-9


@pytest.mark.parametrize(("wrong", "shown"), [(1e-6, "1.000e-06"), (None, "inf")])
def test_a_difference_fails(tmp_path, capsys, wrong, shown):
    arrays = single_case()
    expected = json.loads(str(arrays["expected"]))
    expected["SAA"][1] = None if wrong is None else expected["SAA"][1] + wrong
    np.savez(tmp_path / "off.npz", **{**arrays, "expected": np.array(json.dumps(expected))})
    assert main([str(FILE), str(tmp_path / "off.npz")]) == 1
    assert f"off SAA {shown}" in capsys.readouterr().out


def test_an_unreadable_file_is_one_line(tmp_path, capsys):
    arrays = single_case()
    del arrays["labels"]
    np.savez(tmp_path / "part.npz", **arrays)
    for path, message in ((tmp_path / "part.npz", "has no array labels"), (tmp_path / "none.npz", "No such file")):
        assert main([str(path)]) == 1
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert message in error
