"""Mistakes in what is drawn: by which seed, how often together, in which range."""

from __future__ import annotations

from mistakes.mistake import of

SEED = "tests/step/test_seed.py"
START = "tests/models/test_layers.py"

MISTAKES = [
    *of(
        "snclr_jax/step/state.py",
        SEED,
        (
            "every seed starts from the same weights",
            "jax.random.key(config.seed)",
            "jax.random.key(0)",
        ),
    ),
    *of(
        "snclr_jax/step/views.py",
        SEED,
        (
            "every seed sees the same views",
            "image_keys(config.seed, step,",
            "image_keys(0, step,",
        ),
    ),
    *of(
        "snclr_jax/step/forward.py",
        SEED,
        (
            "every seed drops the same paths",
            "image_keys(self.config.seed, step,",
            "image_keys(0, step,",
        ),
    ),
    *of(
        "snclr_jax/step/augment.py",
        "tests/step/test_augment.py",
        (
            "the gray views are solarized",
            "solarize < settings.solarize",
            "grayscale < settings.solarize",
        ),
        (
            "narrow blurs come more often than wide ones",
            "apply < settings.blur",
            "sigma < settings.blur",
        ),
        (
            "brightness comes first where colors change",
            "apply < settings.jitter",
            "rank[0] < settings.jitter",
        ),
    ),
    *of(
        "snclr_jax/models/heads.py",
        START,
        (
            "heads start normal",
            'variance_scaling(1 / 3, "fan_in", "uniform")',
            'variance_scaling(1.0, "fan_in", "normal")',
        ),
    ),
    *of(
        "snclr_jax/models/layers.py",
        START,
        (
            "convolutions start by their inputs",
            'variance_scaling(2.0, "fan_out", "normal")',
            'variance_scaling(2.0, "fan_in", "normal")',
        ),
        (
            "convolutions start truncated",
            'variance_scaling(2.0, "fan_out", "normal")',
            'variance_scaling(2.0, "fan_out", "truncated_normal")',
        ),
    ),
    *of(
        "snclr_jax/models/vit.py",
        START,
        (
            "a ViT starts from Flax's default",
            "nn.initializers.xavier_uniform()",
            "nn.initializers.lecun_normal()",
        ),
        (
            "a class token starts as large as a patch",
            "nn.initializers.normal(1e-6)",
            "nn.initializers.normal(1.0)",
        ),
    ),
]
