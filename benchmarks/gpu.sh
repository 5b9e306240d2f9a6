#!/usr/bin/env bash
# What a step and a whole run take on one GPU, beside PyTorch; the best to know first.
#
#   benchmarks/gpu.sh FOLDER [MINUTES]      # CIFAR-10: train/<class>/*, test/<class>/*
#   benchmarks/gpu.sh --debug [MINUTES]     # rehearses all of it on a CPU, at toy size
#
# Works for at most MINUTES (9); the same command measures what is left, until it says
# that nothing is. Each measurement is a file in $RUNS, which a later call does not make
# again: remove it to do so. Ends with the table of all so far, $RUNS/table.md.
# PyTorch's side needs torch, torchvision and timm in $PYTHON's environment.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."

usage="usage: benchmarks/gpu.sh FOLDER|--debug [MINUTES]"
folder=${1:?"$usage"}
end=$((SECONDS + 60 * ${2:-9}))
python=${PYTHON:-.venv/bin/python}
variant="" small=256 large=512 vit=256 epochs=200
if [[ $folder == --debug ]]; then
  variant=:debug small=16 large=32 vit=8 epochs=1
fi
runs=${RUNS:-runs/benchmarks/gpu${variant/:/_}}
mkdir -p "$runs/autotune"
export JAX_COMPILATION_CACHE_DIR=$runs/cache
flags="${XLA_FLAGS:-} --xla_gpu_per_fusion_autotune_cache_dir=$(realpath "$runs")/autotune"
left=0 debug=()

# measure NAME LIMIT COMMAND...: at most LIMIT seconds, and until the call's end at most.
measure() {
  local name=$1 limit=$2 seconds status=0
  shift 2
  [[ ! -e $runs/$name.txt ]] || return 0
  seconds=$((end - SECONDS < limit ? end - SECONDS : limit))
  if ((seconds <= 0)); then
    left=1
    return 0
  fi
  echo "$name: $*" >&2
  timeout --kill-after=10 "$seconds" env XLA_FLAGS="$flags" "$@" \
    >"$runs/$name.part" 2>&1 || status=$?
  if ((status == 124 && seconds < limit)); then
    left=1 # the call ended, not the measurement
    return 0
  fi
  ((status == 0)) || echo "ended with status $status after $seconds s at most" \
    >>"$runs/$name.part"
  mv "$runs/$name.part" "$runs/$name.txt"
}

step=("$python" benchmarks/step.py)
torch=("$python" benchmarks/torch_step.py)
no_buffers=(env "XLA_FLAGS=$flags --xla_gpu_enable_command_buffer=")
buffers=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE
all_buffers=(env "XLA_FLAGS=$flags --xla_gpu_enable_command_buffer=$buffers")

measure vit 240 "${step[@]}" "imagenet_vit_s16$variant" $vit
measure cifar10 240 "${step[@]}" "cifar10$variant" $small $large
measure cifar10_steps_per_call 240 "${step[@]}" "cifar10$variant" $small $large \
  steps_per_call=10
measure torch_vit 300 "${torch[@]}" imagenet_vit_s16 $vit
measure torch_cifar10 300 "${torch[@]}" cifar10 $small
measure cifar10_no_command_buffers 200 "${no_buffers[@]}" \
  "${step[@]}" "cifar10$variant" $small
measure cifar10_all_command_buffers 240 "${all_buffers[@]}" \
  "${step[@]}" "cifar10$variant" $small steps_per_call=10
measure vit_plain_attention 240 "${step[@]}" "imagenet_vit_s16$variant" $vit \
  plain_attention
measure vit_no_command_buffers 240 "${no_buffers[@]}" \
  "${step[@]}" "imagenet_vit_s16$variant" $vit

# The whole recipe, evaluation included; cifar10_gpu.sh continues a run by itself.
whole() {
  local name=$1 minutes=$(((end - SECONDS) / 60))
  shift
  [[ ! -e $runs/$name.txt ]] || return 0
  if ((minutes < 1)); then
    left=1
    return 0
  fi
  echo "$name: benchmarks/cifar10_gpu.sh $*" >&2
  if RECIPE=cifar10$variant KS=5 RUNS=$runs/$name WHAT=knn \
    benchmarks/cifar10_gpu.sh "$folder" "$minutes" --config.epochs=$epochs "$@" \
    >"$runs/$name.part" 2>&1; then
    mv "$runs/$name.part" "$runs/$name.txt"
  else
    left=1
    tail -n 3 "$runs/$name.part" >&2
  fi
}

if [[ $variant ]]; then
  folder=$runs/pictures
  [[ -d $folder ]] || "$python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
for number in range(96):
    part = "test" if number % 3 == 0 else "train"
    path = Path(sys.argv[1], part, str(number % 2), f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
PYTHON
  debug=(--config.data.name=folder --config.steps_per_call=2)
fi
whole run_$small --config.batch_size=$small --config.steps_per_call=10 "${debug[@]}"
whole run_$large --config.batch_size=$large --config.steps_per_call=10 "${debug[@]}"

{
  echo "| measurement | what | batch | ms a step | images/s |"
  echo "|---|---|---|---|---|"
  for file in "$runs"/*.txt; do
    name=$(basename "$file" .txt)
    sed -nE "s/^(.*)batch ([0-9]+)(, ([a-z ]+))?: ([0-9.]+) ms a step, ([0-9]+) images.*/| $name | \1\4 | \2 | \5 | \6 |/p" "$file"
    grep -E "^ended with|GiB on the device" "$file" | sed "s/^/| $name | /; s/$/ | | | |/" || true
  done
  for file in "$runs"/run_*.txt; do
    printf '\n%s:\n\n' "$(basename "$file" .txt)"
    grep '^|' "$file" || true
  done
} | tee "$runs/table.md"
((left == 0)) || echo "not complete: the same command continues" >&2
exit $((left ? 124 : 0))
