"""What every worker process does first. Loads neither JAX nor TFDS."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from snclr_jax.devices.signals import SIGNALS


def start_worker(*_: int) -> None:
    """Leaves signals to the main process, and ends when that ends.

    A terminal, and SLURM, send them to every process of the group: workers that ended
    would leave the main process without the data for the steps up to its stop.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where the parent is killed, nothing else would end its workers."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
