#!/usr/bin/env bash
# CIFAR-10 with ResNet-18 on one GPU: SNCLR, and K = 0 under the same recipe.
#
#   benchmarks/cifar10_gpu.sh FOLDER [MINUTES] [--config.FIELD=VALUE ...]
#
# FOLDER holds train/<class>/* and test/<class>/*. Works for at most MINUTES (9), saves,
# and continues where it stopped when called again with the same settings; a run that is
# complete is evaluated and not repeated. Ends with a table of what is complete: kNN,
# linear probe, training seconds (without compiling, evaluating and saving), images/s.
# Choose settings with --config.data.holdback=5000 first, in another RUNS folder.
#
# Rehearse on a CPU: benchmarks/cifar10_gpu.sh FOLDER 5 --config.epochs=1 and the small
# encoder of benchmarks/cifar10.py.
set -euo pipefail

folder=${1:?"usage: benchmarks/cifar10_gpu.sh FOLDER [MINUTES] [--config.FIELD=VALUE ...]"}
shift
minutes=9
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  minutes=$1
  shift
fi
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
  local name=$1
  shift
  [[ -e $runs/$name/summary.json ]] || until_end "$snclr" train \
    --config=configs/cifar10.py --workdir="$runs/$name" \
    --config.data.path="$folder" --config.data.resident=True \
    --config.model.dtype=bfloat16 --config.checkpoint.every_steps=5000 \
    --config.evaluate.every_epochs=50 "$@" || return
  [[ -e $runs/$name/evaluation.json ]] ||
    until_end "$snclr" evaluate --workdir="$runs/$name"
}

status=0
train snclr "$@" || status=$?
((status)) || train k0 "$@" --config.objective.queue.k=0 || status=$?

echo "| run | kNN | linear | training s | images/s |"
echo "|---|---|---|---|---|"
for name in snclr k0; do
  [[ -e $runs/$name/evaluation.json ]] || continue
  python3 - "$name" "$runs/$name" <<'PYTHON'
import json
import sys
from pathlib import Path

name, workdir = sys.argv[1], Path(sys.argv[2])
summary = json.loads((workdir / "summary.json").read_text())
records = json.loads((workdir / "evaluation.json").read_text())["records"]
found = {record["what"]: record["metrics"] for record in records}
print(
    f"| {name} | {found['knn']['k200_T0.07']:.2f} | {found['linear']['top1']:.2f} "
    f"| {summary['train_seconds']:.0f} | {summary['images_per_second']} |"
)
PYTHON
done
((status != 124)) || echo "not complete: the same command continues" >&2
exit "$status"
