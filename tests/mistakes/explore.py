"""Mistakes in what is said of a set of images."""

from __future__ import annotations

from mistakes.mistake import of

ARRAYS, WHOLE = "tests/explore/test_arrays.py", "tests/explore/test_explore.py"

MISTAKES = [
    *of(
        "snclr_jax/explore/duplicates.py",
        ARRAYS,
        (
            "groups end where the list of neighbors does",
            "beyond = np.flatnonzero(alike[:, -1])",
            "beyond = np.flatnonzero(alike[:, -1] < 0)",
        ),
        (
            "a threshold of 1 leaves out equal features",
            "threshold = min(threshold, EQUAL)",
            "threshold = min(threshold, 1.0000001)",
        ),
        (
            "copies alone suggest the threshold",
            "max(np.quantile(to_copy, ALIKE), of_others)",
            "np.quantile(to_copy, ALIKE)",
        ),
    ),
    *of(
        "snclr_jax/explore/clusters.py",
        ARRAYS,
        (
            "the smallest group comes first",
            "np.lexsort((first, -sizes))",
            "np.lexsort((first, sizes))",
        ),
        (
            "groups keep the numbers that they were given",
            "return np.argsort(order)[label], sizes",
            "return order[label], sizes",
        ),
    ),
    *of(
        "snclr_jax/explore/subset.py",
        ARRAYS,
        (
            "an image is chosen twice",
            "    similarity[chosen[0]] = np.inf\n",
            "",
        ),
        (
            "only the last choice counts",
            "np.maximum(similarity, unit @ unit[chosen[-1]], out=similarity)",
            "similarity = unit @ unit[chosen[-1]]",
        ),
    ),
    *of(
        "snclr_jax/explore/images.py",
        WHOLE,
        (
            "an image that stands for a bad one is kept",
            "itself = split.shown(every) == every",
            "itself = every == every",
        ),
        (
            "features of other images are taken from the file",
            "any(about[name] != fact for name, fact in facts.items())",
            "any(name not in about for name in facts)",
        ),
    ),
]
