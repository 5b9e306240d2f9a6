"""What images choose in an objective's memory: how right, how old, how unevenly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from snclr_jax.data import Split
from snclr_jax.evaluate.memory.gallery import search_memory
from snclr_jax.evaluate.memory.networks import Networks, Search
from snclr_jax.step.objective import Found
from snclr_jax.step.state import TrainState

# At most so many training images are looked at, and so many batches of the run.
IMAGES, BATCHES = 2_000, 16
# Pairs of neighbors that are compared at a time.
PAIRS = 2**22
# Which values of a number are good, and in which range it lies.
GOOD = {
    "queue_hub_skew": "lower; by chance 1 / sqrt(choices / rows), above where few rows "
    "are chosen by many",
    "queue_purity_rank1": "higher; 0 to 1, by chance 1 / classes",
    "queue_weight_auc": "higher; 0 to 1, 0.5 where weights know nothing of classes",
    "queue_right_weight": "above queue_wrong_weight",
    "queue_wrong_weight": "below queue_right_weight",
}


class Judged(NamedTuple):
    """Choices whose two labels are known, right where both are of one class.

    A mean over nothing is nan.

    Attributes:
      purity: share of the right ones.
      rank_purity: (k,) the same by rank, the most similar neighbor first.
      class_purity: (classes,) the same by the label of the image that chooses.
      right_weight, wrong_weight: mean weight of the right and of the wrong ones.
      rank_right_weight, rank_wrong_weight: (k,) the same by rank.
      weight_auc: see `weight_auc`.
    """

    purity: float
    rank_purity: np.ndarray
    class_purity: np.ndarray
    right_weight: float
    wrong_weight: float
    rank_right_weight: np.ndarray
    rank_wrong_weight: np.ndarray
    weight_auc: float


class Choices(NamedTuple):
    """What n images choose.

    Attributes:
      images: n.
      uses: int (rows,), how often each filled row is chosen (its k-occurrence).
      row_ages: int (rows,), steps since each filled row was pushed.
      chosen_ages: int (m,), the same of every choice.
      judged: by labels, None where no choice has two known ones.
    """

    images: int
    uses: np.ndarray
    row_ages: np.ndarray
    chosen_ages: np.ndarray
    judged: Judged | None

    def numbers(self) -> dict[str, float]:
        """Returns those of `GOOD` that exist: of labels only where there are any."""
        numbers = {}
        if self.uses.any():
            numbers["queue_hub_skew"] = hub_skew(self.uses)
        if self.judged is not None:
            numbers |= {
                "queue_purity_rank1": float(self.judged.rank_purity[0]),
                "queue_weight_auc": self.judged.weight_auc,
                "queue_right_weight": self.judged.right_weight,
                "queue_wrong_weight": self.judged.wrong_weight,
            }
        return {name: value for name, value in numbers.items() if np.isfinite(value)}


def choices_of_run(
    search: Search, state: TrainState | Networks, train: Split
) -> Choices:
    """Returns the `Choices` of some training images, at equal distances.

    They are `IMAGES`, `BATCHES` batches of them, or all, whichever is fewest.

    Args:
      search: of the run.
      state: of the run, or `open_networks` of a checkpoint.
      train: the training images.

    Raises:
      ValueError: as `search_memory`.
    """
    in_batches = BATCHES * search.forward.config.batch_size
    image_id = train.thinned(min(IMAGES, in_batches))
    return choices(
        search_memory(search, state, train, image_id),
        np.asarray(search.objective.pushed_at(state.objective)),
        image_id=image_id,
        step=int(state.step),
        labels=train.labels,
    )


def choices(
    neighbors: Found,
    pushed_at: np.ndarray,
    *,
    image_id: np.ndarray,
    step: int,
    labels: np.ndarray | None,
) -> Choices:
    """Returns what n images choose of the rows of a memory.

    Args:
      neighbors: (n, k) arrays of numpy, see `search_memory`.
      pushed_at: int32 (q,) of every row, -1 for one that was not written.
      image_id: int32 (n,) index of each image in the training set.
      step: updates made, `state.step`.
      labels: int (images of the training set,), below 0 where unknown, or None.
    """
    filled, valid = pushed_at >= 0, neighbors.valid
    return Choices(
        images=len(image_id),
        uses=np.bincount(neighbors.row[valid], minlength=len(filled))[filled],
        row_ages=step - pushed_at[filled],
        chosen_ages=step - np.asarray(neighbors.pushed_at)[valid],
        judged=None if labels is None else _judged(neighbors, image_id, labels),
    )


def hub_skew(uses: np.ndarray) -> float:
    """Returns the hubness of rows: the skewness of how often each is chosen.

        S = mean_r (N_r - mean N)^3 / (std N)^3

    Few rows that are among the neighbors of many images make it large. Choices at
    random have about the skewness of a Poisson distribution, 1 / sqrt(mean N).

    Args:
      uses: int (rows,), N_r, the k-occurrence of each row.

    Returns:
      A number; 0 where all rows are chosen alike.

    Example:
      >>> hub_skew(np.array([0, 0, 0, 0, 5]))  # mean 1, deviation 2, third moment 12
      1.5

    Radovanovic, Nanopoulos & Ivanovic, 2010, "Hubs in Space: Popular Nearest Neighbors
    in High-Dimensional Data", equation 1.
    """
    apart = uses - np.mean(uses)
    deviation = np.sqrt(np.mean(apart**2))
    return float(np.mean(apart**3) / deviation**3) if deviation else 0.0


def weight_auc(weight: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    """Returns how well weights tell right neighbors of an image from wrong ones.

        A = sum_i U_i / sum_i pairs_i,
        U_i = sum_{j right, l wrong of image i} [w_ij > w_il] + [w_ij = w_il] / 2

    Mann & Whitney's U of each image, so the area under the ROC curve of an image
    (Hanley & McNeil, 1982), averaged over images by their pairs. Weights are shares of
    one image, and those of different images are not compared.

    Args:
      weight: (n, k).
      right, wrong: bool (n, k), disjoint; in neither, a neighbor is left out.

    Returns:
      A share in [0, 1]; nan where no image has neighbors of both kinds.

    Example:
      >>> weight = np.array([[0.5, 0.25, 0.25], [0.2, 0.8, 0.0]])
      >>> right = np.array([[True, True, False], [True, False, False]])
      >>> wrong = np.array([[False, False, True], [False, True, False]])
      >>> weight_auc(weight, right, wrong)  # above, a tie, and below
      0.5
    """
    images, k = weight.shape
    at_once = max(1, PAIRS // k**2)
    above = pairs = 0.0
    for start in range(0, images, at_once):
        part = slice(start, start + at_once)
        higher = np.sign(weight[part, :, None] - weight[part, None, :])
        compared = right[part, :, None] & wrong[part, None, :]
        above += np.sum((higher[compared] + 1) / 2)
        pairs += np.sum(compared)
    return float(above / pairs) if pairs else float("nan")


def _judged(
    neighbors: Found, image_id: np.ndarray, labels: np.ndarray
) -> Judged | None:
    own, theirs = labels[image_id][:, None], labels[neighbors.image_id]
    known = neighbors.valid & (neighbors.image_id >= 0)
    known &= (own >= 0) & (theirs >= 0)
    if not known.any():
        return None
    right, wrong = known & (own == theirs), known & (own != theirs)
    classes = np.max(labels) + 1
    weight = np.asarray(neighbors.weight)
    by_class = (
        np.bincount(own[np.nonzero(each)[0], 0], minlength=classes)
        for each in (right, known)
    )
    return Judged(
        purity=float(_mean(right, known)),
        rank_purity=_mean(right, known, axis=0),
        class_purity=_share(*by_class),
        right_weight=float(_mean(weight, right)),
        wrong_weight=float(_mean(weight, wrong)),
        rank_right_weight=_mean(weight, right, axis=0),
        rank_wrong_weight=_mean(weight, wrong, axis=0),
        weight_auc=weight_auc(weight, right, wrong),
    )


def _mean(values: np.ndarray, of: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns the mean over those that a mask names, nan over none."""
    return _share(np.sum(values, axis=axis, where=of), np.sum(of, axis=axis))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
