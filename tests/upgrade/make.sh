#!/usr/bin/env bash
# Add the run folders of one commit: bash tests/upgrade/make.sh COMMIT
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python}
commit=$(git -C "$root" rev-parse --short=7 "$1")
then=$(mktemp -d)
git -C "$root" worktree add --detach "$then" "$commit"
trap 'git -C "$root" worktree remove --force "$then"' EXIT
mkdir "$root/tests/upgrade/$commit"
cd "$root/tests/upgrade/$commit"
words=(--dataset digits --encoder convnet-w8 --method supproto --batch-size 64 --epochs 6 --num-workers 0 --seed 3
  --save-every-epochs 6)
mkdir stopped
touch stopped/STOP
"$python" "$then/pretrain.py" "${words[@]}" --output stopped || test $? = 75
rm stopped/STOP
"$python" "$then/pretrain.py" "${words[@]}" --output finished
evaluate() {
  test ! -e "$then/$1" || "$python" "$then/$1" --checkpoint finished/checkpoints/last.pt "${@:2}" > /dev/null
}
evaluate linear_eval.py --bootstrap 50
evaluate finetune.py --epochs 2 --bootstrap 50
evaluate compute_metrics.py --peu-draws 0 --scatter none
# What no test reads.
find . -name tb -prune -exec rm -r {} +
find . -name .lock -delete
rm -f finished/metrics/embeddings.npz
