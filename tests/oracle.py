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
    return weights_and_jacobian(
        anchor, neighbors, temperature=temperature, gamma=gamma, threshold=threshold
    )[0]


def weights_and_jacobian(
    anchor, neighbors, *, temperature=1.0, gamma=1.0, threshold=None
):
    """One image's weights w_k, and dw_k / d anchor, (k, d)."""
    scores = np.array([np.exp(anchor @ c / temperature) for c in neighbors])
    share = scores / sum(scores)
    kept = np.ones(len(share)) if threshold is None else share > threshold
    mean = sum(p * c for p, c in zip(share, neighbors, strict=True))
    rows = [
        keep * p * (c - mean) / temperature / gamma
        for keep, p, c in zip(kept, share, neighbors, strict=True)
    ]
    return list(kept * share / gamma), rows


def loss(z, t, neighbors, weights, **settings):
    """Mean loss of one direction; `neighbors` and `weights` are lists per image."""
    return loss_and_gradients(z, t, neighbors, weights, **settings)[0]


def loss_and_gradients(z, t, neighbors, weights, *, tau, form, decoupled=False):
    """The mean loss of one direction, its gradient by z, and those by each weight."""
    batch, total, by_z, by_weights = len(z), 0.0, [], []
    for i in range(batch):
        candidates = []
        for j in range(batch):
            if not (decoupled and i == j):
                candidates += [t[j], *neighbors[j]]
        exponentials = [np.exp(z[i] @ c / tau) for c in candidates]
        denominator = sum(exponentials)
        pushed = sum(e * c for e, c in zip(exponentials, candidates, strict=True))
        pushed = pushed / denominator
        w, rows = np.array([1.0, *weights[i]]), np.array([t[i], *neighbors[i]])
        logits = rows @ z[i] / tau
        if form == "paper":
            numerator = sum(w * np.exp(logits))
            share = w * np.exp(logits) / numerator
            total += np.log(denominator) - np.log(numerator)
            by_z.append((pushed - share @ rows) / tau)
            by_weights.append(-np.exp(logits[1:]) / numerator)
        else:
            total += sum(w * (np.log(denominator) - logits))
            by_z.append((sum(w) * pushed - w @ rows) / tau)
            by_weights.append(np.log(denominator) - logits[1:])
    return total / batch, np.array(by_z) / batch, [each / batch for each in by_weights]


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """PyTorch's convolution: the same padding on both sides, then windows."""
    side = kernel.shape[0]
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows = (x.shape[0] - side) // stride + 1
    columns = (x.shape[1] - side) // stride + 1
    y = np.zeros((rows, columns, kernel.shape[-1]))
    for r in range(rows):
        for c in range(columns):
            top, left = r * stride, c * stride
            window = x[top : top + side, left : left + side]
            y[r, c] = np.einsum("hwi,hwio->o", window, kernel)
    return y
