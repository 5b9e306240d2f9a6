#!/usr/bin/env bash
# Rehearses a run of many machines on this one: N processes, a CPU device each.
#
#   launch/rehearse.sh -n 4 --config=digits --workdir=runs/rehearsal
#
# The arguments after -n N are those of snclr train. Ctrl-C is passed on, which saves.
# Needs bash 5.1.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SAVE_SECONDS=60
CHILDREN=()

main() {
  [[ ${1-} == -n && ${2-} =~ ^[1-9][0-9]*$ ]] || {
    echo "usage: launch/rehearse.sh -n PROCESSES ARGUMENTS OF snclr train" >&2
    exit 2
  }
  local processes=$2 coordinator
  shift 2
  coordinator=127.0.0.1:$(free_port)
  trap 'interrupted INT' INT
  trap 'interrupted TERM' TERM
  trap 'interrupted HUP' HUP # a terminal that was closed
  # A process group each: Ctrl-C comes to this script alone, once, to be passed on.
  set -m
  for ((process = 0; process < processes; process++)); do
    start "$process" "$@" --coordinator="$coordinator" --processes="$processes" \
      --process="$process"
  done
  set +m # one that is stopped (SIGSTOP) still runs
  wait_for_all
}

start() {
  local process=$1 snclr
  shift
  snclr=$(type -P snclr || echo "$ROOT/.venv/bin/snclr")
  JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS-} --xla_force_host_platform_device_count=1" \
    "$snclr" train "$@" </dev/null > >(prefix "$process") 2>&1 &
  CHILDREN+=($!)
}

prefix() {
  trap '' INT TERM HUP # it ends when what it reads from has
  sed -u "s/^/[$1] /"
}

wait_for_all() {
  local waiting=("${CHILDREN[@]}") child ended code left
  while ((${#waiting[@]} > 0)); do
    code=0
    wait -n -p ended "${waiting[@]}" || code=$?
    if ((code != 0)); then
      echo "rehearse.sh: a process ended with $code; stopping the others" >&2
      # They wait for the lost one and cannot save.
      stop KILL
      wait "${CHILDREN[@]}" 2>/dev/null || true
      exit "$code"
    fi
    left=()
    for child in "${waiting[@]}"; do [[ $child == "$ended" ]] || left+=("$child"); done
    waiting=(${left[@]+"${left[@]}"})
  done
}

interrupted() {
  trap '' INT TERM HUP
  stop "$1"
  for ((second = 0; second < SAVE_SECONDS; second++)); do
    [[ -n $(jobs -rp) ]] || exit 130
    sleep 1
  done
  stop KILL
  exit 130
}

stop() {
  local child
  for child in "${CHILDREN[@]}"; do kill "-$1" -- "-$child" 2>/dev/null || true; done
}

free_port() {
  python3 -c 'import socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    print(free.getsockname()[1])'
}

main "$@"
