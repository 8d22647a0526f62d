"""Compare representation_metrics with golden numbers: `python tests/golden/check_metrics.py FILE.npz ...`.

A file holds the arrays `embeddings` [V, N, D], `labels` [N] and `expected` (JSON: metric -> one value per class),
each with the prefix `<case>/`, or without one when the file is a single case. Prints
`case metric max_abs_difference`; exits with 1 when a difference exceeds the tolerance. The variants of CAC and CAD
that count a row as its own neighbour are not part of this project and are not compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ttc.metrics.representation import Summary, representation_metrics

TOLERANCE = 1e-9
METRICS = ("SAD", "SAA", "CAD", "CAC", "gaussian_potential")
ARRAYS = ("embeddings", "labels", "expected")

Values = list[float | None]


def read_cases(path: Path) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.int64], dict[str, Values]]]:
    """Yield name, embeddings, labels and expected values of each case in a file."""
    with np.load(path, allow_pickle=False) as file:
        prefixes = sorted({name.rpartition("/")[0] for name in file.files})
        for prefix in prefixes:
            missing = [name for name in ARRAYS if f"{prefix}/{name}".lstrip("/") not in file.files]
            if missing:
                raise ValueError(f"{path}: case '{prefix or path.stem}' has no array {missing[0]}")
            embeddings, labels, expected = (file[f"{prefix}/{name}".lstrip("/")] for name in ARRAYS)
            yield prefix or path.stem, embeddings, labels, json.loads(str(expected))


def difference(expected: Values, found: Values) -> float:
    """Return the largest absolute difference; infinite where only one of the two has a value."""
    if len(expected) != len(found):
        return math.inf
    worst = 0.0
    for wanted, value in zip(expected, found, strict=True):
        undefined = wanted is None or math.isnan(wanted)
        if undefined != (value is None):
            return math.inf
        if not undefined:
            worst = max(worst, abs(cast(float, wanted) - cast(float, value)))
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every file named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    failed = compared = 0
    for path in parser.parse_args(arguments).files:
        try:
            for case, embeddings, labels, expected in read_cases(path):
                names = [name for name in METRICS if name in expected]
                classes = len(expected[names[0]]) if names else None
                result = representation_metrics(embeddings, labels, num_classes=classes, peu_draws=0)
                found = cast(dict[str, Summary], result)
                for name in names:
                    worst = difference(expected[name], found[name]["per_class"])
                    print(case, name, f"{worst:.3e}")
                    compared += 1
                    failed += worst > TOLERANCE
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    if failed or not compared:
        print(f"{failed} of {compared} comparisons differ by more than {TOLERANCE:g}", file=sys.stderr)
    return 1 if failed or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
