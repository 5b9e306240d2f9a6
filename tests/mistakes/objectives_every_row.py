"""Mistakes in the objectives for which every row of a queue counts once."""

from __future__ import annotations

from mistakes.mistake import of

EVERY_OBJECTIVE = "tests/objectives/test_every_objective.py"
MISTAKES = [
    *of(
        "snclr_jax/queue/every_row.py",
        "tests/queue/test_every_row.py",
        (
            "rows that were not written count",
            "multiplicity=counted.astype(z.dtype),",
            "multiplicity=jnp.ones_like(counted, z.dtype),",
        ),
        (
            "every device leaves the first images out",
            "jnp.arange(z.shape[1]) - jax.lax.axis_index(AXIS) * own",
            "jnp.arange(z.shape[1])",
        ),
        (
            "mean rows of devices count alike",
            "mean = jax.lax.psum(share[:, None] * mean, AXIS)",
            "mean = jax.lax.pmean(mean, AXIS)",
        ),
    ),
    *of(
        "snclr_jax/objectives/moco_v2.py",
        EVERY_OBJECTIVE,
        (
            "MoCo's positive is no candidate",
            "jnp.stack([positive, *negatives])",
            "jnp.stack([*negatives])",
        ),
    ),
    *of(
        "snclr_jax/objectives/ressl.py",
        EVERY_OBJECTIVE,
        (
            "ReSSL's target has the temperature of the others",
            "tau = self.target_temperature",
            "tau = self.temperature",
        ),
        (
            "ReSSL reports the entropy at another temperature",
            "of_target, mean, temperature=tau",
            "of_target, mean, temperature=self.temperature",
        ),
        (
            "ReSSL has a loss without rows",
            "jnp.where(jnp.any(counted), loss, 0.0)",
            "loss",
        ),
    ),
    *of(
        "snclr_jax/objectives/sce.py",
        EVERY_OBJECTIVE,
        (
            "SCE reports the entropy at another temperature",
            "t[None], log_sum, mean, temperature=self.target_temperature",
            "t[None], log_sum, mean, temperature=self.temperature",
        ),
        (
            "SCE reports a log-sum as entropy",
            "/ self.temperature, entropy[0]",
            "/ self.temperature, log_sum[0]",
        ),
        (
            "SCE without rows repels its positive",
            "else (log_sum > -jnp.inf).astype(t.dtype)",
            "else jnp.ones_like(log_sum)",
        ),
        (
            "SCE keeps an image's own target among the others",
            "targets.append(target(t[None], *batch, but_own=True))",
            "targets.append(target(t[None], *batch))",
        ),
    ),
    *of(
        "snclr_jax/queue/mixing.py",
        EVERY_OBJECTIVE,
        (
            "mixtures are not normalized",
            "            rows = rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))\n",
            "",
        ),
        (
            "views and images of the hardest rows are mixed up",
            "z = jnp.swapaxes(gather(query), 0, 1).reshape(-1, query.shape[-1])",
            "z = gather(query).reshape(-1, query.shape[-1])",
        ),
        (
            "a mixture takes rows of the first device alone",
            "    row = row - jax.lax.axis_index(AXIS) * owned\n",
            "",
        ),
    ),
    *of(
        "snclr_jax/objectives/mochi.py",
        EVERY_OBJECTIVE,
        (
            "images and views mix the same rows",
            "image_keys(now.seed, now.step, MIXING + view, batch)",
            "image_keys(now.seed, now.step, MIXING, batch)",
        ),
        (
            "every run mixes the same rows, whatever its seed",
            "image_keys(now.seed, now.step, MIXING + view, batch)",
            "image_keys(0, now.step, MIXING + view, batch)",
        ),
    ),
    *of(
        "configs/objectives.py",
        "tests/objectives/test_variants.py",
        (
            "a weak view is solarized",
            '("jitter", "grayscale", "blur", "solarize")',
            '("jitter", "grayscale", "blur")',
        ),
        (
            "what a method needs of any recipe outweighs what was published",
            "{**NEEDS.get(name, {}), **settings}",
            "{**settings, **NEEDS.get(name, {})}",
        ),
        (
            "an objective of CIFAR and ImageNet has its defaults",
            "PUBLISHED[recipe].items()",
            "{}.items()",
        ),
    ),
]
