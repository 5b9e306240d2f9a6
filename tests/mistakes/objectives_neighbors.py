"""Mistakes in SoftDCL, MemoryDCL, NNCLR, BYOL, All4One, CACR with a target network."""

from __future__ import annotations

from mistakes.mistake import of

EVERY = "tests/objectives/test_every_objective.py"
MISTAKES = [
    *of(
        "snclr_jax/objectives/soft_dcl.py",
        EVERY,
        (
            "neighbors are shown with equal weights",
            "Found(*pull.neighbors[1:], pull.weights[0])",
            "Found(*pull.neighbors[1:], jnp.ones_like(pull.weights[0]))",
        ),
        (
            "neighbors are shown with the last view's weights",
            "Found(*pull.neighbors[1:], pull.weights[0])",
            "Found(*pull.neighbors[1:], pull.weights[-1])",
        ),
        (
            "the first view searches",
            "mean_row(seen.target)",
            "seen.target[0]",
        ),
        (
            "neighbors push as one positive",
            "(1 + weight * pull.total[view]) * others",
            "others",
        ),
        (
            "the other view's neighbors pull",
            "view, _ = ordered_pairs(seen)",
            "_, view = ordered_pairs(seen)",
        ),
        (
            "neighbors pull without tau",
            "logits = found.products / settings.temperature",
            "logits = found.products",
        ),
        (
            "neighbors have no warm-up",
            "weight = self.weight_now(now)",
            "weight = self.neighbor_weight",
        ),
    ),
    *of(
        "snclr_jax/objectives/memory_dcl.py",
        EVERY,
        (
            "neighbors without a row behind them weigh without end",
            "chosen & jnp.isfinite(last)",
            "chosen",
        ),
        (
            "single views search the memory",
            "rows = mean_row(seen.target)",
            "rows = seen.target[0]",
        ),
        (
            "neighbors are compared with the last of themselves",
            "elect(ranked.similarity, rank)",
            "elect(local.similarity, k)",
        ),
        (
            "what is no neighbor has a weight",
            "chosen & jnp.isfinite(last)",
            "jnp.isfinite(last)",
        ),
        (
            "each device has a mean of its own",
            "total = jax.lax.psum(jnp.sum(nearer), AXIS)",
            "total = jnp.sum(nearer)",
        ),
        (
            "weights add up to 1 in all images",
            "nearer * len(image_id) / jnp",
            "nearer / jnp",
        ),
        (
            "a moving mean is shorter than 1",
            "return unit(moving_mean(",
            "return (moving_mean(",
        ),
        (
            "the memory forgets what it had of an image",
            "rows = self.asks(state, seen, now)",
            "rows = mean_row(seen.target)",
        ),
    ),
    *of(
        "snclr_jax/queue/memory_bank.py",
        EVERY,
        (
            "what is seen counts for what is remembered",
            "momentum * before + (1 - momentum) * rows",
            "(1 - momentum) * before + momentum * rows",
        ),
        (
            "images that share a row share its mean",
            " & (bank.image_id[row] == image_id)",
            "",
        ),
        (
            "each device has the row of an image",
            "place = row - first_row(bank)\n        own",
            "place = row\n        own",
        ),
        (
            "the first of those that share a row has it",
            "(order[:, None] < order)",
            "(order[:, None] > order)",
        ),
        (
            "rows of the memory are never written anew",
            "write(bank.pushed_at, row, jnp",
            "write(bank.pushed_at, row * 0, jnp",
        ),
    ),
    *of(
        "snclr_jax/objectives/searching.py",
        EVERY,
        (
            "the first view is pushed for the mean",
            "mean_row(seen.target)[None]",
            "seen.target[:1]",
        ),
    ),
    *of(
        "snclr_jax/step/objective.py",
        EVERY,
        (
            "a mean row is shorter than 1",
            "return unit(jnp.mean(rows, axis=0))",
            "return jnp.mean(rows, axis=0)",
        ),
    ),
    *of(
        "snclr_jax/queue/anchors.py",
        EVERY,
        (
            "a decoupled anchor keeps its own image",
            "logits = jnp.where(own, -jnp.inf, logits)",
            "logits = +logits",
        ),
        (
            "anchors that fill up the list count",
            "losses = jnp.where(filled[:, None], log_sum - positive, 0.0)",
            "losses = log_sum - positive",
        ),
        (
            "the gradient of anchors forgets tau",
            "pull / temperature, 0.0",
            "pull, 0.0",
        ),
        (
            "views of anchors are added",
            "(found * z.shape[0])",
            "found",
        ),
    ),
    *of(
        "snclr_jax/objectives/nnclr.py",
        "tests/objectives/test_searching.py",
        (
            "all K places of a neighbor have a weight",
            "found.valid / jnp.maximum(count, 1)",
            "found.valid / found.valid.shape[1]",
        ),
    ),
    *of(
        "snclr_jax/objectives/all4one.py",
        EVERY,
        (
            "features are compared with the online network's",
            "feature_loss(seen.target, seen.projection)",
            "feature_loss(seen.projection[:2], seen.projection)",
        ),
        (
            "pairs of features are as many as features",
            "jnp.mean(jnp.stack(off)) / max(features * (features - 1), 1)",
            "jnp.mean(jnp.stack(off)) / features",
        ),
    ),
    *of(
        "snclr_jax/objectives/byol.py",
        EVERY,
        (
            "pairs of views are averaged",
            "loss += jnp.sum(2 - 2 * similarity)",
            "loss += jnp.mean(2 - 2 * similarity)",
        ),
    ),
    *of(
        "snclr_jax/objectives/cacr_momentum.py",
        EVERY,
        (
            "views near their target attract more",
            "jax.nn.softmax(far, axis=0)",
            "jax.nn.softmax(-far, axis=0)",
        ),
        (
            "the weight of a view sends gradient",
            "jax.lax.stop_gradient(similarity)",
            "similarity",
        ),
        (
            "an image repels its own target",
            "but_own=True",
            "but_own=False",
        ),
    ),
    *of(
        "snclr_jax/step/objective.py",
        EVERY,
        (
            "a section has the defaults of its class",
            "default = _defaults(default)",
            "default = _defaults(type(default)())",
        ),
    ),
]
