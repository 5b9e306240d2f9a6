"""Collectives and memory of search + loss on 64 TPU v4 chips, from compiled programs.

    python benchmarks/collectives.py             # needs libtpu (".[tpu]"), no TPU

The programs are compiled ahead of time for a v4:4x4x4 slice and read, not run: bytes
of the results of every collective on one device, loops multiplied by their trips.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import report
from direction import Inputs, Shape, abstract_inputs, direction, settings_of
from jax.sharding import Mesh

from snclr_jax.devices.mesh import make_mesh, over_batch
from snclr_jax.objectives import snclr_plain as losses
from snclr_jax.preflight.chips import slice_devices
from snclr_jax.preflight.hlo.work import cost
from snclr_jax.queue.ring import find_neighbors
from snclr_jax.queue.sharded import push_targets

TOPOLOGY = "v4:4x4x4"
SHAPE = Shape(b=4096, q=131072, k=30, d=256)
TEXT = f"""\
Search + loss + gradient at b {SHAPE.b}, q {SHAPE.q}, K {SHAPE.k}, d {SHAPE.d}, float32;
figures are for one of 64 devices. The symmetric step has both directions and the push.
Collectives are bytes of results; the compiler writes gathers and scattered sums as
all-reduces, so a sum of which every device keeps a 64th counts whole. FLOPs and bytes
of main memory include every block of rows that a run may find empty and skip."""
HEADER = [
    "program",
    "collectives MB",
    "count, kind, MB",
    "temporaries MB",
    "GFLOP",
    "GB touched",
]


def symmetric(settings, mesh: Mesh):
    """Returns both directions with their gradients, and the push: a step's share."""
    one = direction(settings, mesh)

    def run(queue, first, second, image_id):
        """Each view is its (prediction, anchor, target)."""
        (z1, y1, t1), (z2, y2, t2) = first, second
        forward = one(Inputs(queue, z1, y1, t2, image_id))
        backward = one(Inputs(queue, z2, y2, t1, image_id))
        step = jnp.int32(0)
        pushed = push_targets(queue, t2, image_id, step, banks=1, mesh=mesh)
        return forward, backward, pushed

    return jax.jit(run, donate_argnums=0)


def automatic(settings, mesh: Mesh):
    """Returns the plain direction, partitioned by the compiler alone."""

    def forward(prediction, anchor, queue, target, image_id):
        neighbors = find_neighbors(queue, target, settings.queue.k, image_id=image_id)
        weights = losses.positiveness(anchor, neighbors.keys, valid=neighbors.valid)
        value = losses.soft_neighbor_loss(
            prediction,
            target,
            neighbors.keys,
            weights,
            valid=neighbors.valid,
            temperature=settings.temperature,
            form=settings.form,
        )
        return value, neighbors._replace(keys=None)

    def run(inputs: Inputs):
        queue, prediction, anchor, target, image_id = inputs
        output, gradients = jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)(
            prediction, anchor, queue, target, image_id
        )
        return output, jax.lax.with_sharding_constraint(gradients, over_batch(mesh))

    return jax.jit(run)


def figures(name: str, lowered: jax.stages.Lowered) -> list[str]:
    """Returns one row of the table."""
    compiled = lowered.compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    per_device = cost(compiled.as_text())
    kinds = [
        f"{count} {kind} {size / 1e6:.2f}"
        for kind, (count, size) in sorted(per_device.collectives.items())
    ]
    moved = sum(size for _, size in per_device.collectives.values())
    return [
        name,
        f"{moved / 1e6:.1f}",
        ", ".join(kinds),
        f"{temporaries / 1e6:.1f}",
        f"{per_device.flops / 1e9:.1f}",
        f"{per_device.bytes / 1e9:.2f}",
    ]


def main() -> None:
    mesh, settings = make_mesh(slice_devices(TOPOLOGY)), settings_of(SHAPE)
    one = abstract_inputs(SHAPE, settings, mesh)
    view = one.prediction, one.anchor, one.target
    programs = {
        "one direction": jax.jit(direction(settings, mesh)).lower(one),
        "symmetric step": symmetric(settings, mesh).lower(
            one.queue, view, view, one.image_id
        ),
        "one direction, automatic partitioning": automatic(settings, mesh).lower(one),
    }
    report.write(
        "Collectives on 64 TPU v4 chips",
        TEXT,
        report.table(HEADER, [figures(*each) for each in programs.items()]),
        report.origin(
            "python benchmarks/collectives.py", ["jax", "libtpu"], timed=False
        ),
    )


if __name__ == "__main__":
    main()
