"""Computes every case of every objective as one process of two and writes the results.

python objectives_and_dump.py OUTPUT.npz PROCESS PORT
"""

from __future__ import annotations

import sys

import jax
import numpy as np
from test_every_objective import CASES, everything

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.processes import start

if __name__ == "__main__":
    output, process, port = sys.argv[1:]
    start(coordinator=f"127.0.0.1:{port}", processes=2, process=int(process))
    arrays = {}
    with jax.enable_x64(True):
        for name, case in CASES.items():
            for key, array in everything(case, make_mesh()).items():
                arrays[f"{name}:{key}"] = array
    np.savez(output, **arrays)
