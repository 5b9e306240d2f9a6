"""Runs a tiny training in its own process and writes every leaf of the final state.

python train_and_dump.py WORKDIR OUTPUT.npz
"""

from __future__ import annotations

import sys

import jax
import numpy as np
import tiny

from snclr_jax.train import train

if __name__ == "__main__":
    workdir, output = sys.argv[1:]
    config = tiny.config(
        data__holdback=200, checkpoint__every_steps=7, log__every_steps=5
    )
    state = train(config, workdir)
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    np.savez(output, **leaves)
