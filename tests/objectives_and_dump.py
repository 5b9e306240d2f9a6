"""Computes every case of every objective as one process of two and writes the results.

python objectives_and_dump.py OUTPUT.npz PROCESS PORT
"""

from __future__ import annotations

import sys

import jax
import numpy as np
from test_every_objective import CASES, everything

from snclr_jax.devices.mesh import make_mesh

if __name__ == "__main__":
    output, process, port = sys.argv[1:]
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        2,
        int(process),
        shutdown_timeout_seconds=30,  # one that failed waits for the other so long
    )
    arrays = {}
    with jax.enable_x64(True):
        for name, case in CASES.items():
            for key, array in everything(case, make_mesh()).items():
                arrays[f"{name}:{key}"] = array
    np.savez(output, **arrays)
