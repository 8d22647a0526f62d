#!/usr/bin/env bash
# Run a manifest on this machine: every line is pretrained, probed and measured, one thread each, N lines at a time.
#
#   bash scripts/run_manifest.sh MANIFEST [N] [FLAGS of scripts/run_cells.py]
#   bash scripts/run_manifest.sh scripts/manifests/fashion-mix5-99.csv 2 --only 'supmin-*' --output runs/again
#
# N is the number of cores by default. Run again, it leaves finished steps alone and goes on where it was interrupted.
# A line that fails does not hold up the others; at the end they are listed, and the exit code is not 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
manifest=${1:?name a manifest, such as scripts/manifests/fashion-mix5-99.csv}
shift
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    jobs=$1
    shift
else
    jobs=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
fi
# One thread per run: small networks gain little from threads, and results must not depend on how many there are.
export OMP_NUM_THREADS=1
exec "$PYTHON" scripts/run_cells.py "$manifest" --jobs "$jobs" "$@"
