#!/usr/bin/env bash
# Run the tests: style, types, unit tests, several processes, the scripts as a user calls them.
#
#   bash scripts/test.sh [--all] [--cov] [PYTEST ARGUMENTS]
#
# --all adds the tests marked long or slow: every method killed and continued, fuzzing at length, chaos at every file operation.
# --cov measures which lines of ttc/ run, in the processes that the tests start as well; it takes twice as long.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt requirements-dev.txt

# One thread per process: the tests run side by side, and results must not depend on how many threads a machine has.
export OMP_NUM_THREADS=1
# One worker more than there are cores: each waits for the scripts that it starts.
workers=$("$PYTHON" -c 'import os; print((os.cpu_count() or 1) + 1)')
words=()
for word in "$@"; do
    case $word in
        # An empty expression takes the place of the one in pyproject.toml, which leaves the long and slow tests out.
        --all) words+=(-m "") ;;
        --cov) words+=(--cov --cov-report term) ;;
        *) words+=("$word") ;;
    esac
done
# A run waits for the disk with every file that it saves, nearly as long as a small one computes. So what the tests write
# lies in memory where that has room and lets programs run, and is gone at the end; a TMPDIR that is set is kept to.
free=$(df --output=avail -k /dev/shm 2> /dev/null | tail -n 1 || echo 0)
free_memory=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo 2> /dev/null || echo 0)
if [ -z "${TMPDIR:-}" ] && [ "${free:-0}" -gt 6000000 ] && [ "${free_memory:-0}" -gt 8000000 ]; then
    folder=$(mktemp -d /dev/shm/ttc-tests.XXXXXX)
    chmod 711 "$folder" # tests that act as another user have to reach what is theirs
    trap 'rm -rf "$folder"' EXIT
    printf '#!/bin/sh\n' > "$folder/program" && chmod +x "$folder/program"
    if "$folder/program" 2> /dev/null; then export TMPDIR=$folder; fi
fi

# A file's tests stay together, since they share runs; tests/conftest.py puts the long files first.
"$PYTHON" -m pytest -n "$workers" --dist loadscope --no-loadscope-reorder "${words[@]+"${words[@]}"}"
