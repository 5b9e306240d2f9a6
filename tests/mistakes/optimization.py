"""Mistakes in optimizers and schedules."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/objectives/soft_neighbors.py",
        "tests/objectives/test_snclr_warmup.py",
        (
            "neighbors warm up from the first step",
            "jnp.minimum(now.step / steps, 1.0)",
            "jnp.minimum((now.step + 1) / steps, 1.0)",
        ),
        (
            "neighbors warm up without end",
            "jnp.minimum(now.step / steps, 1.0)",
            "now.step / steps",
        ),
    ),
    *of(
        "snclr_jax/step/optim.py",
        "tests/step/test_optim.py",
        (
            "the target's momentum is constant",
            "return lambda step: final - left(step)",
            "return lambda step: final - left(0 * step)",
        ),
        (
            "the target's momentum is one step ahead",
            "return lambda step: final - left(step)",
            "return lambda step: final - left(step + 1)",
        ),
        (
            "the target's momentum ends a step early",
            "optax.cosine_decay_schedule(final - first, total)",
            "optax.cosine_decay_schedule(final - first, total - 1)",
        ),
        (
            "the target's momentum rises linearly",
            "optax.cosine_decay_schedule(final - first, total)",
            "optax.linear_schedule(final - first, 0.0, total)",
        ),
        (
            "the target's momentum rises to 1 whatever its final value",
            "config.ema.momentum, config.ema.final_momentum",
            "config.ema.momentum, 1.0",
        ),
        (
            "SGD without momentum",
            "                "
            "optax.add_decayed_weights(settings.weight_decay, mask=decayed),\n"
            "                optax.sgd(schedule, momentum=settings.momentum),",
            "                "
            "optax.add_decayed_weights(settings.weight_decay, mask=decayed),\n"
            "                optax.sgd(schedule),",
        ),
        (
            "LARS without momentum",
            "        optax.masked(ratio, _matrices),\n"
            "        optax.sgd(schedule, momentum=settings.momentum),",
            "        optax.masked(ratio, _matrices),\n        optax.sgd(schedule),",
        ),
        (
            "the rate of LARS is inside its momentum",
            "        optax.masked(ratio, _matrices),\n"
            "        optax.sgd(schedule, momentum=settings.momentum),",
            "        optax.masked(ratio, _matrices),\n"
            "        optax.scale_by_learning_rate(schedule),\n"
            "        optax.trace(settings.momentum),",
        ),
        (
            "LARS decays after its ratio",
            "        optax.add_decayed_weights(settings.weight_decay, "
            "mask=decayed),\n"
            "        optax.masked(ratio, _matrices),",
            "        optax.masked(ratio, _matrices),\n"
            "        optax.add_decayed_weights(settings.weight_decay, "
            "mask=decayed),",
        ),
        (
            "LARS scales vectors too",
            "optax.masked(ratio, _matrices)",
            "ratio",
        ),
        (
            "AdamW with one beta",
            "b2=settings.beta2",
            "b2=settings.beta1",
        ),
        (
            "AdamW decays everything",
            '                mask=decayed,\n            )\n        case "sgd"',
            '            )\n        case "sgd"',
        ),
        (
            "the clip keeps the first rate",
            "        count = optax.safe_increment(state.count)\n",
            "        count = state.count\n",
        ),
        (
            "the clip is at 1",
            "_times_trust_ratio(coefficient / rate, updates, params, largest=1.0)",
            "_times_trust_ratio(coefficient, updates, params, largest=1.0)",
        ),
        (
            "the patch embedding is not frozen",
            '"frozen": optax.set_to_zero()',
            '"frozen": optax.sgd(0.1)',
        ),
        (
            "decay_all is not read",
            "decayed = None if settings.decay_all else _matrices",
            "decayed = _matrices",
        ),
        (
            "the rate ignores the batch",
            "peak = config.optim.learning_rate * config.batch_size / 256",
            "peak = config.optim.learning_rate",
        ),
        (
            "the rate does not warm up",
            "init_value=0.0, peak_value=peak, warmup_steps=warmup",
            "init_value=peak, peak_value=peak, warmup_steps=warmup",
        ),
    ),
    *of(
        "configs/base.py",
        "tests/settings/test_check.py",
        (
            "the authors' scale is fixed when the config is built",
            '4 * objective.get_ref("temperature")',
            "4 * objective.temperature",
        ),
    ),
]
