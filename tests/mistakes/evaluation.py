"""Mistakes in how an encoder is judged."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/data/masks.py",
        "tests/data/test_masks.py",
        (
            "labels are interpolated",
            "Resampling.NEAREST",
            "Resampling.BICUBIC",
        ),
        (
            "a mask is not cut to what the encoder sees",
            "first = (side - size) // 2",
            "first = 0",
        ),
        (
            "a mask is compared with the image before it is turned",
            "height, width = upright_shape(opened)",
            "width, height = opened.size",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/segmentation.py",
        "tests/evaluate/frozen/test_segmentation.py",
        (
            "pixels that do not count vote for their place",
            "votes[..., IGNORED] = 0",
            "votes[..., 0] += 0",
        ),
        (
            "places are cut at the first pixel, not in the middle",
            "(2 * np.arange(pixels) + 1) * places",
            "(2 * np.arange(pixels)) * places",
        ),
        (
            "labels that are only answered are in the mean",
            "found = np.flatnonzero(label)",
            "found = np.flatnonzero(label + answer)",
        ),
        (
            "pixels that do not count are scored",
            "counted = masks != IGNORED",
            "counted = masks <= IGNORED",
        ),
        (
            "the linear answer is the number of a class, not its label",
            'answers["linear"] = classes[',
            'answers["linear"] = np.arange(256)[',
        ),
    ),
    *of(
        "snclr_jax/evaluate/segment.py",
        "tests/evaluate/test_segment.py",
        (
            "places take the features of the first images",
            "position[inside] - rows[0]",
            "position[inside] * 0",
        ),
        (
            "all places are drawn in order",
            ".permutation(len(image))[:most]",
            ".permutation(most)",
        ),
        (
            "test images in parts are compared with the first masks",
            "truth = task.truth[rows]",
            "truth = task.truth[: len(rows)]",
        ),
        (
            "one place of dense features is the turned one",
            "of_places.reshape(features.shape[:3])",
            "of_places.reshape(features.shape[:3]).transpose(0, 2, 1)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/fewshot.py",
        "tests/evaluate/frozen/test_fewshot.py",
        (
            "few-shot ignores the seed",
            "seed=(seed, draw))",
            "seed=(0, draw))",
        ),
        (
            "few-shot standardizes by the drawn images",
            "features, labels = scaling(train_features[rows]), train_labels[rows]",
            "features, labels = "
            "measure_scaling(train_features[rows[0]])(train_features[rows"
            "]), train_labels[rows]",
        ),
        (
            "few-shot draws the same images each time",
            "seed=(seed, draw))",
            "seed=(seed, 0))",
        ),
    ),
    *of(
        "snclr_jax/evaluate/features.py",
        "tests/evaluate/test_features.py",
        (
            "evaluation drops the last images",
            "range(0, max(map(len, every)), height)",
            "range(0, max(map(len, every)) - height + 1, height)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/features.py",
        "tests/step/test_one_definition.py",
        (
            "features come as the processes read them",
            "whole[part.start : part.stop] = values[start : start + len(part)]",
            "whole[part.start : part.stop] = values[: len(part)]",
        ),
    ),
    *of(
        "snclr_jax/evaluate/memory/choices.py",
        "tests/evaluate/memory/test_choices.py",
        (
            "weights that are equal count as wrong",
            "np.sum((higher[compared] + 1) / 2)",
            "np.sum(higher[compared] > 0)",
        ),
        (
            "weights are compared with those of unknown classes",
            "compared = right[part, :, None] & wrong[part, None, :]",
            "compared = right[part, :, None] & ~right[part, None, :]",
        ),
        (
            "a neighbor of unknown class is wrong",
            "known &= (own >= 0) & (theirs >= 0)",
            "known &= own >= 0",
        ),
        (
            "purity by the class of the neighbor",
            "np.bincount(own[np.nonzero(each)[0], 0], minlength=classes)",
            "np.bincount(theirs[each], minlength=classes)",
        ),
        (
            "rows that were not written are no hubs",
            "minlength=len(filled))[filled]",
            "minlength=len(filled))",
        ),
        (
            "hubness by the variance",
            "deviation**3",
            "deviation**2",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/knn.py",
        "tests/evaluate/frozen/test_knn.py",
        (
            "kNN ignores the temperature",
            "np.exp(behind / of) for of in temperature",
            "np.exp(behind / 0.07) for of in temperature",
        ),
        (
            "kNN votes are unweighted",
            "of: np.exp(behind / of) for",
            "of: np.ones_like(behind) for",
        ),
        (
            "kNN searches one neighbor too few",
            "        max(k),\n",
            "        max(max(k) - 1, 1),\n",
        ),
        (
            "an image is its own neighbor",
            "leave_one_out=test_features is None",
            "leave_one_out=False",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/retrieval.py",
        "tests/evaluate/frozen/test_retrieval.py",
        (
            "recall@k looks at one more",
            "hits[:, k - 1] > 0",
            "hits[:, min(k, hits.shape[1] - 1)] > 0",
        ),
        (
            "precision is counted from rank 0",
            "hits / (row + 1)",
            "hits / jnp.maximum(row, 1)",
        ),
        (
            "a query finds itself",
            "absent = (gallery_labels == NO_IMAGE) | (row == itself[:, None])",
            "absent = (gallery_labels == NO_IMAGE) | (row < 0)",
        ),
        (
            "queries without a class count as misses",
            "    answered = relevant > 0\n",
            "    answered = relevant >= 0\n",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/linear.py",
        "tests/evaluate/frozen/test_linear.py",
        (
            "candidates are fitted with the held-back images",
            "rows, judges = np.flatnonzero(~held), np.flatnonzero(held)",
            "rows, judges = np.arange(len(held)), np.flatnonzero(held)",
        ),
        (
            "candidates are judged on what they were fitted to",
            "rows, judges = np.flatnonzero(~held), np.flatnonzero(held)",
            "rows, judges = np.flatnonzero(~held), np.flatnonzero(~held)",
        ),
        (
            "the best is not fitted again",
            "np.arange(len(train_labels)), None",
            "np.flatnonzero(~held), None",
        ),
        (
            "test features are standardized by themselves",
            "        train.scaling[layer],\n"
            "        mesh,\n"
            "    )\n"
            "    if np.isnan(top1)",
            "        measure_scaling(tested[layer]),\n"
            "        mesh,\n"
            "    )\n"
            "    if np.isnan(top1)",
        ),
        (
            "the held-back part ignores the seed",
            "held = held_back(train_labels, holdback, seed, group)",
            "held = held_back(train_labels, holdback, 0, group)",
        ),
        (
            "groups are divided by the held-back part",
            "held = held_back(train_labels, holdback, seed, group)",
            "held = held_back(train_labels, holdback, seed, None)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/classifier.py",
        "tests/evaluate/frozen/test_linear.py",
        (
            "top-5 counts six",
            "jnp.sum((rank < 5) & counted, axis=1)",
            "jnp.sum((rank < 6) & counted, axis=1)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/quality.py",
        "tests/evaluate/test_quality.py",
        (
            "alignment is not squared",
            "jnp.mean(apart**alpha)",
            "jnp.mean(apart)",
        ),
        (
            "uniformity counts an image with itself",
            "jnp.sum(jnp.where(other, kernel, 0), axis=1)",
            "jnp.sum(kernel, axis=1)",
        ),
        (
            "an image is its own neighbor in the purity",
            "leave_one_out=True)",
            "leave_one_out=False)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/intervals.py",
        "tests/evaluate/frozen/test_fewshot.py",
        (
            "the interval is a deviation",
            "np.std(values, ddof=1) / np.sqrt(count)",
            "np.std(values, ddof=1)",
        ),
    ),
]
