"""Mistakes in what is saved and read again."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/run/checkpoint.py",
        "tests/run/test_checkpoint.py",
        (
            "restore keeps the queue empty",
            '        found = state.replace(**arrays["state"])\n',
            '        found = state.replace(**(arrays["state"] | '
            '{"queue": state.objective}))\n',
        ),
        (
            "restore keeps the optimizer's state",
            '        found = state.replace(**arrays["state"])\n',
            '        found = state.replace(**(arrays["state"] | '
            '{"opt_state": state.opt_state}))\n',
        ),
        (
            "restore keeps the target's parameters",
            '        found = state.replace(**arrays["state"])\n',
            '        found = state.replace(**(arrays["state"] | '
            '{"target_params": state.target_params}))\n',
        ),
        (
            "restore gives the target the online statistics",
            '        found = state.replace(**arrays["state"])\n',
            '        found = state.replace(**arrays["state"])\n'
            "        found = found.replace(target_batch_stats={n: "
            "found.batch_stats[n] for n in found.target_batch_stats})\n",
        ),
        (
            "restore forgets the probe",
            '            found = found.replace(probe=arrays["probe"])\n',
            "",
        ),
        (
            "restore starts the cursor at 0",
            '        found = state.replace(**arrays["state"])\n',
            '        found = state.replace(**arrays["state"])\n'
            "        found = "
            "found.replace(objective=found.queue.replace(cursor=found.queue.c"
            "ursor * 0))\n",
        ),
        (
            "saves the probe of zeros",
            '            items["probe"] = ocp.args.StandardSave(state.probe)\n'
            '            digest |= digests({"probe": state.probe})\n',
            "            import jax as j\n"
            "            zero = j.tree.map(lambda x: x * 0, state.probe)\n"
            '            items["probe"] = ocp.args.StandardSave(zero)\n'
            '            digest |= digests({"probe": zero})\n',
        ),
    ),
    *of(
        "snclr_jax/encoder/stored.py",
        "tests/encoder/test_encoder.py",
        (
            "the target network gets the online statistics",
            '("target_params", "target_batch_stats")',
            '("target_params", "batch_stats")',
        ),
        (
            "the online network gets the target's statistics",
            '"online": ("params", "batch_stats")',
            '"online": ("params", "target_batch_stats")',
        ),
        (
            "a program of images that are not normalized",
            "return normalize(view, config.data.mean, config.data.std)",
            "return view",
        ),
    ),
    *of(
        "snclr_jax/encoder/init_from.py",
        "tests/encoder/test_init_from.py",
        (
            "a run that starts from another forgets the target's statistics",
            "target_batch_stats=state.target_batch_stats | target_batch_stats,",
            "target_batch_stats=state.target_batch_stats,",
        ),
    ),
    *of(
        "snclr_jax/run/digest.py",
        "tests/run/test_digest.py",
        (
            "a digest ignores the place",
            "_mix(words ^ _mix(place))",
            "_mix(words)",
        ),
        (
            "places of a digest are those of the last axis",
            "        stride *= words.shape[axis]\n",
            "",
        ),
        (
            "a digest of the sum of words",
            "jnp.sum(_mix(words ^ _mix(place)), dtype=jnp.uint32)",
            "jnp.sum(words ^ _mix(place), dtype=jnp.uint32)",
        ),
    ),
]
