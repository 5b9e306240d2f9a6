"""Runs a tiny training in its own process and writes every leaf of the final state.

python train_and_dump.py WORKDIR OUTPUT.npz [PROCESSES PROCESS PORT]
"""

from __future__ import annotations

import os
import sys

import jax
import numpy as np
import tiny
from jax.experimental.multihost_utils import process_allgather

from snclr_jax.devices.processes import start
from snclr_jax.run import checkpoint
from snclr_jax.train import train

if __name__ == "__main__":
    checkpoint.SAVE_SECONDS = int(os.environ.get("SAVE_SECONDS", 300))
    workdir, output, *others = sys.argv[1:]
    if others:
        processes, process, port = map(int, others)
        start(coordinator=f"127.0.0.1:{port}", processes=processes, process=process)
    config = tiny.config(
        data__holdback=200, checkpoint__every_steps=7, log__every_steps=5
    )
    try:
        state = train(config, workdir)
    except (ValueError, OSError) as error:
        sys.exit(f"snclr: {error}")
    leaves = {
        jax.tree_util.keystr(path): np.asarray(process_allgather(leaf, tiled=True))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    if jax.process_index() == 0:
        np.savez(output, **leaves)
