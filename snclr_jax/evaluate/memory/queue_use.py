"""How an objective's memory is used: which rows images choose as their neighbors."""

from __future__ import annotations

import numpy as np

from snclr_jax.evaluate.memory.choices import known_and_right
from snclr_jax.step.objective import Found

# The share of rows that is asked for how much of all choices it takes.
MOST_USED = 0.01
# Which values of a metric are good, and between which ones it lies.
GOOD = {
    "queue_fill": "1; below while the queue fills",
    "queue_used": "higher; 0 to 1, by chance 1 - exp(-choices / rows)",
    "queue_most_used": "lower; 0.01 where all rows are used alike, 1 where few are",
    "queue_age": "as old as rows are on average: half of rows / rows pushed a step",
    "queue_purity": "higher; 0 to 1, by chance 1 / classes",
}


def queue_use(
    neighbors: Found,
    pushed_at: np.ndarray,
    *,
    image_id: np.ndarray,
    step: int,
    labels: np.ndarray | None,
) -> dict[str, float]:
    """Returns what the n K choices of n images say about the rows of a memory.

    Args:
      neighbors: (n, k) arrays of numpy, see `encode_random_views`.
      pushed_at: int32 (q,) of every row, -1 for one that was not written.
      image_id: int32 (n,) index of each image in the training set.
      step: updates made, `state.step`.
      labels: int (images of the training set,), below 0 where unknown, or None.

    Returns:
      Shares in [0, 1], and one age:
      queue_fill: of the rows, those that are filled.
      queue_used: of the filled rows, those that any image chose. Choices without any
        preference would use about 1 - exp(-n K / rows).
      queue_most_used: of all choices, those of the most used 1% of the filled rows; of
        at least one row.
      queue_age: mean age of the chosen rows, in steps.
      queue_purity: of the choices whose two labels are known, those of the same class.
      The fill alone where nothing was chosen, and no purity without known labels.
    """
    filled = pushed_at >= 0
    size = max(len(filled), 1)
    use = {"queue_fill": float(np.sum(filled) / size)}
    chosen = neighbors.valid
    if not chosen.any():
        return use
    uses = np.bincount(neighbors.row[chosen], minlength=size)[filled]
    most = max(1, round(MOST_USED * len(uses)))
    use["queue_used"] = float(np.mean(uses > 0))
    use["queue_most_used"] = float(np.sort(uses)[-most:].sum() / uses.sum())
    use["queue_age"] = float(np.mean(step - neighbors.pushed_at[chosen]))
    if labels is not None:
        known, right = known_and_right(neighbors, image_id, labels)
        if known.any():
            use["queue_purity"] = float(np.mean(right[known]))
    return use
