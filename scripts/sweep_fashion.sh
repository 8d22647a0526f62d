#!/usr/bin/env bash
# All methods on Fashion-MNIST at 1 % minority: the table in README.md.
# Needs the images: Debian's package dataset-fashion-mnist, or DATA_ROOT=FOLDER with the four .gz files.
#
#   bash scripts/sweep_fashion.sh [RESULT FOLDER]     the default is runs/fashion-mix5-99; SEEDS="0 1 2" by default
#
# Run again, it leaves finished steps alone; after an interruption it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
folder=${1:-runs/fashion-mix5-99}
seeds=${SEEDS:-0 1 2}
root=${DATA_ROOT:-/usr/share/datasets/fashion-mnist}
mkdir -p "$folder"
export OMP_NUM_THREADS=1
cores=$("$PYTHON" -c 'import os; print(min(4, os.cpu_count() or 1))')

cells="untrained supcon supmin supproto simclr weighted-ce
    supcon-balanced supmin-balanced supproto-balanced simclr-balanced weighted-ce-balanced
    kcl tsc bcl paco sbc ce focal logit-adjusted-ce"

cell() { # name, seed: one run of the table
    local name=$1 seed=$2 run=$folder/$1-seed$2 flags
    case $name in
        untrained) flags="--method simclr --epochs 0" ;;
        *-balanced) flags="--method ${name%-balanced} --batch-sampler balanced" ;;
        # The published warm-up is as long as this whole run of ten epochs.
        sbc) flags="--method sbc --method-settings warmup_epochs=3 every=3" ;;
        *) flags="--method $name" ;;
    esac
    # shellcheck disable=SC2086  # the flags are words
    "$PYTHON" pretrain.py @scripts/recipes/fashion-mix5-99.args --data-root "$root" --seed "$seed" $flags --output "$run"
    "$PYTHON" linear_eval.py --checkpoint "$run/checkpoints/last.pt" --layers encoder --data-root "$root"
    "$PYTHON" compute_metrics.py --checkpoint "$run/checkpoints/last.pt" --peu-draws 0 --data-root "$root"
}

runs=()
for name in $cells; do
    for seed in $seeds; do runs+=("$folder/$name-seed$seed"); done
done
for name in $cells; do
    for seed in $seeds; do
        while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do sleep 0.2; done
        echo "$name, seed $seed" >&2
        log=$folder/$name-seed$seed.log
        (cell "$name" "$seed" > /dev/null 2> "$log" || { echo "failed: $name, seed $seed" >&2; tail -n 2 "$log" >&2; exit 1; }) &
    done
done
failed=0
for job in $(jobs -p); do wait "$job" || failed=1; done
[ "$failed" -eq 0 ] || exit 1
"$PYTHON" scripts/collect_results.py --output "$folder/table" "${runs[@]}"
