"""Mistakes in the training step and its metrics."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/step/train_step.py",
        "tests/step/test_step_oracle.py",
        (
            "the target's statistics are the online network's",
            "            target_batch_stats=target_batch_stats,\n",
            "            target_batch_stats=target_subset(forward.batch_stats),\n",
        ),
        (
            "the online statistics are the target's",
            "            batch_stats=forward.batch_stats,\n",
            "            batch_stats=forward.batch_stats | target_batch_stats,\n",
        ),
        (
            "the target starts from the online statistics",
            "    stats, found = state.target_batch_stats, []\n",
            "    stats, found = target_subset(state.batch_stats), []\n",
        ),
        (
            "a view predicts its own target",
            "others = outputs[:number] + outputs[number + 1 :]",
            "others = list(outputs)",
        ),
        (
            "local views move the statistics",
            "stats = moved if first < whole else stats",
            "stats = moved",
        ),
    ),
    *of(
        "snclr_jax/objectives/describe.py",
        "tests/objectives/test_snclr_metrics.py",
        (
            "metrics count missing neighbors",
            "jnp.sum(jnp.where(valid, values, 0.0)) / found",
            "jnp.sum(jnp.where(valid, values, 0.0)) / valid.size",
        ),
        (
            "positiveness of the first view alone",
            "mean_over_found(jnp.mean(weights, axis=0))",
            "mean_over_found(weights[0])",
        ),
        (
            "entropy is summed over views",
            " / weights.shape[0]\n",
            "\n",
        ),
        (
            "entropy of weights that are not shares",
            "jax.scipy.special.xlogy(share, share)",
            "jax.scipy.special.xlogy(weights, weights)",
        ),
        (
            "entropy is a mean over all images",
            "entropy / images",
            "entropy / has_neighbors.size",
        ),
        (
            "recall of the first direction",
            "jnp.mean(jnp.stack(cast(list[Array], recalls)))",
            "cast(list[Array], recalls)[0]",
        ),
        (
            "purity counts unknown labels",
            "known = valid & (own >= 0) & (theirs >= 0)",
            "known = valid",
        ),
        (
            "purity counts missing neighbors",
            "known = valid & (own >= 0) & (theirs >= 0)",
            "known = (own >= 0) & (theirs >= 0)",
        ),
        (
            "age is counted from the next step",
            "step - neighbors.pushed_at",
            "step + 1 - neighbors.pushed_at",
        ),
        (
            "found is a share of images",
            "jnp.sum(valid) / valid.size",
            "jnp.mean(has_neighbors)",
        ),
        (
            "deviation without the root of d",
            "jnp.mean(jnp.std(y, axis=0)) * jnp.sqrt(y.shape[1])",
            "jnp.mean(jnp.std(y, axis=0))",
        ),
        (
            "deviation over features",
            "jnp.std(y, axis=0)",
            "jnp.std(y, axis=1)",
        ),
    ),
    *of(
        "snclr_jax/step/probe.py",
        "tests/step/test_probe.py",
        (
            "the probe is scored after its step",
            'metrics = {"probe_loss": value,',
            'metrics = {"probe_loss": '
            "loss(optax.apply_updates(probe.weights, updates))[0],",
        ),
        (
            "the probe learns from unknown labels",
            "    weight = known / jnp.maximum(jnp.sum(known), 1)\n",
            "    weight = jnp.ones_like(known) / len(known)\n",
        ),
        (
            "the probe reads unscaled features",
            " / jnp.sqrt(x.shape[1])\n",
            "\n",
        ),
    ),
    *of(
        "snclr_jax/step/accumulate.py",
        "tests/step/test_accumulate.py",
        (
            "the loss of parts mixes their rows",
            "rows = rows.reshape(parts, mesh.size, size, "
            "*rows.shape[2:]).swapaxes(0, 1)",
            "rows = rows.reshape(parts, mesh.size, size, *rows.shape[2:])",
        ),
        (
            "statistics are those of the last part",
            "jnp.mean(each, axis=0), stats",
            "each[-1], stats",
        ),
    ),
    *of(
        "snclr_jax/step/train_step.py",
        "tests/step/test_step_oracle.py",
        (
            "the anchor is the prediction",
            "anchor=attention_query(model, params, y, config.objective.attention)",
            "anchor=attention_query(model, params, z, config.objective.attention)",
        ),
        (
            "the weight of neighbors is not passed",
            "            neighbor_weight=neighbor_weight,\n"
            "        )\n"
            "        return Direction",
            "        )\n        return Direction",
        ),
        (
            "the scale of the loss is dropped",
            "return config.objective.scale * loss, forward",
            "return loss, forward",
        ),
        (
            "the search knows no image",
            "            image_id=batch.image_id,\n            config=config",
            "            image_id=jnp.full_like(batch.image_id, -1),\n"
            "            config=config",
        ),
        (
            "pushed rows know no image",
            "            batch.image_id,\n            state.step,",
            "            jnp.full_like(batch.image_id, -1),\n            state.step,",
        ),
        (
            "targets come from the online network",
            "model.target(state.target_params, stats, views)",
            "model.target(target_subset(state.params), stats, views)",
        ),
        (
            "every view drops the same paths",
            "DROP_PATH + first + each, len(view)",
            "DROP_PATH, len(view)",
        ),
        (
            "every step drops the same paths",
            "image_keys(config.seed, step, DROP_PATH",
            "image_keys(config.seed, 0, DROP_PATH",
        ),
        (
            "the first view is pushed",
            "all_targets[1:2] if",
            "all_targets[0:1] if",
        ),
        (
            "the target follows the parameters before the step",
            "            target_subset(params), state.target_params, 1.0 - momentum",
            "            target_subset(state.params), "
            "state.target_params, 1.0 - momentum",
        ),
        (
            "momentum of the target upside down",
            "state.target_params, 1.0 - momentum",
            "state.target_params, momentum",
        ),
        (
            "directions are added",
            "for each in directions) / len(directions)",
            "for each in directions)",
        ),
        (
            "the gradient switch is not read",
            "    if settings.stop_gradient:\n",
            "    if False:\n",
        ),
        (
            "rows are pushed at the next step",
            "            state.step,\n            banks",
            "            state.step + 1,\n            banks",
        ),
        (
            "rows of length 1 by the sum",
            "    square = jnp.sum(rows * rows,",
            "    square = jnp.sum(jnp.abs(rows),",
        ),
    ),
]
