"""What features are like, with and without labels."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import AXIS, over_batch, replicated
from snclr_jax.evaluate.frozen.checks import check_features, check_positive
from snclr_jax.evaluate.frozen.neighbors import nearest, place_unit_rows
from snclr_jax.step.forward import feature_std
from snclr_jax.step.objective import unit

# Pairs of rows that a device compares at a time.
PAIRS = 2**22
# Rows whose share of a Gram matrix is added up at a time, on the host.
GRAM_ROWS = 2**12
# RankMe's epsilon, for float32 features.
EPSILON = 1e-7
# Which values of a metric are good, and between which ones it lies.
GOOD = {
    "alignment": "lower; 0 to 4, 2 where views are unrelated",
    "uniformity": "lower; 0 where features are one point, about -4 where even",
    "effective_rank": "higher; 1 to the number of features",
    "feature_std": "near 1; 0 where features are one point",
    "neighbor_purity": "higher; 0 to 1, by chance 1 / classes",
}


def quality(
    features: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    k: int,
    mesh: Mesh,
    labels: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns everything of this file about n images, by name.

    Args:
      features: (n, f) of whole images; uniformity, rank, deviation and purity are
        theirs.
      first, second: (n, f) of two random views of the same images; alignment is theirs.
      k: neighbors whose class is compared.
      mesh: the devices.
      labels: int (n,), below 0 where unknown; None leaves the purity out.

    Returns:
      alignment, uniformity, effective_rank and feature_std; neighbor_purity where there
      are labels.

    Raises:
      ValueError: as the functions of this file.
    """
    features = check_features("whole-view", features)
    metrics = {
        "alignment": alignment(first, second),
        "uniformity": uniformity(features, mesh=mesh),
        "effective_rank": effective_rank(features),
        # 1 where unit rows fill the sphere, 0 where they are one point.
        "feature_std": float(feature_std(unit(jnp.asarray(features)))),
    }
    if labels is not None:
        metrics["neighbor_purity"] = neighbor_purity(features, labels, k, mesh=mesh)
    return metrics


def alignment(first: ArrayLike, second: ArrayLike, *, alpha: float = 2.0) -> float:
    """Returns how far two views of an image lie apart on the unit sphere.

        mean_i || x_i / |x_i| - y_i / |y_i| ||^alpha

    Args:
      first: (n, f) features x of one random view.
      second: (n, f) features y of another view of the same images.
      alpha: power of the distance, > 0.

    Returns:
      A number in [0, 2^alpha]; with alpha 2, unrelated views are 2 apart.

    Raises:
      ValueError: for arrays of different shapes or that are not finite.

    Example:
      >>> round(alignment([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [1.0, 0.0]]), 3)
      1.0

    Wang & Isola, 2020, "Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere", section 4.1, with its alpha.
    """
    first = check_features("first-view", first)
    second = check_features("second-view", second)
    if first.shape != second.shape:
        raise ValueError(
            f"first-view features have shape {first.shape}, second-view features "
            f"{second.shape}; use two views of the same images"
        )
    check_positive("alpha", [alpha])
    # Not 2 - 2 cos: views that agree would drown in its rounding.
    first, second = jnp.asarray(first), jnp.asarray(second)
    apart = jnp.linalg.norm(unit(first) - unit(second), axis=1)
    return float(jnp.mean(apart**alpha))


def uniformity(features: ArrayLike, *, mesh: Mesh, t: float = 2.0) -> float:
    """Returns how evenly rows cover the unit sphere; lower is more even.

        log mean_{i != j} exp(-t ||x_i / |x_i| - x_j / |x_j|||^2)

    Each device compares its share of the rows with all of them, `PAIRS` at a time.

    Args:
      features: (n, f), at least two rows.
      mesh: the devices.
      t: of the Gaussian kernel, > 0.

    Returns:
      A number in [-4 t, 0]: 0 where all rows are one, near -2 t on the sphere of many
      dimensions.

    Raises:
      ValueError: for fewer than two rows, or rows that are not finite.

    Wang & Isola, 2020 (see `alignment`), section 4.1, with its t. Their sum over i = j
    is left out: it is 1 / n, whatever the features.
    """
    features = check_features("whole-view", features)
    check_positive("t", [t])
    rows = len(features)
    if rows < 2:
        raise ValueError("uniformity compares pairs of images, and there is 1; use 2")
    share = -(-rows // mesh.size)
    block = min(share, max(1, PAIRS // rows))
    share = -(-share // block) * block
    sums = _kernel_sums(
        place_unit_rows(features, share * mesh.size, over_batch(mesh)),
        place_unit_rows(features, rows, replicated(mesh)),
        t,
        block=block,
        mesh=mesh,
    )
    # Hundreds of millions of pairs: float32 sums of a row each, float64 over rows.
    total = np.sum(np.asarray(sums)[:rows], dtype=np.float64)
    return float(np.log(total / (rows * (rows - 1.0))))


@partial(jax.jit, static_argnames=("block", "mesh"))
def _kernel_sums(
    spread: Array, rows: Array, t: float, *, block: int, mesh: Mesh
) -> Array:
    """Returns sum_{j != i} exp(-t ||x_i - x_j||^2) for every row i of `spread`.

    Args:
      spread: (r, f) the rows, split over the devices; the last ones only fill up.
      rows: (n, f) the same on every device.
      t: of the kernel.
      block: divides the rows of a device.
      mesh: the devices.
    """

    def on_each_device(own: Array, rows: Array, t: Array) -> Array:
        first = jax.lax.axis_index(AXIS) * own.shape[0]

        def of_block(start: Array) -> Array:
            part = jax.lax.dynamic_slice_in_dim(own, start, block)
            cosine = jnp.matmul(part, rows.T, precision=jax.lax.Precision.HIGHEST)
            number = first + start + jnp.arange(block)
            other = number[:, None] != jnp.arange(len(rows))
            kernel = jnp.exp(2 * t * (cosine - 1))
            return jnp.sum(jnp.where(other, kernel, 0), axis=1)

        starts = jnp.arange(0, own.shape[0], block)
        return jax.lax.map(of_block, starts).reshape(-1)

    sums = jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(P(AXIS), P(), P()),
        out_specs=P(AXIS),
    )(spread, rows, jnp.float32(t))
    return jax.lax.with_sharding_constraint(sums, replicated(mesh))


def effective_rank(features: ArrayLike) -> float:
    """Returns RankMe: how many directions the features use, counted smoothly.

        exp(-sum_k p_k log p_k),  p_k = sigma_k / sum_j sigma_j + 1e-7

    sigma are the singular values of the (n, f) matrix, whose mean is not removed. They
    are the roots of the eigenvalues of its smaller Gram matrix, which takes a fifth of
    the time of a singular value decomposition. Squaring doubles what rounding does:
    in float64 the smallest ones are right to 1e-8 of the largest, below RankMe's
    epsilon; in float32 it would be 3e-4, and thousands of those make up a rank.

    Args:
      features: (n, f); the paper takes 25,600 rows.

    Returns:
      A number in [1, min(n, f)], but for epsilon; 0 where all features are 0.

    Raises:
      ValueError: for features that are not finite.

    Example:
      >>> round(effective_rank(np.eye(4)), 4)
      4.0

    Garrido et al., 2023, "RankMe: Assessing the downstream performance of pretrained
    self-supervised representations by their rank", equations 1 and 2.
    """
    features = check_features("whole-view", features)
    rows, width = features.shape
    features = features if rows >= width else features.T
    gram = np.zeros((features.shape[1],) * 2)
    for start in range(0, len(features), GRAM_ROWS):
        part = features[start : start + GRAM_ROWS].astype(np.float64)
        gram += part.T @ part
    sigma = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    if not sigma.any():
        return 0.0
    share = sigma / sigma.sum() + EPSILON
    return float(np.exp(-np.sum(share * np.log(share))))


def neighbor_purity(
    features: ArrayLike, labels: np.ndarray, k: int, *, mesh: Mesh
) -> float:
    """Returns how many of an image's k nearest other images have its class.

    Args:
      features: (n, f), compared by their cosine.
      labels: int (n,); images whose label is below 0 are left out.
      k: neighbors of each image.
      mesh: the devices.

    Returns:
      A share in [0, 1]. Features that know nothing of classes reach the chance that two
      images share one: 0.1 for ten equally large classes.

    Raises:
      ValueError: where labels do not fit the features, or fewer than two are known.

    Example:
      >>> from snclr_jax.devices.mesh import make_mesh
      >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.3, 1.0]])
      >>> neighbor_purity(rows, np.array([0, 0, 1, 0]), 1, mesh=make_mesh())
      0.5
    """
    features, labels = check_features("whole-view", features), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels have shape {labels.shape} for {len(features)} features; use one "
            f"label per row, shape ({len(features)},)"
        )
    known = labels >= 0
    if np.sum(known) < 2:
        raise ValueError(
            f"{np.sum(known)} of {len(labels)} labels are known; use labels=None"
        )
    features, labels = features[known], labels[known]
    _, row = nearest(features, features, k, mesh=mesh, leave_one_out=True)
    return float(np.mean(labels[row] == labels[:, None]))
