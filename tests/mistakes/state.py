"""Mistakes in what is saved and read again."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/run/restore.py",
        "tests/run/test_checkpoint.py",
        (
            "restore keeps the queue empty",
            '    restored = state.replace(**arrays["state"])\n',
            '    restored = state.replace(**(arrays["state"] | '
            '{"objective": state.objective}))\n',
        ),
        (
            "restore keeps the optimizer's state",
            '    restored = state.replace(**arrays["state"])\n',
            '    restored = state.replace(**(arrays["state"] | '
            '{"opt_state": state.opt_state}))\n',
        ),
        (
            "restore keeps the target's parameters",
            '    restored = state.replace(**arrays["state"])\n',
            '    restored = state.replace(**(arrays["state"] | '
            '{"target_params": state.target_params}))\n',
        ),
        (
            "restore gives the target the online statistics",
            '    restored = state.replace(**arrays["state"])\n',
            '    restored = state.replace(**arrays["state"])\n'
            "    restored = restored.replace(target_batch_stats={n: "
            "restored.batch_stats[n] for n in restored.target_batch_stats})\n",
        ),
        (
            "restore forgets the probe",
            '        restored = restored.replace(probe=arrays["probe"])\n',
            "",
        ),
        (
            "restore starts the cursor at 0",
            '    restored = state.replace(**arrays["state"])\n',
            '    restored = state.replace(**arrays["state"])\n'
            "    restored = "
            "restored.replace(objective=restored.objective.replace("
            "cursor=restored.objective.cursor * 0))\n",
        ),
    ),
    *of(
        "snclr_jax/run/checkpoint.py",
        "tests/run/test_checkpoint.py",
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
    ),
    *of(
        "snclr_jax/encoder/encode.py",
        "tests/encoder/test_encoder.py",
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
            "a digest ignores the index",
            "_mix(words ^ _mix(index))",
            "_mix(words)",
        ),
        (
            "places of a digest are those of the last axis",
            "        stride *= words.shape[axis]\n",
            "",
        ),
        (
            "a digest of the sum of words",
            "jnp.sum(_mix(words ^ _mix(index)), dtype=jnp.uint32)",
            "jnp.sum(words ^ _mix(index), dtype=jnp.uint32)",
        ),
    ),
    *of(
        "snclr_jax/run/open_loggers.py",
        "tests/run/test_loggers.py",
        (
            "a continued run is a new one at its loggers",
            "                its_run = dataclasses.replace(run, id=known)\n",
            "                its_run = run\n",
        ),
        (
            "a logger that fails is asked again",
            "                del self._loggers[name]\n",
            "",
        ),
    ),
]
