"""The sections of the page about neighbors, and the queue that they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snclr_jax import visualize
from snclr_jax.evaluate.memory.choices import Choices, Judged, hub_skew
from snclr_jax.report import page
from snclr_jax.report.measure import Shown
from snclr_jax.report.page import Drawing, Section
from snclr_jax.report.sections import Names, drawing, number, themed


def neighbors(shown: Shown, chosen: Choices, names: Names) -> Iterator[Section]:
    """The gallery, which of the chosen are right, and how the memory is used."""
    if not chosen.uses.sum():
        yield Section("Neighbors", "The queue of this checkpoint is still empty.")
        return
    named = shown.gallery.query_label is None
    of_class = " the end of the name of the image" if named else " class"
    yield Section(
        "Neighbors",
        "Training images and what the queue holds nearest to them, the first "
        f"{shown.gallery.row.shape[1]}: cosine similarity, weight w,{of_class} and age "
        "in steps. An earlier view of the same image is left out where the run leaves "
        "it out.",
        [
            drawing(
                "gallery",
                "training images with their nearest neighbors in the queue",
                *(visualize.gallery, *shown),
                class_names=names,
            )._replace(photos=True)
        ],
    )
    if chosen.judged is not None:
        yield _right_neighbors(chosen.judged, chosen.images, names)
    early, middle, late = np.percentile(chosen.chosen_ages, (10, 50, 90))
    yield Section(
        "Queue",
        f"Which rows {chosen.images:,} training images choose as their neighbors. Of "
        f"{len(chosen.uses):,} filled rows, {np.mean(chosen.uses > 0):.0%} are chosen "
        f"by any of them, the most chosen one {np.max(chosen.uses):,} times; the "
        f"skewness is {hub_skew(chosen.uses):.1f}, by chance "
        f"{np.mean(chosen.uses) ** -0.5:.1f}. A chosen row is "
        f"{np.mean(chosen.chosen_ages):.0f} steps old on average, any row "
        f"{np.mean(chosen.row_ages):.0f}; a tenth of the choices is younger than "
        f"{early:.0f}, half than {middle:.0f}, nine tenths than {late:.0f}.",
        [
            Drawing(
                "queue_coverage",
                "how often each row was chosen",
                themed(visualize.queue_coverage, chosen.uses),
            ),
            Drawing(
                "queue_age",
                "ages of chosen rows and of all rows",
                themed(visualize.queue_age, chosen.chosen_ages, chosen.row_ages),
            ),
        ],
    )


def _right_neighbors(judged: Judged, images: int, names: Names) -> Section:
    """Which neighbors have the class of their image, and what weights they get."""
    head = ["rank", "right", "w of right ones", "w of wrong ones"]
    ranks = zip(
        ["all", *range(1, len(judged.rank_purity) + 1)],
        [judged.purity, *judged.rank_purity],
        [judged.right_weight, *judged.rank_right_weight],
        [judged.wrong_weight, *judged.rank_wrong_weight],
        strict=True,
    )
    rows = [
        [str(rank), _percent(share), number(right), number(wrong)]
        for rank, share, right, wrong in ranks
    ]
    auc = (
        ""
        if np.isnan(judged.weight_auc)
        else " Of a right and a wrong neighbor of one image, the right one has the "
        f"larger weight in {judged.weight_auc:.1%} of all pairs (AUC; 50% where "
        "weights know nothing of classes)."
    )
    return Section(
        "Right neighbors",
        f"Of the neighbors of {images:,} training images, {_percent(judged.purity)} "
        f"have the class of the image.{auc}",
        [
            Drawing(
                "neighbor_ranks",
                "shares of right neighbors and their weights, by rank",
                themed(
                    visualize.neighbor_ranks,
                    judged.rank_purity,
                    judged.rank_right_weight,
                    judged.rank_wrong_weight,
                ),
            )
        ],
        html=page.table(head, rows) + _by_class(judged.class_purity, names),
    )


def _by_class(purity: np.ndarray, names: Names) -> str:
    """Returns a folded table; of a class that chose nothing, nothing is known."""
    rows = [
        [str(label) if names is None else names[label], _percent(float(purity[label]))]
        for label in np.argsort(purity).tolist()
        if np.isfinite(purity[label])
    ]
    table = page.table(["class", "right"], rows)
    return page.folded(f"{len(rows)} classes, the least right first", table)


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.1%}"
