#!/usr/bin/env bash
# Run the tests: style, types, unit tests, several processes, the scripts as a user calls them.
#
#   bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt requirements-dev.txt

# One thread per process: the tests run side by side, and results must not depend on how many threads a machine has.
export OMP_NUM_THREADS=1
cores=$("$PYTHON" -c 'import os; print(os.cpu_count() or 1)')
exec "$PYTHON" -m pytest -n "$cores" --dist loadscope --cov --cov-report term "$@"
