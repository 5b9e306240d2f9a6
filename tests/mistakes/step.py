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
            "            target_batch_stats=target_subset(batch_stats),\n",
        ),
        (
            "the online statistics are the target's",
            "            batch_stats=batch_stats,\n",
            "            batch_stats=batch_stats | target_batch_stats,\n",
        ),
        (
            "the target starts from the online statistics",
            "state.target_batch_stats, global_views",
            "target_subset(state.batch_stats), global_views",
        ),
        (
            "targets come from the online network",
            "state.target_params, state.target_batch_stats,",
            "target_subset(state.params), state.target_batch_stats,",
        ),
        (
            "targets are projections of the online network",
            "own if target is None else target",
            "own",
        ),
        (
            "the objective sees the state of the step after",
            "objective.update(state.objective, seen, now)",
            "objective.update(state.objective, seen, now._replace(step=now.step + 1))",
        ),
        (
            "the target follows the parameters before the step",
            "target_subset(params), state.target_params,",
            "target_subset(state.params), state.target_params,",
        ),
        (
            "momentum of the target upside down",
            "state.target_params, 1.0 - momentum",
            "state.target_params, momentum",
        ),
    ),
    *of(
        "snclr_jax/step/train_step.py",
        "tests/step/test_several_steps.py",
        (
            "a call takes its batches backwards",
            "jax.lax.scan(step, state, batch.image_id)",
            "jax.lax.scan(step, state, batch.image_id, reverse=True)",
        ),
    ),
    *of(
        "snclr_jax/step/forward.py",
        "tests/step/test_step_oracle.py",
        (
            "local views move the statistics",
            "            if first < count:\n                batch_stats = moved\n",
            "            batch_stats = moved\n",
        ),
        (
            "every view drops the same paths",
            "DROP_PATH + first + number, len(view)",
            "DROP_PATH, len(view)",
        ),
        (
            "every step drops the same paths",
            "image_keys(self.config.seed, step, DROP_PATH",
            "image_keys(self.config.seed, 0, DROP_PATH",
        ),
        (
            "predictions are projections",
            "jnp.unstack(self._rows(outputs.prediction), axis=1)",
            "jnp.unstack(self._rows(outputs.projection), axis=1)",
        ),
    ),
    *of(
        "snclr_jax/objectives/snclr.py",
        "tests/step/test_step_oracle.py",
        (
            "the anchor is the prediction",
            "self.anchor(params, other_views(seen.projection, number))",
            "self.anchor(params, other_views(seen.prediction, number))",
        ),
        (
            "the weight of neighbors is not passed",
            "                neighbor_weight=self.weight_now(now),\n",
            "",
        ),
        (
            "the scale of the loss is dropped",
            "return self.scale * loss, directions",
            "return loss, directions",
        ),
        (
            "the search knows no image",
            "                image_id=seen.image_id,\n",
            "                image_id=jnp.full_like(seen.image_id, -1),\n",
        ),
        (
            "directions are added",
            "jnp.asarray(sum(values)) / len(values)",
            "jnp.asarray(sum(values))",
        ),
    ),
    *of(
        "snclr_jax/objectives/soft_neighbors.py",
        "tests/step/test_step_oracle.py",
        (
            "the gradient switch is not read",
            "        if self.attention.stop_gradient:\n",
            "        if False:\n",
        ),
        (
            "attention multiplies by W1 alone",
            'jnp.dot(y, params["w2"], precision=highest)',
            'y + 0 * params["w2"][0]',
        ),
        (
            "attention multiplies by W2 transposed",
            'jnp.dot(y, params["w2"], precision=highest)',
            'jnp.dot(y, params["w2"].T, precision=highest)',
        ),
    ),
    *of(
        "snclr_jax/objectives/soft_neighbors.py",
        "tests/objectives/test_snclr_metrics.py",
        (
            "positiveness of the first view alone",
            "searched.mean(jnp.mean(weights, axis=0))",
            "searched.mean(weights[0])",
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
    ),
    *of(
        "snclr_jax/step/objective.py",
        "tests/step/test_step_oracle.py",
        (
            "rows of length 1 by the sum",
            "    square = jnp.sum(rows * rows,",
            "    square = jnp.sum(jnp.abs(rows),",
        ),
        (
            "a view predicts its own target",
            "    return jnp.concatenate([views[:number], views[number + 1 :]])",
            "    return views",
        ),
    ),
    *of(
        "snclr_jax/objectives/searching.py",
        "tests/step/test_step_oracle.py",
        (
            "pushed rows know no image",
            "seen.image_id,\n                now.step,",
            "jnp.full_like(seen.image_id, -1),\n                now.step,",
        ),
        (
            "the first view is pushed",
            '"second": seen.target[1:2]',
            '"second": seen.target[0:1]',
        ),
        (
            "rows are pushed at the next step",
            "                now.step,\n                banks",
            "                now.step + 1,\n                banks",
        ),
    ),
    *of(
        "snclr_jax/objectives/searching.py",
        "tests/objectives/test_snclr_metrics.py",
        (
            "metrics count missing neighbors",
            "jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)",
            "jnp.sum(jnp.where(valid, values, 0.0)) / valid.size",
        ),
        (
            "recall of the first direction",
            "jnp.mean(jnp.stack(recalls))",
            "recalls[0]",
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
            "jnp.mean(jnp.any(valid, axis=1))",
        ),
    ),
    *of(
        "snclr_jax/step/forward.py",
        "tests/objectives/test_snclr_metrics.py",
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
            "the loss of micro-batches mixes their rows",
            "rows = rows.reshape(count, mesh.size, size, "
            "*rows.shape[2:]).swapaxes(0, 1)",
            "rows = rows.reshape(count, mesh.size, size, *rows.shape[2:])",
        ),
        (
            "statistics are those of the last micro-batch",
            "jnp.mean(leaf, axis=0), stats",
            "leaf[-1], stats",
        ),
    ),
]
