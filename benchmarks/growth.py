"""How search + loss grow: with q, K and b on one device, and with the devices.

    python benchmarks/growth.py

Time is wall clock on one device. Weak scaling (b and q per device stay) is read from
programs compiled for virtual CPU devices: they share the cores, so a clock would say
nothing.
"""

from __future__ import annotations

import jax
import report
from direction import Shape, compile_direction, inputs_of, settings_of, unit_rows
from measure import measure

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.preflight.hlo.work import Cost, cost

BASE = Shape(b=256, q=16384, k=8, d=128)
DEVICES = (1, 2, 4, 8)
TEXT = f"""\
One direction with its gradient, d = {BASE.d}, float32, on one device: temporaries and
FLOPs of the compiled program, and median wall clock. FLOPs include every block of rows
that a run may find empty and skip."""
WEAK_TEXT = """\
Weak scaling, every figure for one device: images and rows grow with the devices. Each
image meets all rows, so FLOPs per device grow with the global batch, and so do the
queries that travel; the list of chosen rows may fill up to all rows of the device. On
one device the collectives send nothing."""


def compiled(shape: Shape, devices: int) -> tuple[jax.stages.Compiled, Cost, list[str]]:
    """Returns the program over `devices`, its cost, and the cells that tables share."""
    mesh = make_mesh(jax.devices()[:devices])
    program = compile_direction(shape, settings_of(shape), mesh)
    temporaries = program.memory_analysis().temp_size_in_bytes / 1e6
    per_device = cost(program.as_text())
    sizes = [str(size) for size in (shape.b, shape.q, shape.k)]
    figures = [f"{temporaries:.1f}", f"{per_device.flops / 1e9:.2f}"]
    return program, per_device, sizes + figures


def on_one_device(**sizes: int) -> list[str]:
    """Returns one row: the base shape with some sizes replaced."""
    shape = BASE._replace(**sizes)
    program, _, cells = compiled(shape, devices=1)
    inputs = jax.device_put(inputs_of(*unit_rows(shape)))
    milliseconds = measure(lambda: jax.block_until_ready(program(inputs)))["ms"]
    return [*cells, f"{milliseconds:.1f}"]


def weak(devices: int) -> list[str]:
    """Returns one row: the base's images and rows on each of the devices."""
    shape = BASE._replace(b=devices * BASE.b, q=devices * BASE.q)
    _, per_device, cells = compiled(shape, devices)
    moved = sum(size for _, size in per_device.collectives.values())
    return [str(devices), *cells, f"{moved / 1e6:.2f}"]


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    origin = report.origin("python benchmarks/growth.py", ["jax"], timed=True)
    doublings = [
        {field: times * size}
        for field, size in BASE._asdict().items()
        if field != "d"
        for times in (2, 4)
    ]
    header = ["b", "q", "K", "temporaries MB", "GFLOP"]
    report.write(
        "Growth of search + loss",
        TEXT,
        report.table(
            [*header, "ms"], [on_one_device(**sizes) for sizes in [{}, *doublings]]
        ),
        WEAK_TEXT,
        report.table(["devices", *header, "collectives MB"], map(weak, DEVICES)),
        origin,
    )


if __name__ == "__main__":
    main()
