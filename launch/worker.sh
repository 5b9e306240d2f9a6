#!/usr/bin/env bash
# What launch/tpu.sh has done on every worker, in the checkout that it copied there.
#
#   worker.sh setup [BUCKET]     installs the checkout, whatever happens to the caller,
#                                and shows the bucket, read only, as the folder /mnt/BUCKET
#   worker.sh start ARGUMENTS    snclr train ARGUMENTS, detached, unless it runs already
#   worker.sh status             one line: running, ended STATUS or not started
#   worker.sh log LINES          the end of the log
#   worker.sh stop               SIGTERM, which saves; SIGKILL after a minute
#
# STATUS is the exit status of snclr train: 0 when the run is complete.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE=${SNCLR_STATE:-$HOME/snclr-state}
LOG=$STATE/train.log

setup() {
  # A lost connection ends this shell, not the installation, and the next call waits.
  nohup flock "$STATE/setup.lock" bash -c "$(declare -f install mount_bucket)
    install \"\$@\"" - "$HERE" "${1-}" >"$STATE/setup.log" 2>&1 </dev/null &
  if wait $!; then
    echo "installed"
  else
    tail -n 20 "$STATE/setup.log"
    return 1
  fi
}

install() {
  set -euo pipefail
  cd "$1"
  # The images of TPU VMs bring Python 3.10; uv fetches a newer one without root.
  python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || python3 -m uv venv --quiet --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    --constraint launch/constraints.txt ".[tpu]"
  [[ -z $2 ]] || mount_bucket "$2"
}

# cloud.google.com/storage/docs/cloud-storage-fuse/install
mount_bucket() {
  local key=/usr/share/keyrings/cloud.google.asc source=https://packages.cloud.google.com/apt
  if ! type gcsfuse >/dev/null 2>&1; then
    curl -fsS "$source/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $source gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list
    # A machine that is new brings itself up to date, and others wait for that.
    for _ in {1..60}; do
      sudo apt-get update -q && break
      sleep 10
    done
    sudo apt-get -o DPkg::Lock::Timeout=600 install -qy gcsfuse
  fi
  mountpoint -q "/mnt/$1" && return
  sudo mkdir -p "/mnt/$1" && sudo chown "$(id -u)" "/mnt/$1"
  # Files that are read from their start, such as images, stay on half of the free disk.
  # Of shards some blocks are read at a time: to fetch each whole would be ten times that.
  local cache=/var/tmp/gcsfuse
  mkdir -p "$cache"
  gcsfuse -o ro --implicit-dirs --cache-dir="$cache" \
    --file-cache-max-size-mb=$(($(df -m --output=avail "$cache" | tail -1) / 2)) \
    "$1" "/mnt/$1"
}

start() {
  if running; then
    echo "runs already"
    return
  fi
  rm -f "$STATE/status"
  # Its own session: neither the caller's end nor its signals reach it.
  setsid nohup bash -c "$(declare -f train); train \"\$@\"" - "$HERE" "$STATE" "$@" \
    >>"$LOG" 2>&1 </dev/null &
  echo $! >"$STATE/pid"
  # Until it is what `running` knows it by, or has ended.
  until running || [[ -f $STATE/status ]] || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
  echo "started"
}

train() {
  local here=$1 state=$2 ended=0
  shift 2
  cd "$here" # where --config=configs/... is found
  trap : TERM # so that this shell outlives the signal and writes what became of it
  "$here/.venv/bin/snclr" train "$@" || ended=$?
  echo "$ended" >"$state/status.new" && mv "$state/status.new" "$state/status"
}

running() {
  [[ -f $STATE/pid && ! -f $STATE/status ]] || return 1
  # After a restart of the machine the number may be another program's.
  grep -qsF "$STATE" "/proc/$(cat "$STATE/pid")/cmdline"
}


status() {
  local what="not started"
  if [[ -f $STATE/status ]]; then
    what="ended $(cat "$STATE/status")"
  elif running; then
    what="running"
  elif [[ -f $STATE/pid ]]; then
    what="ended 137" # nobody lived to write its status: killed, or the machine restarted
  fi
  echo "$(hostname): $what: $(tail -n 1 "$LOG" 2>/dev/null | tr '\r' '\n' | tail -n 1)"
}

log() {
  tail -n "$1" "$LOG"
}

stop() {
  running || return 0
  local group
  group=$(cat "$STATE/pid")
  kill -TERM -- "-$group"
  for _ in $(seq 60); do
    running || return 0
    sleep 1
  done
  kill -KILL -- "-$group"
}

mkdir -p "$STATE"
"$@"
