#!/usr/bin/env bash
# The main job in minutes, on real images that need no download: scikit-learn's digits, 0-4 against 5-9, 3 % minority.
# Pretrains six ways and leaves one encoder untrained, probes each, measures each, prints one table, draws one figure.
#
#   bash scripts/quickstart.sh [RESULT FOLDER [ROW ...]]        the defaults are runs/quickstart and all seven rows
#   TTC_QUICKSTART_FLAGS="--epochs 5" bash scripts/quickstart.sh runs/quick supcon supmin        a trial of two rows
#
# Run again, it leaves finished steps alone; after an interruption it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
folder=${1:-runs/quickstart}
mkdir -p "$folder"

# One thread each, as many runs at a time as there are cores (at most four): small networks gain little from threads.
export OMP_NUM_THREADS=1
cores=$("$PYTHON" -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')

shift || true
cells=("$@")
[ $# -gt 0 ] || cells=(supcon supmin supproto simclr weighted-ce supproto-balanced untrained)

cell() { # name: one row of the table
    local name=$1 flags
    case $name in
        untrained) flags="--method simclr --epochs 0" ;;
        *-balanced) flags="--method ${name%-balanced} --batch-sampler balanced" ;;
        *) flags="--method $name" ;;
    esac
    # shellcheck disable=SC2086  # the flags are words
    "$PYTHON" pretrain.py @scripts/recipes/digits-lowhigh.args ${TTC_QUICKSTART_FLAGS:-} $flags --output "$folder/$name"
    "$PYTHON" linear_eval.py --checkpoint "$folder/$name/checkpoints/last.pt" --probe-fraction 0.1 --bootstrap 200
    "$PYTHON" compute_metrics.py --checkpoint "$folder/$name/checkpoints/last.pt"
}

number=0
for name in "${cells[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do sleep 0.2; done
    number=$((number + 1))
    echo "[$number/${#cells[@]}] $name: pretrain, probe, measure" >&2
    (cell "$name" > "$folder/$name.out" 2> "$folder/$name.log" || { echo "failed: $name" >&2; tail -n 3 "$folder/$name.log" >&2; exit 1; }) &
done
failed=0
for job in $(jobs -p); do wait "$job" || failed=1; done
[ "$failed" -eq 0 ] || exit 1

runs=()
for name in "${cells[@]}"; do runs+=("$folder/$name"); done
"$PYTHON" scripts/plot_embeddings.py --output "$folder/embeddings.png" "${runs[@]}"
"$PYTHON" scripts/collect_results.py --brief --output "$folder/table" "${runs[@]}"
echo "figure: $folder/embeddings.png   TensorBoard: $PYTHON -m tensorboard.main --logdir $folder" >&2
