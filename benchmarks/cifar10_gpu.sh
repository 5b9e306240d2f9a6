#!/usr/bin/env bash
# A CIFAR-10 recipe on one GPU: SNCLR, and K = 0 under the same recipe.
#
#   benchmarks/cifar10_gpu.sh FOLDER [MINUTES] [--config.FIELD=VALUE ...]
#
# FOLDER holds train/<class>/* and test/<class>/*. In the environment, RECIPE names the
# recipe (cifar10), KS the values of K in the order of their runs ("5 0"), and WHAT the
# evaluations at the end (knn,linear). Works for at most MINUTES (9), saves, and continues
# where it stopped when called again with the same settings; a run that is complete is
# evaluated and not repeated. Ends with a table: kNN at the end of the run, by the
# recipe's k and temperature, the linear probe, training seconds (without compiling,
# evaluating and saving), images/s. The first 20 epochs of both, in another folder:
#
#   RECIPE=cifar10:mini_ssl RUNS=runs/short WHAT=knn \
#     benchmarks/cifar10_gpu.sh FOLDER 4 --config.epochs=20
#
# Choose settings with --config.data.holdback=5000 first, in another RUNS folder.
# Rehearse on a CPU: RECIPE=cifar10:debug with --config.data.name=folder.
set -euo pipefail

folder=${1:?"usage: benchmarks/cifar10_gpu.sh FOLDER [MINUTES] [--config.FIELD=VALUE ...]"}
shift
minutes=9
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  minutes=$1
  shift
fi
recipe=${RECIPE:-cifar10}
read -ra ks <<<"${KS:-5 0}"
runs=${RUNS:-runs/benchmarks/cifar10_gpu}
snclr=${SNCLR:-.venv/bin/snclr}
end=$((SECONDS + 60 * minutes))
mkdir -p "$runs"

# A continued run finds its compiled step and the compiler's choice of kernels on disk.
autotune=$(realpath "$runs")/autotune
mkdir -p "$autotune"
export JAX_COMPILATION_CACHE_DIR=$runs/cache
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_per_fusion_autotune_cache_dir=$autotune"

# Runs a command until `end`; it saves on SIGTERM. Status 124 where it was not done.
until_end() {
  local left=$((end - SECONDS))
  ((left > 0)) || return 124
  timeout --foreground --signal=TERM --kill-after=60 "$left" "$@"
}

train() {
  local k=$1
  shift
  [[ -e $runs/k$k/summary.json ]] || until_end "$snclr" train \
    --config="$recipe" --workdir="$runs/k$k" \
    --config.data.path="$folder" --config.data.resident=True \
    --config.model.dtype=bfloat16 --config.checkpoint.every_steps=5000 \
    --config.evaluate.every_epochs=50 "$@" --config.objective.queue.k="$k"
}

evaluate() {
  # Its file alone does not say so: each evaluation is added as it ends.
  [[ -e $runs/k$1/evaluated ]] || {
    until_end "$snclr" evaluate --workdir="$runs/k$1" --what="${WHAT:-knn,linear}" &&
      touch "$runs/k$1/evaluated"
  }
}

status=0
for k in "${ks[@]}"; do
  ((status)) || train "$k" "$@" || status=$?
done
for k in "${ks[@]}"; do
  ((status)) || evaluate "$k" || status=$?
done

echo "| run | kNN | linear | training s | images/s |"
echo "|---|---|---|---|---|"
for k in "${ks[@]}"; do
  [[ -e $runs/k$k/summary.json ]] || continue
  python3 - "K = $k" "$runs/k$k" <<'PYTHON'
import json
import sys
from pathlib import Path

name, workdir = sys.argv[1], Path(sys.argv[2])
summary = json.loads((workdir / "summary.json").read_text())
evaluation = workdir / "evaluation.json"
records = json.loads(evaluation.read_text())["records"] if evaluation.exists() else []
linear = [record["metrics"]["top1"] for record in records if record["what"] == "linear"]
print(
    f"| {name} | {summary['knn_trained']:.2f} "
    f"| {', '.join(f'{accuracy:.2f}' for accuracy in linear) or 'not yet'} "
    f"| {summary['train_seconds']:.0f} | {summary['images_per_second']} |"
)
PYTHON
done
((status != 124)) || echo "not complete: the same command continues" >&2
exit "$status"
