"""Mistakes in the random views."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/step/augment.py",
        "tests/step/test_augment.py",
        (
            "solarize before blur",
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n"
            "    if settings.solarize > 0:\n"
            "        bright = pixels >= _SOLARIZE_THRESHOLD\n"
            "        invert = bright & (solarize < settings.solarize)\n"
            "        pixels = jnp.where(invert, 1.0 - pixels, pixels)\n",
            "    if settings.solarize > 0:\n"
            "        bright = pixels >= _SOLARIZE_THRESHOLD\n"
            "        invert = bright & (solarize < settings.solarize)\n"
            "        pixels = jnp.where(invert, 1.0 - pixels, pixels)\n"
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n",
        ),
        (
            "grayscale before jitter",
            "    if settings.jitter > 0:\n"
            "        pixels = _jitter(jitter, pixels, settings)\n"
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n",
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n"
            "    if settings.jitter > 0:\n"
            "        pixels = _jitter(jitter, pixels, settings)\n",
        ),
        (
            "blur before jitter",
            "    if settings.jitter > 0:\n"
            "        pixels = _jitter(jitter, pixels, settings)\n"
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n"
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n",
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n"
            "    if settings.jitter > 0:\n"
            "        pixels = _jitter(jitter, pixels, settings)\n"
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n",
        ),
        (
            "solarize before grayscale",
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n"
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n"
            "    if settings.solarize > 0:\n"
            "        bright = pixels >= _SOLARIZE_THRESHOLD\n"
            "        invert = bright & (solarize < settings.solarize)\n"
            "        pixels = jnp.where(invert, 1.0 - pixels, pixels)\n",
            "    if settings.solarize > 0:\n"
            "        bright = pixels >= _SOLARIZE_THRESHOLD\n"
            "        invert = bright & (solarize < settings.solarize)\n"
            "        pixels = jnp.where(invert, 1.0 - pixels, pixels)\n"
            "    if settings.grayscale > 0:\n"
            "        drop = grayscale < settings.grayscale\n"
            "        pixels = jnp.where(drop, _gray(pixels), pixels)\n"
            "    if settings.blur > 0:\n"
            "        pixels = _blur(blur, pixels, settings)\n",
        ),
        (
            "the image is flipped before the crop",
            "    return _separable(rows, pixels, jnp.where(flip, "
            "columns[::-1], columns))",
            "    return _separable(rows, pixels, jnp.where(flip, "
            "columns[:, ::-1], columns))",
        ),
        (
            "solarize inverts dark pixels",
            "bright = pixels >= _SOLARIZE_THRESHOLD",
            "bright = pixels < _SOLARIZE_THRESHOLD",
        ),
        (
            "luma is the mean",
            "_LUMA = (0.299, 0.587, 0.114)",
            "_LUMA = (1 / 3, 1 / 3, 1 / 3)",
        ),
        (
            "the area of crops ignores its lower end",
            "area = height * width * _between(area, *settings.crop_scale)",
            "area = height * width * _between(area, 0.0, settings.crop_scale[1])",
        ),
    ),
    *of(
        "snclr_jax/step/views.py",
        "tests/step/test_views.py",
        (
            "channels are not normalized",
            "return normalize(view, config.data.mean, config.data.std)",
            "return view",
        ),
        (
            "every view has the same key",
            "keys = image_keys(config.seed, step, number + 1, images.shape[0])",
            "keys = image_keys(config.seed, step, 1, images.shape[0])",
        ),
        (
            "every image has the same key",
            "jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))",
            "jax.vmap(jax.random.fold_in, (None, 0))(key, 0 * jnp.arange(count))",
        ),
    ),
    *of(
        "snclr_jax/step/augment.py",
        "tests/step/test_views.py",
        (
            "the second global view has the settings of the first",
            "pair[i % 2]",
            "pair[0]",
        ),
    ),
]
