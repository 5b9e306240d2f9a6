"""Runs a tiny training, and ends it like a preempted machine where a step is given.

python object_store.py WORKDIR [STEP saved|saving]

The machine goes at that step: once its checkpoint is whole, or while it is written.
"""

from __future__ import annotations

import os
import signal
import sys

import tiny

from snclr_jax.loop import Loop
from snclr_jax.run.digest import digests
from snclr_jax.train import train

if __name__ == "__main__":
    workdir, *kill = sys.argv[1:]
    config = tiny.config(checkpoint__every_steps=16, log__every_steps=2)
    if kill:
        last, moment = kill
        pause = Loop._pause

        def killed(self, step, state, stop):
            pause(self, step, state, stop)
            if step == int(last):
                if moment == "saved":
                    self.checkpoints.wait()
                os.kill(os.getpid(), signal.SIGKILL)

        Loop._pause = killed
    print("digests", digests(train(config, workdir)))
