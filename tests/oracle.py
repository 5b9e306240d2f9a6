"""Slow numpy versions of the method, with loops, in float64."""

from __future__ import annotations

import numpy as np


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def find_rows(keys, queries, k, *, eligible):
    """Row numbers per query, most similar first, ties to the lowest row."""
    found = []
    for i, query in enumerate(queries):
        ranked = sorted(
            (-float(query @ key), r) for r, key in enumerate(keys) if eligible(i, r)
        )
        found.append([r for _, r in ranked[:k]])
    return found


def push(queue, keys, image_id, step, *, banks=1):
    """Writes one key after the other into `queue`, a dictionary of arrays."""
    rows, share = len(queue["image_id"]) // banks, len(keys) // banks
    for bank in range(banks):
        for j in range(share):
            row = bank * rows + (queue["cursor"] + j) % rows
            queue["keys"][row] = keys[bank * share + j]
            queue["image_id"][row] = image_id[bank * share + j]
            queue["pushed_at"][row] = step
    queue["cursor"] = (queue["cursor"] + share) % rows


def positiveness(anchor, neighbors, *, temperature=1.0, gamma=1.0, threshold=None):
    """Weights of one image's list of neighbors."""
    if len(neighbors) == 0:
        return []
    scores = [np.exp(anchor @ c / temperature) for c in neighbors]
    weights = [score / sum(scores) for score in scores]
    if threshold is not None:
        weights = [w if w > threshold else 0.0 for w in weights]
    return [w / gamma for w in weights]


def loss(z, t, neighbors, weights, *, tau, form, decoupled=False):
    """Mean loss of one direction; `neighbors` and `weights` are lists per image."""
    total = 0.0
    for i in range(len(z)):
        denominator = 0.0
        for j in range(len(z)):
            if decoupled and i == j:
                continue
            denominator += np.exp(z[i] @ t[j] / tau)
            for c in neighbors[j]:
                denominator += np.exp(z[i] @ c / tau)
        terms = [(1.0, z[i] @ t[i] / tau)]
        terms += [
            (w, z[i] @ c / tau) for w, c in zip(weights[i], neighbors[i], strict=True)
        ]
        if form == "paper":
            total += np.log(denominator) - np.log(sum(w * np.exp(s) for w, s in terms))
        else:
            total += sum(w * (np.log(denominator) - s) for w, s in terms)
    return total / len(z)
