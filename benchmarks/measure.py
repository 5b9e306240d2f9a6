"""Time and peak memory of a call in this process (Linux)."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable

SECONDS = 4.0
Figures = dict[str, float]


def resident_mb(field: str) -> float:
    """Returns VmRSS (now) or VmHWM (peak) in 1e6 bytes."""
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def start_peak() -> float:
    """Lets the peak count from here, and returns what is resident now, in MB."""
    # Pages that the compiler freed would be used again and seem to cost nothing.
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")
    return resident_mb("VmRSS")


def measure(call: Callable[[], object]) -> Figures:
    """Returns the median and least milliseconds of `call`, and its peak memory."""
    before = start_peak()
    call()
    times = []
    end = time.perf_counter() + SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    peak = resident_mb("VmHWM") - before
    return {"ms": statistics.median(times), "least": min(times), "mb": peak}
