#!/usr/bin/env bash
# All methods on Fashion-MNIST at 1 % minority: the table in README.md, from scripts/manifests/fashion-mix5-99.csv.
# Needs the images: Debian's package dataset-fashion-mnist, or DATA_ROOT=FOLDER with the four .gz files.
#
#   bash scripts/sweep_fashion.sh [RESULT FOLDER]     the default is runs/fashion-mix5-99; SEEDS="0 1 2" by default
#
# Run again, it leaves finished steps alone; after an interruption it goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
folder=${1:-runs/fashion-mix5-99}
manifest=scripts/manifests/fashion-mix5-99.csv
patterns=()
for seed in ${SEEDS:-0 1 2}; do patterns+=("*-seed$seed"); done

bash scripts/run_manifest.sh "$manifest" --output "$folder" --only "${patterns[@]}" ${DATA_ROOT:+--data-root "$DATA_ROOT"}
runs=()
while IFS=, read -r name run _; do
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053  # the right side is a pattern
        if [[ $name == $pattern ]]; then runs+=("$folder/$run"); fi
    done
done < "$manifest"
"$PYTHON" scripts/collect_results.py --output "$folder/table" "${runs[@]}"
