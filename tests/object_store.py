"""Runs a tiny training, and ends it like a preempted machine where a step is given.

python object_store.py WORKDIR [STEP]
"""

from __future__ import annotations

import os
import signal
import sys

import jax
import tiny

from snclr_jax import train as train_module
from snclr_jax.train import train

if __name__ == "__main__":
    workdir, *kill = sys.argv[1:]
    config = tiny.config(checkpoint__every_steps=4, log__every_steps=2)
    if kill:
        pause = train_module.Loop._pause

        def killed(self, step, state, stop):
            pause(self, step, state, stop)
            if step == int(kill[0]):
                self.checkpoints.wait()
                os.kill(os.getpid(), signal.SIGKILL)

        train_module.Loop._pause = killed
    state = train(config, workdir)
    total = sum(float(abs(leaf).sum()) for leaf in jax.tree.leaves(state.params))
    print("parameters", repr(total))
