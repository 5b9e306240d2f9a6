"""Features brought down to two dimensions."""

from __future__ import annotations

import importlib.util

import numpy as np
from threadpoolctl import threadpool_limits

METHODS = ("PCA", "t-SNE", "UMAP")
# Directions that t-SNE and UMAP start from: the rest is mostly noise, and costs time.
DIRECTIONS = 50
TSNE_STEPS = 500  # half of scikit-learn's; some thousand points change little after


def project(
    features: np.ndarray, method: str, *, seed: int
) -> tuple[np.ndarray, tuple[str, str]]:
    """Returns (n, 2) points of a map of features, and what its axes are.

    Args:
      features: (n, f), n >= 3; rows are brought to length 1, as kNN compares them.
      method: "PCA", "t-SNE" or, where umap-learn is installed, "UMAP".
      seed: of t-SNE and UMAP.

    Raises:
      ValueError: for fewer than 3 rows, an unknown method, or UMAP without umap-learn.
    """
    # Takes longer to load than JAX.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float32)
    if len(features) < 3:
        raise ValueError(f"a map of {len(features)} images says nothing; use 3 or more")
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(norm, 1e-12)
    if np.ptp(features, axis=0).max() < 1e-6:  # collapsed
        return np.zeros((len(features), 2)), ("", "all features are one point")
    pca = PCA(min(DIRECTIONS, *features.shape), random_state=0)
    reduced = pca.fit_transform(features)
    if method == "PCA":
        shares = np.append(pca.explained_variance_ratio_, 0)[:2]
        points = np.pad(reduced, ((0, 0), (0, 1)))[:, :2]
        first, second = (
            f"component {i} ({share:.0%} of the variance)"
            for i, share in enumerate(shares, 1)
        )
        return points, (first, second)
    axes = f"{method} 1", f"{method} 2"
    if method == "t-SNE":
        # Perplexity 30 is van der Maaten & Hinton's (2008); it needs some rows more.
        perplexity = min(30, (len(reduced) - 1) / 3)
        tsne = TSNE(
            perplexity=perplexity, init="pca", max_iter=TSNE_STEPS, random_state=seed
        )
        # Its threads wait for each other at every step: where they share their cores
        # with another program, four times as long as one takes alone.
        with threadpool_limits(1):
            return tsne.fit_transform(reduced), axes
    if method == "UMAP":
        if not can_umap():
            raise ValueError("UMAP needs umap-learn: pip install umap-learn")
        # Not among the requirements.
        from umap import UMAP  # pyrefly: ignore[missing-import]

        neighbors = min(15, len(reduced) - 1)
        # With a seed it has one thread anyway, and warns where that is not said.
        umap = UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1)
        return umap.fit_transform(reduced), axes
    raise ValueError(f"method {method!r} is unknown; use one of {METHODS}")


def can_umap() -> bool:
    """Returns whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None
