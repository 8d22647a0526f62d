#!/usr/bin/env bash
# Run the tests: style, types, unit tests, several processes, the scripts as a user calls them.
#
#   bash scripts/test.sh [--all] [--cov] [PYTEST ARGUMENTS]
#
# --all adds the tests marked slow: every method killed and continued, fuzzing at length, chaos at every file operation.
# --cov measures which lines of ttc/ run, in the processes that the tests start as well; it takes twice as long.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt requirements-dev.txt

# One thread per process: the tests run side by side, and results must not depend on how many threads a machine has.
export OMP_NUM_THREADS=1
cores=$("$PYTHON" -c 'import os; print(os.cpu_count() or 1)')
words=()
for word in "$@"; do
    case $word in
        # An empty expression takes the place of the one in pyproject.toml, which leaves the slow tests out.
        --all) words+=(-m "") ;;
        --cov) words+=(--cov --cov-report term) ;;
        *) words+=("$word") ;;
    esac
done
# A file's tests stay together, since they share runs; tests/conftest.py puts the long files first.
exec "$PYTHON" -m pytest -n "$cores" --dist loadscope --no-loadscope-reorder "${words[@]+"${words[@]}"}"
