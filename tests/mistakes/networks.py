"""Mistakes in the networks."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/models/vit.py",
        "tests/models/test_vit.py",
        (
            "GELU by tanh",
            "approximate=False",
            "approximate=True",
        ),
        (
            "epsilon of norm1 is 1e-5",
            'nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")',
            'nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm1")',
        ),
        (
            "epsilon of norm2 is 1e-5",
            'nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")',
            'nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm2")',
        ),
        (
            "epsilon of the last norm is 1e-5",
            "            epsilon=1e-6,\n",
            "            epsilon=1e-5,\n",
        ),
        (
            "dense features are not normalized",
            "norm(x[:, 1:]).reshape(grid)",
            "x[:, 1:].reshape(grid)",
        ),
        (
            "dense features begin with the class token",
            "norm(x[:, 1:])",
            "norm(x[:, :-1])",
        ),
        (
            "the feature is the mean of all tokens",
            "norm(x[:, 0])",
            "norm(x.mean(axis=1))",
        ),
        (
            "the feature is the last token",
            "norm(x[:, 0])",
            "norm(x[:, -1])",
        ),
        (
            "the class token is last",
            "jnp.concatenate([cls, x], axis=1)",
            "jnp.concatenate([x, cls], axis=1)",
        ),
        (
            "positions divide by a quarter less one",
            "10000.0 ** (-jnp.arange(quarter) / quarter)",
            "10000.0 ** (-jnp.arange(quarter) / (quarter - 1))",
        ),
        (
            "columns come before rows in positions",
            'indexing="ij"',
            'indexing="xy"',
        ),
        (
            "no residual around attention",
            "        x = x + scale_branch(y, attention_scale)\n",
            "        x = scale_branch(y, attention_scale)\n",
        ),
        (
            "post-norm MLP",
            'name="norm2")(x)\n',
            'name="norm2")(x)\n        x = y\n',
        ),
    ),
    *of(
        "snclr_jax/models/attention.py",
        "tests/models/test_vit.py",
        (
            "attention is scaled by the number of heads",
            "jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])",
            "jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], "
            "qkv[:, :, 2], scale=qkv.shape[-2]**-0.5)",
        ),
        (
            "keys and queries change places",
            "(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])",
            "(qkv[:, :, 1], qkv[:, :, 0], qkv[:, :, 2])",
        ),
        (
            "a map of attention is shifted by the class token",
            "jax.nn.softmax(scores / math.sqrt(qkv.shape[-1]))[..., 1:]",
            "jax.nn.softmax(scores / math.sqrt(qkv.shape[-1]))[..., :-1]",
        ),
    ),
    *of(
        "snclr_jax/models/vit.py",
        "tests/models/test_vit.py",
        (
            "a map of attention is that of the first block",
            "weights = weights[-1]",
            "weights = weights[0]",
        ),
    ),
    *of(
        "snclr_jax/models/attention.py",
        "tests/models/test_attention.py",
        (
            "attention is never fused",
            "    if not (fused and",
            "    if not (False and",
        ),
        (
            "any head is given to cuDNN",
            "takes = width % _HEAD_MULTIPLE == 0 and width <= _WIDEST_HEAD",
            "takes = True",
        ),
        (
            "fused queries and keys change places",
            "query, key, value = jnp.unstack",
            "key, query, value = jnp.unstack",
        ),
        (
            "the token that makes it even is seen",
            "key_value_seq_lengths=seen, ",
            "",
        ),
    ),
    *of(
        "snclr_jax/models/resnet.py",
        "tests/models/test_resnet.py",
        (
            "blocks do not start as their shortcut",
            "self.norm(zero_scale=last,",
            "self.norm(zero_scale=False,",
        ),
        (
            "the first norm starts at zero too",
            "self.norm(zero_scale=last,",
            "self.norm(zero_scale=True,",
        ),
        (
            "max-pool pads like SAME",
            "(3, 3), (2, 2), padding=pad)",
            '(3, 3), (2, 2), padding="SAME")',
        ),
        (
            "max-pool does not pad",
            "nn.max_pool(flat, (3, 3), (2, 2), padding=pad)",
            'nn.max_pool(flat, (3, 3), (2, 2), padding="VALID")',
        ),
        (
            "the stride is on the first 1x1",
            "                (self.features, 1, 1),\n"
            "                (self.features, 3, self.stride),\n",
            "                (self.features, 1, self.stride),\n"
            "                (self.features, 3, 1),\n",
        ),
        (
            "no ReLU after the stem",
            'x = nn.relu(norm(name="bn1")(x))',
            'x = norm(name="bn1")(x)',
        ),
        (
            "the feature is the maximum",
            "            jnp.mean, axis=(-3, -2), "
            "dtype=jnp.promote_types(self.dtype, jnp.float32)\n",
            "            jnp.max, axis=(-3, -2)\n",
        ),
        (
            "the stem of 32-pixel images has a stride",
            "else (3, 1)\n",
            "else (3, 2)\n",
        ),
    ),
    *of(
        "snclr_jax/models/layers.py",
        "tests/models/test_resnet.py",
        (
            "strided convolutions pad like SAME",
            "padding=((pad, pad), (pad, pad))",
            'padding="SAME"',
        ),
        (
            "evaluation uses no running mean",
            "((x - running_mean.value) * factor + bias)",
            "((x - running_mean.value * 0) * factor + bias)",
        ),
    ),
    *of(
        "snclr_jax/models/layers.py",
        "tests/models/test_layers.py",
        (
            "epsilon of BatchNorm in training",
            "    return jax.lax.rsqrt(var + 1e-5)\n",
            "    return jax.lax.rsqrt(var + 1e-6)\n",
        ),
        (
            "epsilon of BatchNorm on running statistics",
            "jax.lax.rsqrt(running_var.value + 1e-5)",
            "jax.lax.rsqrt(running_var.value + 1e-6)",
        ),
        (
            "momentum of BatchNorm",
            "0.9 * running.value + 0.1 * view",
            "0.99 * running.value + 0.01 * view",
        ),
        (
            "a branch that is kept is not scaled up",
            "jnp.where(kept.T, 1 / keep, 0.0)",
            "jnp.where(kept.T, 1.0, 0.0)",
        ),
        (
            "first blocks drop as often as the last",
            "keep = 1 - jnp.linspace(0.0, rate, blocks)",
            "keep = 1 - jnp.linspace(rate, rate, blocks)",
        ),
        (
            "training BatchNorm reads the running mean",
            "        y, mean, var = normalized\n",
            "        y, mean, var = normalized\n"
            "        y = y + (mean.mean(axis=(0, 1)) - "
            "running_mean.value) * 0.01\n",
        ),
        (
            "the running variance is the biased one",
            "of_group / max(of_group - 1, 1)",
            "of_group / of_group",
        ),
    ),
    *of(
        "snclr_jax/models/patchnet.py",
        "tests/models/test_patchnet.py",
        (
            "patchnet has no residual on the first grid",
            'x = x + normalize(conv(x, fine, 3, f"fine_{i}"), f"fine_bn_{i}")',
            'x = normalize(conv(x, fine, 3, f"fine_{i}"), f"fine_bn_{i}")',
        ),
        (
            "patchnet's patches do not overlap alike",
            '                padding="SAME",\n',
            '                padding="SAME" if kernel == 3 else ((0, 4), (0, 4)),\n',
        ),
        (
            "patchnet keeps the local mean",
            'x = images - jnp.einsum("hi,...ijc,wj->...hwc", rows, images, columns)',
            'x = images + 0 * jnp.einsum("hi,...ijc,wj->...hwc", rows, '
            "images, columns)",
        ),
        (
            "patchnet's feature is the first grid's mean",
            '        x = normalize(x, "join_bn")\n        for',
            '        x = normalize(x, "join_bn")\n        return mean(x)\n        for',
        ),
    ),
]
