#!/usr/bin/env bash
# Add the finished runs of the study's manifests to the ledgers in docs/results and write docs/study-first.md again.
#
#   bash scripts/collect_study.sh [FOLDER]     the folder that holds the results of each manifest; the default is runs
#
# Runs that a ledger has stay in it when their folders have gone; newer runs of the same line take their place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh requirements.txt
runs=${1:-runs}
for name in study study-ablations study-factorial study-final; do
    finished=()
    for result in "$runs/$name"/*/metrics/metrics.json "$runs/$name"/*/*/metrics/metrics.json; do
        if [ -f "$result" ]; then finished+=("${result%/metrics/metrics.json}"); fi
    done
    if [ ${#finished[@]} -eq 0 ]; then continue; fi
    ledger=docs/results/$name-ledger.csv
    known=()
    if [ -f "$ledger" ]; then known=(--from-csv "$ledger"); fi
    # The ablations vary one flag each that the tables of methods hold fixed.
    "$PYTHON" scripts/collect_results.py --results "$runs/$name" "${known[@]+"${known[@]}"}" --output "docs/results/$name" \
        --compare batch-size micro-batch-size jitter-strength crop-scale encoder projection-batchnorm \
        --also 'encoder/*/validation/*' 'projection/*/macro' projection/CAC_over_cap/minority projection/effective_rank/all \
        -- "${finished[@]}" > /dev/null
done
"$PYTHON" study/write_page.py
