#!/usr/bin/env bash
# Trains on GPU nodes under SLURM, and continues by itself after a preemption:
#
#   sbatch --nodes=2 launch/slurm.sh --config=imagenet_vit_s16 \
#       --config.data.path=/shared/sets --workdir=/shared/runs/vit
#
# The arguments are those of snclr train; the workdir lies where every node sees it.
# Options before the script's name (--nodes, --time, --partition) override those below.
#
# One task a GPU: JAX, started by SLURM, gives task i of a node the i-th of the node's
# GPUs. So every task must see all of them: --gpus-per-node, and not --gpus-per-task,
# which hides the others and leaves most tasks without one. Each task decodes its own
# share of the images, in config.data.num_workers processes: cpus-per-task at most.
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
trap 'SIGNALLED=yes CANCELLED=yes' TERM # by scancel, which signals the tasks too
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
# Saved after SIGTERM, from here or from SLURM where it gives a preempted job time, the
# tasks end with 143 and not with 0, and after SIGUSR1, of a --signal without B:, with
# 138: the same job goes back into the queue, and the same command continues the run.
if [[ $ended =~ ^(143|138)$ && -z $CANCELLED ]]; then
  echo "slurm.sh: saved; job $SLURM_JOB_ID goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$ended"
