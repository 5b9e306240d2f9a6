#!/usr/bin/env bash
# Trains on GPU nodes under SLURM, and continues by itself after a preemption or a fault:
#
#   sbatch --nodes=2 launch/slurm.sh --config=imagenet_vit_s16 \
#       --config.data.path=/shared/sets --config.data.num_workers=8 \
#       --workdir=/shared/runs/vit
#
# The arguments are those of snclr train. The checkout with its .venv, the data and the
# workdir lie where every node sees them.
# Options before the script's name (--nodes, --time, --partition) override those below.
#
# One task a GPU: JAX, started by SLURM, gives task i of a node the i-th of the node's
# GPUs. So every task must see all of them: --gpus-per-node, and not --gpus-per-task,
# which hides the others and leaves most tasks without one. Each task decodes its own
# share of the images, in config.data.num_workers processes: cpus-per-task at most.
#
# SNCLR_MAX_REQUEUES=N, 10 where it is not set: a job that was started again N times, for
# whatever reason, is not after a fault. Preemptions and ends of its time are not limited.
#
#SBATCH --job-name=snclr
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the end of its time this script gets SIGUSR1, and saves.
#SBATCH --signal=B:USR1@120
set -euo pipefail

# SLURM runs a copy of this file: the checkout is where sbatch was called.
SNCLR=${SNCLR:-$SLURM_SUBMIT_DIR/.venv/bin/snclr}

[[ -x $SNCLR ]] || {
  echo "slurm.sh: $SNCLR does not exist; install it with pip install -e '.[cuda]', \
call sbatch in the checkout, or set SNCLR=" >&2
  exit 2
}
SIGNALLED="" CANCELLED=""
# To the tasks and not to srun, which would kill them after KillWait.
trap 'SIGNALLED=yes; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1
# By scancel or scontrol requeue, which signal the tasks too and decide what follows.
trap 'SIGNALLED=yes CANCELLED=yes' TERM
# Where one ends the rest have a minute to end too, saving or not: one that was lost
# would be waited for in vain.
# The CPUs are said again: SLURM 22.05 to 23.02 do not tell srun.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=60 \
  "$SNCLR" train "$@" &
STEP=$!
while true; do
  SIGNALLED="" ended=0
  wait "$STEP" || ended=$?
  [[ -n $SIGNALLED ]] || break # a signal ends the wait, and not what is waited for
done
[[ -z $CANCELLED ]] || exit "$ended"
# The highest exit status of the tasks, or 128 + the signal that killed one, says whether
# the same job goes back into the queue, where the same command continues the run.
RESTARTS=${SLURM_RESTART_COUNT:-0} MAX_REQUEUES=${SNCLR_MAX_REQUEUES:-10}
case $ended in
  0 | 2 | 130) exit "$ended" ;; # complete; refused, as it would be again; Ctrl-C
  138 | 140 | 143) why="stopped by SIG$(kill -l "$ended")" ;; # as asked: the task says what it saved
  *)
    why="ended with $ended"
    if ((RESTARTS >= MAX_REQUEUES)); then
      echo "slurm.sh: $why after $RESTARTS restarts; see above, and call sbatch again, \
with SNCLR_MAX_REQUEUES=N for more of them" >&2
      exit "$ended"
    fi
    ;;
esac
echo "slurm.sh: $why; job $SLURM_JOB_ID goes back into the queue"
scontrol requeue "$SLURM_JOB_ID" ||
  echo "slurm.sh: it could not be queued again; the same sbatch continues the run" >&2
exit "$ended"
