"""How an objective's memory is used: which rows images choose as their neighbors."""

from __future__ import annotations

import numpy as np

from snclr_jax.evaluate.memory.choices import Choices

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


def queue_use(found: Choices, rows: int) -> dict[str, float]:
    """Returns what the choices of images say about the rows of a memory.

    Args:
      found: the choices.
      rows: of the memory, filled or not.

    Returns:
      Shares in [0, 1], and one age:
      queue_fill: of the rows, those that are filled.
      queue_used: of the filled rows, those that any image chose. m choices without any
        preference would use about 1 - exp(-m / rows).
      queue_most_used: of all choices, those of the most used 1% of the filled rows; of
        at least one row.
      queue_age: mean age of the chosen rows, in steps.
      queue_purity: of the choices whose two labels are known, those of the same class.
      The fill alone where nothing was chosen, and no purity without known labels.
    """
    uses = found.uses
    use = {"queue_fill": len(uses) / max(rows, 1)}
    if not uses.any():
        return use
    most = max(1, round(MOST_USED * len(uses)))
    use["queue_used"] = float(np.mean(uses > 0))
    use["queue_most_used"] = float(np.sort(uses)[-most:].sum() / uses.sum())
    use["queue_age"] = float(np.mean(found.chosen_ages))
    if found.judged is not None:
        use["queue_purity"] = found.judged.purity
    return use
