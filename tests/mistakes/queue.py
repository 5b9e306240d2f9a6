"""Mistakes in the neighbor queue and its search."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/queue/ring.py",
        "tests/queue/test_ring.py",
        (
            "several keys are pushed to one row",
            "    stays = within >= pushed_per_bank - rows_per_bank\n",
            "    stays = within >= 0\n",
        ),
        (
            "a large push keeps its first rows",
            "    stays = within >= pushed_per_bank - rows_per_bank\n",
            "    stays = within < rows_per_bank\n",
        ),
        (
            "the cursor does not advance by the batch",
            "cursor=(queue.cursor + pushed_per_bank) % rows_per_bank",
            "cursor=(queue.cursor + min(pushed_per_bank, rows_per_bank)) "
            "% rows_per_bank",
        ),
        (
            "banks meet",
            "    return filled & same_bank & ~same_image\n",
            "    return filled & ~same_image\n",
        ),
        (
            "an image finds its earlier views",
            "    return filled & same_bank & ~same_image\n",
            "    return filled & same_bank\n",
        ),
        (
            "unfilled rows are searched",
            "    return filled & same_bank & ~same_image\n",
            "    return same_bank & ~same_image\n",
        ),
        (
            "an unknown image excludes unknown rows",
            "    same_image = (image_id[:, None] == queue.image_id) & (\n"
            "        image_id[:, None] != UNKNOWN_IMAGE\n"
            "    )\n",
            "    same_image = image_id[:, None] == queue.image_id\n",
        ),
        (
            "a missing neighbor keeps an image",
            "image_id=jnp.where(valid, queue.image_id[row], UNKNOWN_IMAGE)",
            "image_id=queue.image_id[row] * jnp.where(valid, 1, 0)",
        ),
    ),
    *of(
        "snclr_jax/queue/sharded.py",
        "tests/queue/test_sharded.py",
        (
            "each device pushes its own share alone",
            "            gather(target),\n",
            "            jnp.tile(target, (jax.lax.axis_size(AXIS), 1)),\n",
        ),
        (
            "every device is the owner of the first rows",
            "            first_row=first_row(queue),\n",
            "            first_row=0 * first_row(queue),\n",
        ),
        (
            "banks are ignored when devices push",
            "            banks=banks,\n            first_row",
            "            banks=1,\n            first_row",
        ),
        (
            "recall is always 1",
            "    return Candidates(*approximate, 1.0 - missed)",
            "    return Candidates(*approximate, 1.0 - 0 * missed)",
        ),
        (
            "recall counts all queries",
            "    hit = jnp.any(row[:, :, None] == "
            "approximate[1][:RECALL_QUERIES, None], axis=2)\n"
            "    valid",
            "    similarity, row = search(queue, *queries)\n"
            "    hit = jnp.any(row[:, :, None] == approximate[1][:, None], axis=2)\n"
            "    valid",
        ),
        (
            "recall counts rows that are not filled",
            "    valid = similarity > -jnp.inf\n    total = jax",
            "    valid = similarity >= -jnp.inf\n    total = jax",
        ),
    ),
    *of(
        "snclr_jax/queue/search.py",
        "tests/queue/test_search.py",
        (
            "groups of the exact top-K are not sorted",
            "    chosen = jnp.sort(chosen, axis=1)\n",
            "",
        ),
        (
            "groups are filled up with zeros",
            "constant_values=-jnp.inf",
            "constant_values=0.0",
        ),
        (
            "rows seen twice by the last block",
            "            allowed &= first + jnp.arange(width) >= fresh\n",
            "",
        ),
    ),
    *of(
        "snclr_jax/queue/sharded.py",
        "tests/objectives/test_snclr_fused.py",
        (
            "the search takes one row of each device too few",
            "k=min(settings.k, owned)",
            "k=min(settings.k, owned) - 1",
        ),
    ),
]
