from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from objective_cases import moco_v2
from objective_cases.case import SEED, Case, filled, log_sum, whole
from snclr_jax.objectives.mochi import MoCHi
from snclr_jax.queue.mixing import Mixtures
from snclr_jax.queue.settings import RingSettings


def hardest(objective, state, y, image_id):
    """Returns the hardest rows of one image, of other images, most similar first."""
    allowed = [
        r
        for r, (at, of) in enumerate(zip(state.pushed_at, state.image_id, strict=True))
        if at >= 0 and of != image_id
    ]
    return sorted(allowed, key=lambda r: (-(y @ state.keys[r]), r))[: objective.hard]


@functools.cache
def drawn(objective, step, view, image, count):
    """Returns numbers among the hardest, and coefficients, that the step must draw."""
    key = jax.random.key(SEED)
    for part in (step, 2000 + view, image):
        key = jax.random.fold_in(key, part)
    keys, pairs, single = (
        jax.random.split(key, 4),
        objective.pairs,
        objective.with_query,
    )
    return (
        np.asarray(jax.random.randint(keys[0], (pairs, 2), 0, count)),
        np.asarray(jax.random.uniform(keys[1], (pairs,), jnp.float64)),
        np.asarray(jax.random.randint(keys[2], (single,), 0, count)),
        np.asarray(jax.random.uniform(keys[3], (single,), jnp.float64, maxval=0.5)),
    )


def synthetic(objective, state, y, hard, draw):
    rows = [np.asarray(state.keys[r]) for r in hard]
    pair, alpha, one, beta = draw
    mixed = [
        m * rows[a] + (1 - m) * rows[b] for (a, b), m in zip(pair, alpha, strict=True)
    ]
    mixed += [m * y + (1 - m) * rows[a] for a, m in zip(one, beta, strict=True)]
    return [row / np.linalg.norm(row) for row in mixed]


def loss(objective, params, state, rows, stopped, step):
    tau, losses = objective.temperature, []
    for number, v in enumerate(v for v in range(len(rows.projection)) if v != 1):
        for i, (y, t) in enumerate(
            zip(rows.projection[v], rows.target[1], strict=True)
        ):
            fixed, negatives = stopped.projection[v][i], filled(state)
            hard = hardest(objective, state, fixed, rows.image_id[i])
            if hard:
                draw = drawn(objective, step, number, i, len(hard))
                negatives += synthetic(objective, state, fixed, hard, draw)
            logits = [y @ c / tau for c in (t, *negatives)]
            losses.append(log_sum(logits) - logits[0])
    return objective.scale * np.mean(losses)


def recorded():
    def objective_of(meta, arrays):
        a, b, alpha, c, beta = (
            whole(arrays[name])[None]
            for name in ("mix_a", "mix_b", "alpha", "mix_c", "beta")
        )
        hard = np.sort(whole(arrays["hard_rows"]))[None]
        mixtures = Mixtures(
            np.concatenate([np.stack([a, b], -1), np.stack([c, c], -1)], axis=2),
            np.concatenate(
                [np.stack([alpha, 1 - alpha], -1), np.stack([1 - beta, 0 * beta], -1)],
                axis=2,
            ),
            np.concatenate([0 * alpha, beta], axis=2),
            np.ones((1, a.shape[1], meta["s"] + meta["s_prime"]), bool),
        )

        class Recorded(MoCHi):
            """Draws what was drawn, if the hardest rows are those recorded."""

            def draw(self, hardest, now, dtype):
                same = jnp.all(jnp.sort(hardest.row) == hard) & jnp.all(
                    hardest.count == meta["hard"]
                )
                return mixtures._replace(valid=mixtures.valid & same)

        return Recorded(
            temperature=meta["temperature"],
            hard=meta["hard"],
            pairs=meta["s"],
            with_query=meta["s_prime"],
            queue=RingSettings(meta["bank"], "float64"),
        )

    return moco_v2.one_direction("mochi_w1", objective_of)


CASES = [
    Case(
        # More hard rows than a device has or one push leaves; blocks of two mixtures.
        MoCHi(
            temperature=0.3,
            scale=1.7,
            hard=10,
            pairs=7,
            with_query=4,
            queue=RingSettings(24, "float64", block=600),
        ),
        loss,
        moco_v2.state_after,
        local_views=1,
        recorded=(recorded,),
    )
]
