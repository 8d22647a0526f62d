#!/usr/bin/env bash
# Run the fair study (study/protocol.md) on this machine: every task's rates, then lengths, then the rest.
#
#   bash scripts/run_study.sh [N] [TASK ...]
#   bash scripts/run_study.sh 2 breast pneumonia-99
#
# N runs at a time, by default as many as there are cores. What docs/results/fair.csv holds is not run again, and each
# stage is added to it when it has ended: the same command goes on where it was interrupted. At the end the pages are
# written again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
jobs=()
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    jobs=("$1")
    shift
fi
tasks=("$@")
if [ ${#tasks[@]} -eq 0 ]; then
    read -ra tasks < <("$PYTHON" -c 'from study.fair.grid import TASKS; print(*TASKS)')
fi
results=runs/fair
mkdir -p "$results"
# Encoders that others begin with; done once.
if [[ "${tasks[*]}" == *-from-* || "${tasks[*]}" == *-frozen-* ]]; then
    bash scripts/run_manifest.sh scripts/manifests/fair-start.csv "${jobs[@]+"${jobs[@]}"}"
fi
"$PYTHON" study/fair/plan.py collect --results "$results"
for task in "${tasks[@]}"; do
    for stage in rates lengths further reported; do
        rm -f "$results/left.csv"
        "$PYTHON" study/fair/plan.py lines --stage "$stage" --tasks "$task" --output "$results/left.csv"
        if [ -f "$results/left.csv" ]; then
            # 1: a run failed, which is listed and holds up no other one; anything else, such as a stop, ends this too.
            bash scripts/run_manifest.sh "$results/left.csv" "${jobs[@]+"${jobs[@]}"}" --output "$results" || [ $? -eq 1 ]
            "$PYTHON" study/fair/plan.py collect --results "$results"
        fi
    done
done
"$PYTHON" study/fair/write_page.py
