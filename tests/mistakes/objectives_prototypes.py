"""Mistakes in objectives with prototypes, a sorting network or covariances."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/objectives/swav.py",
        "tests/objectives/test_every_objective.py",
        (
            "the entropy of codes is below 0",
            "entropy = -jnp.sum(jax",
            "entropy = jnp.sum(jax",
        ),
        (
            "a queue that is not full takes part in codes",
            "takes_part = due & jnp.all(queue.pushed_at != UNFILLED)",
            "takes_part = due",
        ),
        (
            "prototypes have a gradient through the codes",
            "self._codes(jax.lax.stop_gradient(prototypes), state",
            "self._codes(prototypes, state",
        ),
        (
            "prototypes are never frozen",
            "frozen = now.step < self.freeze_epochs * now.steps_per_epoch",
            "frozen = now.step < 0",
        ),
        (
            "Sinkhorn's algorithm does not weigh samples",
            "columns([x - s for x, s in zip(groups, sums, strict=True)])",
            "columns([x for x, _ in zip(groups, sums, strict=True)])",
        ),
    ),
    *of(
        "snclr_jax/objectives/groco.py",
        "tests/objectives/test_every_objective.py",
        (
            "positives are sorted in the order of views",
            "positives = jnp.sort(_products(y, targets.swapaxes(0, 1)))",
            "positives = _products(y, targets.swapaxes(0, 1))",
        ),
        (
            "shares are pulled back in the order of the layers",
            "for number in reversed(range(count)):",
            "for number in range(count):",
        ),
    ),
    *of(
        "snclr_jax/objectives/covariance.py",
        "tests/objectives/test_every_objective.py",
        (
            "pairs of global views count once, as pairs with local ones",
            "weight = 2 if v < global_views else 1",
            "weight = 1",
        ),
        (
            "covariances are divided by the whole batch",
            "covariance = _product(centered[view], centered[view]) / (batch - 1)",
            "covariance = _product(centered[view], centered[view]) / batch",
        ),
    ),
    *of(
        "snclr_jax/step/train_step.py",
        "tests/step/test_objective.py",
        (
            "rows always have length 1",
            "Forward(model, config, mesh, objective.unit_rows)",
            "Forward(model, config, mesh, True)",
        ),
    ),
    *of(
        "snclr_jax/queue/batch.py",
        "tests/objectives/test_every_objective.py",
        (
            "every device looks for the same images",
            "mine = jax.lax.axis_index(AXIS) * len(own) + jnp.arange(len(own))",
            "mine = jnp.arange(len(own))",
        ),
    ),
]
