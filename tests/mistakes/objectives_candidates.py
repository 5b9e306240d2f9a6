"""Mistakes in objectives whose candidates carry gradients, and in their kernel."""

from __future__ import annotations

from mistakes.mistake import of

TEST = "tests/objectives/test_every_objective.py"

MISTAKES = [
    *of(
        "snclr_jax/queue/other_images.py",
        "tests/queue/test_other_images.py",
        (
            "every device takes its images for the first ones",
            "first + jnp.arange(images)",
            "0 * first + jnp.arange(images)",
        ),
        (
            "an image is one of its own others",
            "jnp.arange(batch) != number",
            "jnp.arange(batch) >= 0 * number",
        ),
        (
            "similarities of all images stay for the backward pass",
            "        @functools.partial(jax.checkpoint, prevent_cse=False)\n",
            "",
        ),
        (
            "similarities of all images exist at once",
            "batch_size=min(at_once, images)",
            "batch_size=images",
        ),
    ),
    *of(
        "snclr_jax/objectives/simclr.py",
        TEST,
        (
            "SimCLR leaves the positive out",
            "jnp.mean(jnp.logaddexp(others, logit) - logit)",
            "jnp.mean(others - logit)",
        ),
        (
            "SimCLR leaves other images of the same view out",
            "jnp.logaddexp(sums[view, view], sums[view, other])",
            "sums[view, other]",
        ),
        (
            "SimCLR leaves local views out",
            "if min(pair) < len(seen.target)",
            "if max(pair) < len(seen.target)",
        ),
    ),
    *of(
        "snclr_jax/objectives/dcl.py",
        TEST,
        (
            "weights of DCLW send gradient",
            "if not self.weight_gradient:",
            "if self.weight_gradient:",
        ),
        (
            "weights of DCLW are shares, without b",
            "2 - share.shape[-1] * share",
            "2 - share",
        ),
        (
            "weights of DCLW are shares of the pairs",
            "positive / self.weight_temperature, axis=-1",
            "positive / self.weight_temperature, axis=0",
        ),
        (
            "DCL has the positive in its denominator",
            "jnp.mean(others - pull)",
            "jnp.mean(jnp.logaddexp(others, positive / self.temperature) - pull)",
        ),
    ),
    *of(
        "snclr_jax/objectives/multi_view.py",
        TEST,
        (
            "MV-InfoNCE leaves the views of an image out",
            "jnp.mean(everything - positive)",
            "jnp.mean(jax.nn.logsumexp(others, axis=(0, 1)) - positive)",
        ),
        (
            "MV-InfoNCE counts each pair of views once",
            "np.nonzero(~np.eye(len(y), dtype=bool))",
            "np.nonzero(np.triu(np.ones((len(y), len(y))), 1))",
        ),
        (
            "MV-DHEL counts each pair of views twice",
            "np.triu_indices(len(y), 1)",
            "np.nonzero(~np.eye(len(y), dtype=bool))",
        ),
        (
            "MV-DHEL takes the mean over views",
            "jnp.sum(others, axis=(0, 1)) - positive",
            "jnp.mean(others, axis=(0, 1)) - positive",
        ),
        (
            "MV-DHEL pushes all views apart",
            "view, view, temperature=tau",
            "view, y, temperature=tau",
        ),
    ),
    *of(
        "snclr_jax/objectives/cacr.py",
        TEST,
        (
            "weights of CACR's repulsion send no gradient",
            "jax.nn.softmax(logits, axis=-1) * distance",
            "jax.lax.stop_gradient(jax.nn.softmax(logits, axis=-1)) * distance",
        ),
        (
            "weights of CACR's attraction send no gradient",
            "jax.nn.softmax(logits, axis=1) * distance",
            "jax.lax.stop_gradient(jax.nn.softmax(logits, axis=1)) * distance",
        ),
        (
            "CACR pushes far rows most",
            "jnp.where(other, -self.t_negative * distance, -jnp.inf)",
            "jnp.where(other, self.t_negative * distance, -jnp.inf)",
        ),
        (
            "CACR pulls each view to itself",
            "jnp.where(different, self.t_positive * distance, -jnp.inf)",
            "self.t_positive * distance",
        ),
    ),
]
