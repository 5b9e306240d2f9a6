"""Mistakes in positiveness and loss, plain and fused."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/objectives/snclr_plain.py",
        "tests/objectives/test_positiveness.py",
        (
            "weights at the threshold stay",
            "jnp.where(weights > threshold, weights, 0.0)",
            "jnp.where(weights >= threshold, weights, 0.0)",
        ),
        (
            "the threshold is compared after gamma",
            "        weights = jnp.where(weights > threshold, weights, 0.0)\n"
            "    return weights / gamma",
            "        weights = jnp.where(weights / gamma > threshold, "
            "weights, 0.0)\n"
            "    return weights / gamma",
        ),
    ),
    *of(
        "snclr_jax/objectives/snclr_plain.py",
        "tests/objectives/test_snclr_plain.py",
        (
            "numerator shifted by neighbors without weight",
            "_max(weighted, axis_name))",
            "_max(jnp.where(valid, own_neighbors, -jnp.inf), axis_name))",
        ),
        (
            "numerator shifted by the positive alone",
            "top = jnp.maximum(jax.lax.stop_gradient(own), _max(weighted, axis_name))",
            "top = jax.lax.stop_gradient(own)",
        ),
        (
            "weights are left out of the numerator",
            "own_neighbors + jnp.log(jnp.where(counts, weights, 1.0))",
            "own_neighbors",
        ),
        (
            "the positive is left out of the numerator",
            "numerator = jnp.exp(own - top) + _sum(",
            "numerator = _sum(",
        ),
        (
            "weights are not divided by gamma",
            "return weights / gamma",
            "return weights",
        ),
        (
            "attention ignores its temperature",
            "jnp.where(valid, logits / temperature, -jnp.inf)",
            "jnp.where(valid, logits, -jnp.inf)",
        ),
        (
            "missing neighbors get a weight",
            "logits = jnp.where(valid, logits / temperature, -jnp.inf)",
            "logits = logits / temperature",
        ),
        (
            "soft cross-entropy forgets the positive",
            "return log_denominator - own + _sum(weights * pulled, axis_name)",
            "return _sum(weights * pulled, axis_name)",
        ),
        (
            "soft cross-entropy forgets the weights",
            "_sum(weights * pulled, axis_name)",
            "_sum(pulled, axis_name)",
        ),
        (
            "decoupled keeps an image's own neighbors",
            "        in_denominator = in_denominator & other[:, :, None]\n",
            "",
        ),
        (
            "decoupled keeps an image's own target",
            "        target_in_denominator = other\n",
            "",
        ),
    ),
    *of(
        "snclr_jax/objectives/snclr_fused.py",
        "tests/objectives/test_snclr_fused.py",
        (
            "the fused loss drops the weight of neighbors",
            "        neighbor_weight * found.weights,\n",
            "        found.weights,\n",
        ),
        (
            "the fused loss forgets tau of the positive",
            "jnp.sum(z * t, axis=-1) / settings.temperature",
            "jnp.sum(z * t, axis=-1)",
        ),
        (
            "every chosen row counts once",
            "jnp.zeros((rows,), z.dtype).at[row].add(chosen.astype(z.dtype))",
            "jnp.zeros((rows,), z.dtype).at[row].max(chosen.astype(z.dtype))",
        ),
        (
            "denominators are not shared by devices",
            "jnp.log(jax.lax.psum(jnp.sum(jnp.exp(parts - top), axis=0), AXIS))",
            "jnp.log(jax.lax.pmean(jnp.sum(jnp.exp(parts - top), axis=0), AXIS))",
        ),
        (
            "targets of others leave the denominator",
            "parts = jnp.stack([log_sum(target, targets), log_sum(keys, rows)])",
            "parts = jnp.stack([log_sum(keys, rows), log_sum(keys, rows)])",
        ),
    ),
    *of(
        "snclr_jax/queue/sums.py",
        "tests/queue/test_sums.py",
        (
            "the gradient forgets tau",
            "return gradient[:, None] * mean / temperature, None, None",
            "return gradient[:, None] * mean, None, None",
        ),
        (
            "the mean row does not fade",
            "mean = fade[:, None] * mean + _einsum",
            "mean = mean + _einsum",
        ),
        (
            "the sum does not fade",
            "total = fade * total + jnp.sum(exponential, axis=1)",
            "total = total + jnp.sum(exponential, axis=1)",
        ),
        (
            "excluded rows are taken off twice",
            '.add(-1, mode="drop")',
            '.add(-2, mode="drop")',
        ),
        (
            "products are pulled back twice",
            "            part = jnp.where(fresh, part, 0.0)\n",
            "",
        ),
        (
            "the last block of a list is skipped",
            "    turns = -(-size // width)\n",
            "    turns = max(1, size // width)\n",
        ),
    ),
]
