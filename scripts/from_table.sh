#!/usr/bin/env bash
# From one's own images to a table, a report and a model, in one command: checks the data, chooses methods, repetitions
# and budget by their size, trains, probes, fine-tunes, and copies the model that validation chose.
#
#   bash scripts/from_table.sh TABLE.csv|FOLDER|FILE.npz OUT [FLAGS of pretrain.py]
#   bash scripts/from_table.sh - OUT --dataset breastmnist --data-root MEDMNIST      a data set by its name
#
# Run again, it goes on where it was interrupted. OUT/choices.md tells what was chosen, why, and how to change it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
# One thread per run, as many runs at a time as there are cores: small networks gain little from threads.
export OMP_NUM_THREADS=1
exec "$PYTHON" "$ttc_root/scripts/from_table.py" "$@"
