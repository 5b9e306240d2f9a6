"""What the shell may limit too far (`ulimit`) for JAX to start."""

from __future__ import annotations

import resource

# A run of the digits at debug size reserved 2.5 GiB at most (2 CPU cores, jax 0.10.2).
LEAST_GIB = 3


def check_address_space() -> None:
    """Refuses a limit under which XLA aborts, or a library cannot be loaded.

    Raises:
      ValueError: where a process may reserve less than the smallest run does.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_GIB * 2**30:
        raise ValueError(
            f"this process may reserve {limit / 2**30:.1f} GiB of memory (ulimit -v), "
            f"and the smallest run takes {LEAST_GIB} GiB; use ulimit -v unlimited, or "
            "ask the scheduler for more"
        )
