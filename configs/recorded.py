"""What recipes scored with soft neighbors and without: what a run may expect.

Means of kNN on test images in percent, with half of their 95% intervals, by
`python benchmarks/neighbors.py`; benchmarks/RESULTS.md has hardware and date.
"""

from __future__ import annotations

from typing import NamedTuple


class Recorded(NamedTuple):
    """Scores of a recipe in some variants.

    Attributes:
      recipe: the name of a file of configs/.
      variants: as they follow the recipe's name.
      images: the set.
      neighbors: with the recipe's neighbors.
      none: with K = 0.
      seeds: of either.
    """

    recipe: str
    variants: str
    images: str
    neighbors: str
    none: str
    seeds: int


RECORDED = (Recorded("digits", "", "the digits", "0.0 ± 0.0", "0.0 ± 0.0", 5),)
