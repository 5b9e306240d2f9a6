"""The digits encoder against a loop over positions."""

from __future__ import annotations

import jax
import numpy as np
from networks import arbitrary_variables, random_images, small_model
from oracle import convolve


def without_local_mean(image: np.ndarray, sigma: float) -> np.ndarray:
    """Subtracts a Gaussian mean, pixel by pixel, then divides by the contrast."""
    side = len(image)
    smooth = np.zeros_like(image)
    for r in range(side):
        for c in range(side):
            down = np.exp(-0.5 * ((np.arange(side) - r) / sigma) ** 2)
            right = np.exp(-0.5 * ((np.arange(side) - c) / sigma) ** 2)
            weight = np.outer(down / down.sum(), right / right.sum())
            smooth[r, c] = np.einsum("hw,hwk->k", weight, image)
    x = image - smooth
    return x / np.sqrt((x**2).mean() + 1e-3)


def test_patchnet_is_the_loop_over_positions() -> None:
    model = small_model("patchnet")
    variables = arbitrary_variables(model)
    features = jax.jit(model.encode)(*variables, random_images(batch=2))
    params, stats = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree["encoder"])
        for tree in variables
    )

    def normalize(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-5)
        return np.maximum(x * params[name]["scale"] + params[name]["bias"], 0)

    for image, feature in zip(random_images(batch=2), features, strict=True):
        x = without_local_mean(np.asarray(image, np.float64), 4.0)
        # Patches of 8 pixels, 4 apart: two pixels beyond every border.
        x = normalize(convolve(x, params["stem"]["kernel"], 4, pad=2), "stem_bn")
        y = convolve(x, params["fine_0"]["kernel"], 1, pad=1)
        x = x + normalize(y, "fine_bn_0")
        joined = np.zeros((2, 2, 16))
        for r in range(2):
            for c in range(2):
                square = x[2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
                joined[r, c] = square.reshape(-1) @ params["join"]["kernel"]
        x = normalize(joined, "join_bn")
        y = convolve(x, params["coarse_0"]["kernel"], 1, pad=1)
        x = x + normalize(y, "coarse_bn_0")
        np.testing.assert_allclose(feature, x.sum((0, 1)) / 4, rtol=1e-4, atol=1e-5)
