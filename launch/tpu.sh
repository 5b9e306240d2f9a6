#!/usr/bin/env bash
# Trains on Cloud TPU by queued resources: one or several slices, spot or on demand.
set -euo pipefail
shopt -s inherit_errexit # of bash 4.4: an error inside $(...) counts too

HELP='launch/tpu.sh COMMAND FLAGS          the same flags for every command

  create   preflight, then asks for the slices     needs --yes
  setup    waits for them, copies the checkout (HEAD), installs it on every worker
  run      starts snclr train on every worker, detached
  status   state of the request; of every worker its process and its last line
  logs     the end of the log of the first worker
  resume   whatever is missing: create again what was preempted, setup, run
  delete   stops and deletes everything but the workdir    needs --yes

  --name=NAME --zone=ZONE      of the queued resource
  --project=PROJECT            default: that of gcloud
  --type=v5litepod-64          accelerator type: v4-N, v5litepod-N, v5p-N or v6e-N
  --slices=1                   number of such slices
  --spot                       cheaper, and taken away at any time: see resume
  --reserved --valid-until-duration=6h --network=NETWORK --internal-ips
  --service-account=ACCOUNT    for create, as gcloud compute tpus queued-resources has them
  --workdir=gs://BUCKET/RUN    of the run; a run there is continued
  --mount=BUCKET               shown on the workers as the folder /mnt/BUCKET, for data:
                               array_record reads folders, and not gs://
  --config=RECIPE[:VARIANT] --config.FIELD=VALUE ...       as for snclr train; a recipe
                               of your own is committed, and named by its path from the
                               top of the checkout
  --images=N                   for preflight, where it cannot see the data
  --watch                      with resume: again and again until the run is complete
  --delete-after               with --watch: deletes the slices then, and where the
                               watch gives up (needs --yes)
  --yes                        spend money, or delete
  --dry-run                    print the commands and call nothing
'

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
POLL_SECONDS=${POLL_SECONDS:-60}
MAX_FAILURES=5 # in a row; the waits between them double
SILENT_POLLS=${SILENT_POLLS:-1440} # that a watch waits for an answer: a day
LONGEST_WAIT=32                    # of a watch that gets no answer, in polls
NAME="" ZONE="" PROJECT="" TYPE="" SLICES=1 SPOT="" WORKDIR="" MOUNT="" CONFIG=() IMAGES=()
CREATE=() WATCH="" DELETE_AFTER="" YES="" DRY_RUN="" PLACE=() AGAIN=()
# No checkout: not started. One that does not answer is in no known state.
STATUS="if [ ! -e snclr/launch/worker.sh ]; then echo '?: not started:'; \
else bash snclr/launch/worker.sh status; fi 2>/dev/null"
ANSWER='^[^:]*: (running|ended [0-9]+|not started):' # a line of it

main() {
  local command=${1:-help}
  shift || true
  case $command in
    create | setup | run | status | logs | resume | delete) ;;
    help | --help | -h) printf '%s' "$HELP" && return ;;
    *) fail "'$command' is not a command; see launch/tpu.sh --help" ;;
  esac
  parse "$@"
  check "$command"
  TEMPORARY=$(mktemp -d)
  trap 'rm -rf "$TEMPORARY"' EXIT
  "$command"
}

parse() {
  local flag
  for flag in "$@"; do
    [[ $flag == --watch || $flag == --delete-after ]] || AGAIN+=("$flag")
    case $flag in
      --name=*) NAME=${flag#*=} ;;
      --zone=*) ZONE=${flag#*=} ;;
      --project=*) PROJECT=${flag#*=} ;;
      --type=*) TYPE=${flag#*=} ;;
      --slices=*) SLICES=${flag#*=} ;;
      --spot) SPOT=yes ;;
      --reserved | --internal-ips | --valid-until-duration=?* | --network=?* | \
        --service-account=?*) CREATE+=("$flag") ;;
      --workdir=*) WORKDIR=${flag#*=} ;;
      --mount=*) MOUNT=${flag#*=} ;;
      --config=* | --config.*=*) CONFIG+=("$flag") ;;
      --images=*) IMAGES=("$flag") ;;
      --watch) WATCH=yes ;;
      --delete-after) DELETE_AFTER=yes ;;
      --yes) YES=yes ;;
      --dry-run) DRY_RUN=yes ;;
      *) fail "$flag is not a flag; see launch/tpu.sh --help" ;;
    esac
  done
  PLACE=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})
}

check() {
  [[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    fail "--name=$NAME must be lower case letters, digits and dashes, such as snclr-1"
  [[ $ZONE =~ ^[-a-z0-9]+$ ]] ||
    fail "--zone=$ZONE is not a zone; give one, such as --zone=us-west4-a"
  [[ -n $DRY_RUN ]] || type gcloud >/dev/null 2>&1 ||
    fail "gcloud is not on the PATH: https://cloud.google.com/sdk/docs/install"
  [[ $SLICES =~ ^[1-9][0-9]*$ ]] || fail "--slices=$SLICES is not a number from 1"
  [[ $1 == logs || $1 == delete ]] && return
  look_up_type
  [[ $MOUNT =~ ^[-_.a-z0-9]*$ ]] || fail "--mount=$MOUNT is not a bucket: give its name"
  [[ $1 == setup || $1 == status ]] && return
  [[ $WORKDIR == gs://?*/?* ]] ||
    fail "--workdir=$WORKDIR must be gs://BUCKET/RUN: the disks of a slice go with it"
  check_config
  [[ -z $DELETE_AFTER || -n $WATCH && -n $YES ]] ||
    fail "--delete-after needs --watch, and --yes to delete"
}

check_config() {
  local flag file=""
  for flag in ${CONFIG[@]+"${CONFIG[@]}"}; do
    [[ $flag != --config=* ]] || file=${flag#--config=}
  done
  [[ -n $file ]] ||
    fail "--config=RECIPE is missing, such as --config=imagenet_vit_s16"
  file=${file%%:*}
  [[ $file == */* || $file == *.py ]] || file=configs/$file.py
  git -C "$ROOT" cat-file -e "HEAD:$file" 2>/dev/null ||
    fail "--config: $file is not in the last commit, which is what is copied"
}

# Chips and hosts of a slice, its shape for preflight and its system image:
# cloud.google.com/tpu/docs/v5e (v6e, v5p, v4) and cloud.google.com/tpu/docs/runtimes.
look_up_type() {
  local kind=${TYPE%-*} size=${TYPE##*-}
  [[ $size =~ ^[1-9][0-9]*$ ]] || size=0
  case $kind in
    v5litepod) RUNTIME=v2-alpha-tpuv5-lite KIND=v5e CHIPS=$size ;;
    v6e) RUNTIME=v2-alpha-tpuv6e KIND=v6e CHIPS=$size ;;
    v5p) RUNTIME=v2-alpha-tpuv5 KIND=v5p CHIPS=$((size % 2 ? 0 : size / 2)) ;; # counts cores
    v4) RUNTIME=tpu-ubuntu2204-base KIND=v4 CHIPS=$((size % 2 ? 0 : size / 2)) ;;
    *) fail "--type=$TYPE is not known; use v4-N, v5litepod-N, v5p-N or v6e-N" ;;
  esac
  case $KIND:$CHIPS in
    v5e:1 | v6e:1) SHAPE=1x1 ;;
    v5e:4 | v6e:4) SHAPE=2x2 ;;
    v5e:8 | v6e:8) SHAPE=2x4 ;;
    v5e:16 | v6e:16) SHAPE=4x4 ;;
    v5e:32 | v6e:32) SHAPE=4x8 ;;
    v5e:64 | v6e:64) SHAPE=8x8 ;;
    v5e:128 | v6e:128) SHAPE=8x16 ;;
    v5e:256 | v6e:256) SHAPE=16x16 ;;
    v5p:4 | v4:4) SHAPE=2x2x1 ;;
    v5p:8 | v4:8) SHAPE=2x2x2 ;;
    v5p:16 | v4:16) SHAPE=2x2x4 ;;
    v5p:32 | v4:32) SHAPE=2x4x4 ;;
    v5p:64 | v4:64) SHAPE=4x4x4 ;;
    v5p:128 | v4:128) SHAPE=4x4x8 ;;
    v5p:256 | v4:256) SHAPE=4x8x8 ;;
    v5p:512 | v4:512) SHAPE=8x8x8 ;;
    *) fail "--type=$TYPE is not a slice; v5litepod-N and v6e-N: N chips, 1, 4, 8, 16 \
to 256; v5p-N and v4-N: N cores, two a chip, 8, 16 to 1024" ;;
  esac
  HOSTS=$((CHIPS / 4))
  [[ $SHAPE == *x*x* || $CHIPS -gt 8 ]] || HOSTS=1
}

# ---- commands ----

create() {
  local state
  state=$(queue_state ABSENT)
  case $state in
    ABSENT) preflight && request ;;
    SUSPENDED | FAILED | PREEMPTED) fail "$NAME is $state: use resume, or delete" ;;
    *) say "$NAME exists already: $state" ;;
  esac
}

setup() {
  wait_until_active
  say_uncommitted
  call git -C "$ROOT" archive --format=tar.gz --output="$TEMPORARY/snclr.tgz" HEAD
  tpus scp "$TEMPORARY/snclr.tgz" "$NAME:snclr.tgz" --worker=all --node=all
  on_every '^installed$' "if $STATUS | grep -qE '^[^:]*: running:'; then" \
    "echo 'a run is under way: nothing is installed' >&2; exit 1; fi;" \
    "mkdir -p snclr &&" \
    "find snclr -mindepth 1 -maxdepth 1 -not -name .venv -exec rm -rf {} + &&" \
    "tar -xzf snclr.tgz -C snclr && $(worker setup ${MOUNT:+"$MOUNT"})"
}

run() {
  on_every '^(started|runs already)$' \
    "$(worker start "--workdir=$WORKDIR" "${CONFIG[@]}")"
}

status() {
  local state
  state=$(queue_state ACTIVE)
  say "$NAME: $state"
  [[ $state != ACTIVE ]] || on_every "$ANSWER" "$STATUS"
}

logs() {
  tpus ssh "$NAME" --worker=0 --node=0 --command="$(worker log 200)"
}

resume() {
  if [[ -n $WATCH ]]; then
    watch
  else
    bring_up
  fi
}

delete() {
  local state
  state=$(settled_state ACTIVE ABSENT)
  [[ $state != ABSENT ]] || { say "$NAME does not exist in $ZONE" && return; }
  need_yes "delete $NAME in $ZONE with all its slices"
  tpus delete "$NAME" --force --quiet
}

# ---- steps ----

request() {
  announce
  need_yes "create it"
  local nodes=("--node-id=$NAME")
  ((SLICES == 1)) || nodes=("--node-count=$SLICES" "--node-prefix=$NAME")
  tpus create "$NAME" "${nodes[@]}" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" ${SPOT:+--spot} ${CREATE[@]+"${CREATE[@]}"}
}

announce() {
  local how="on demand"
  [[ -z $SPOT ]] || how="spot (may be preempted at any time)"
  [[ " ${CREATE[*]-} " != *" --reserved "* ]] || how="reserved"
  say "$SLICES x $TYPE in $ZONE: $((SLICES * CHIPS)) chips in $((SLICES * HOSTS)) hosts, \
$how
It costs money by the second from the moment it is ACTIVE, idle or not, until
    launch/tpu.sh delete --name=$NAME --zone=$ZONE ${PROJECT:+--project=$PROJECT }--yes
Prices per chip and hour: https://cloud.google.com/tpu/pricing"
}

preflight() {
  local snclr slices=() code=0
  say_uncommitted
  snclr=$(type -P snclr || echo "$ROOT/.venv/bin/snclr")
  cd "$ROOT"
  ((SLICES == 1)) || slices=("--slices=$SLICES")
  call "$snclr" preflight "${CONFIG[@]}" "--topology=$KIND:$SHAPE" \
    ${slices[@]+"${slices[@]}"} ${IMAGES[@]+"${IMAGES[@]}"} || code=$?
  case $code in
    0) ;;
    3) fail "the config does not fit $SLICES x $TYPE (above); nothing was created" 1 ;;
    *) fail "preflight failed (above); nothing was created" ;;
  esac
}

# Does what is missing for the run to run, and nothing where it runs.
bring_up() {
  local state lines
  state=$(settled_state SUSPENDED "SUSPENDED|FAILED|PREEMPTED")
  case $state in
    SUSPENDED | FAILED | PREEMPTED)
      say "$NAME is $state: deleting and creating it again"
      need_yes "create $NAME again"
      tpus delete "$NAME" --force --quiet
      request
      ;;
    SUSPENDING | DELETING)
      say "$NAME is $state: waiting"
      sleep "$POLL_SECONDS"
      bring_up
      return
      ;;
    ABSENT) preflight && request ;;
    ACTIVE)
      lines=$(worker_lines) || fail "the workers of $NAME do not answer; try again" 4
      ! all_are "$lines" running || { say "runs already" && return; }
      ! all_are "$lines" "ended 0" || { say "the run is complete" && return; }
      # One that lost its peers may wait for them yet.
      on_all "if [ -e snclr/launch/worker.sh ]; then $(worker stop); fi"
      ;;
  esac
  setup
  run
}

watch() {
  local failures=0 started code lines
  WAITED=0
  while true; do
    started=$SECONDS code=0 lines=""
    # A process of its own, so that an error in it ends one attempt and not the watch.
    again resume || code=$?
    ((code != 1 && code != 3)) || exit "$code" # it does not fit, or --yes is missing
    [[ -z $DRY_RUN ]] || return "$code"
    if ((code == 4)); then
      # This machine may have no network, and the run may go on.
      wait_longer || fail "no answer in $WAITED x $POLL_SECONDS s; the watch ends, and \
$NAME may train on and costs money until you delete it: see to the network and to gcloud \
auth login, then resume" 4
      continue
    fi
    WAITED=0
    if ((code == 0)); then
      while sleep "$POLL_SECONDS" && lines=$(worker_lines) && all_are "$lines" running; do
        :
      done
      ! all_are "$lines" "ended 0" || break
    fi
    if grep -qE '^[^:]*: ended 2:' <<<"$lines"; then # docs/reliability.md
      give_up "the run was refused, and would be again"
    fi
    ((SECONDS - started < 3600)) || failures=0
    if ((code != 0)) || grep -qE '^[^:]*: ended ' <<<"$lines"; then
      failures=$((failures + 1))
      ((failures < MAX_FAILURES)) ||
        give_up "the run ended, or could not be started, $failures times in a row"
      polls $(((1 << failures) - 1))
    fi
    say "not every worker of $NAME is running: resuming"
  done
  say "the run is complete: $WORKDIR"
  if [[ -n $DELETE_AFTER ]]; then
    delete_at_last
  else
    say "$NAME still costs money until you delete it"
  fi
}

give_up() {
  if [[ -n $DELETE_AFTER ]]; then
    again logs || true # which go with the slices
    delete_at_last
    fail "$1; see the log above. $NAME was deleted"
  fi
  fail "$1; see launch/tpu.sh logs, then resume. $NAME still costs money until you \
delete it"
}

delete_at_last() {
  WAITED=0
  until again delete; do
    say "$NAME is not deleted and costs money"
    wait_longer || fail "$NAME is not deleted and costs money: see to the network and to \
gcloud auth login, then delete it" 4
  done
}

# Waits as long again as all waits before it, which WAITED counts in polls; fails where
# they are enough.
wait_longer() {
  local next=$((WAITED + 1))
  ((WAITED < SILENT_POLLS)) || return 1
  ((next <= LONGEST_WAIT)) || next=$LONGEST_WAIT
  say "asking again in $next x $POLL_SECONDS s"
  polls "$next"
  WAITED=$((WAITED + next))
}

polls() {
  local poll
  for ((poll = 0; poll < $1; poll++)); do sleep "$POLL_SECONDS"; done
}

# Nobody answers a question there, such as gcloud's for the password of a login that has
# expired.
again() {
  bash "$ROOT/launch/tpu.sh" "$1" "${AGAIN[@]}" </dev/null
}

wait_until_active() {
  local state
  while true; do
    state=$(queue_state ACTIVE)
    case $state in
      ACTIVE) return ;;
      ABSENT) fail "$NAME does not exist: create it" ;;
      SUSPENDED | FAILED | PREEMPTED) fail "$NAME is $state: use resume, or delete" ;;
    esac
    say "$NAME: $state"
    sleep "$POLL_SECONDS"
  done
}

# ---- Google Cloud ----

# Prints the state of the request; ABSENT where there is none, PREEMPTED where it says
# ACTIVE and a node is gone. A dry run supposes $1.
queue_state() {
  local state node output
  if [[ -n $DRY_RUN ]]; then
    tpus describe "$NAME" "--format=value(state.state)" >&2
    echo "$1"
    return
  fi
  state=$(describe queued-resources "$NAME" state.state)
  if [[ $state == ACTIVE ]]; then
    for node in $(nodes); do
      output=$(describe tpu-vm "$node" state)
      [[ $output =~ ^(ABSENT|PREEMPTED|TERMINATED|STOPPED)$ ]] || continue
      state=PREEMPTED
    done
  fi
  echo "$state"
}

# The same. An answer that matches $2 has to come again after a pause: what follows from
# it cannot be undone.
settled_state() {
  local state before=""
  state=$(queue_state "$1")
  while [[ -z $DRY_RUN && $state != "$before" && $state =~ ^($2)$ ]]; do
    say "$NAME is $state: asking again in $POLL_SECONDS s"
    before=$state
    sleep "$POLL_SECONDS"
    state=$(queue_state "$1")
  done
  echo "$state"
}

describe() {
  local output
  # Apart: gcloud warns there of much that is no error.
  local errors=$TEMPORARY/errors
  if output=$(gcloud compute tpus "$1" describe "$2" "${PLACE[@]}" \
    --format="value($3)" 2>"$errors"); then
    echo "$output"
  elif grep -qE "NOT_FOUND: .*/locations/$ZONE/[a-zA-Z]+/$2([^-a-z0-9]|\$)" "$errors"; then
    # It names the resource. "Location ZONE is not found or access is unauthorized", with
    # a 403, comes and goes, and says nothing about it.
    echo ABSENT
  else
    fail "gcloud cannot describe $2: $(cat "$errors")" 4
  fi
}

nodes() {
  local index
  ((SLICES > 1)) || { echo "$NAME" && return; }
  for ((index = 0; index < SLICES; index++)); do echo "$NAME-$index"; done
}

tpus() {
  # Status 1 is what gcloud ends with whatever it was, and here it means: does not fit.
  call gcloud compute tpus queued-resources "$@" "${PLACE[@]}" ||
    fail "gcloud compute tpus queued-resources $1 failed (above)"
}

on_all() {
  tpus ssh "$NAME" --worker=all --node=all --command="$*"
}

# The same, and fails unless each worker prints a line that matches $1. gcloud passes
# over nodes that it cannot reach, and ends with 0.
on_every() {
  local expected=$1 output=$TEMPORARY/output code=0
  shift
  on_all "$@" | tee "$output" || code=$?
  [[ -z $DRY_RUN ]] || return 0
  ((code == 0)) || exit 2
  local answered
  answered=$(grep -cE "$expected" "$output") || true
  ((answered == SLICES * HOSTS)) ||
    fail "$answered of $((SLICES * HOSTS)) workers of $NAME answered"
}

worker() {
  printf '%q ' bash snclr/launch/worker.sh "$@"
}

# Prints a line a worker; fails where one does not answer.
worker_lines() {
  (on_every "$ANSWER" "$STATUS") 2>/dev/null
}

all_are() {
  local matching
  matching=$(grep -c "^[^:]*: $2:" <<<"$1") || true
  ((matching == SLICES * HOSTS))
}

# ---- shell ----

call() {
  if [[ -n $DRY_RUN ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

say_uncommitted() {
  [[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] ||
    say "uncommitted changes are not copied: what is installed is HEAD"
}

need_yes() {
  [[ -n $YES || -n $DRY_RUN ]] || fail "add --yes to $1" 3
}

say() {
  echo "$*" >&2
}

fail() {
  echo "tpu.sh: $1" >&2
  exit "${2:-2}"
}

main "$@"
