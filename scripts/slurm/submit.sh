#!/usr/bin/env bash
# Submit the lines of a manifest that are neither done nor running as SLURM job arrays, one element per line.
#
#   bash scripts/slurm/submit.sh MANIFEST FOLDER [FLAGS of sbatch]
#   bash scripts/slurm/submit.sh table1.csv /scratch/table1 --partition gpu --gpus-per-node 4 --nodes 2 --time 12:00:00
#
# FOLDER is the folder of all results and must be one that the nodes share, like this one. Environment:
#   DATA_ROOT   where the images lie, if not where the manifest says
#   AT_ONCE     most elements of an array that run at a time
# Submit again after a failure: only what is left is submitted. Wait until nothing is queued, or it is queued twice.
set -euo pipefail
manifest=$(realpath -- "${1:?name a manifest, such as scripts/manifests/fashion-mix5-99.csv}")
folder=$(realpath -m -- "${2:?name the folder of the results}")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/environment.sh requirements.txt

# An index must be below MaxArraySize, so that a long manifest becomes several arrays, each with an offset.
limit=$(scontrol show config | sed -n 's/^MaxArraySize *= *//p')
[[ $limit =~ ^[0-9]+$ ]] || { echo "error: scontrol show config names no MaxArraySize; is SLURM running?" >&2; exit 1; }
lines=$("$PYTHON" scripts/manifest_status.py "$manifest" --output "$folder" --open-lines)
[ -n "$lines" ] || { echo "nothing to submit: every line is done or running" >&2; exit 0; }
mkdir -p "$folder/slurm"

declare -A chunks=()
for line in $lines; do
    chunk=$((line / limit))
    chunks[$chunk]=${chunks[$chunk]:+${chunks[$chunk]},}$((line % limit))
done
for chunk in $(printf '%s\n' "${!chunks[@]}" | sort -n); do
    sbatch --array="${chunks[$chunk]}${AT_ONCE:+%$AT_ONCE}" --output="$folder/slurm/%A_%a.out" "$@" \
        scripts/slurm/array.sbatch "$PYTHON" "$manifest" "$folder" $((chunk * limit)) ${DATA_ROOT:+"$DATA_ROOT"}
done
