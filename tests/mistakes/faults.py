"""Mistakes in what a fault of the machine leaves behind, and says."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/train.py",
        "tests/test_train.py",
        (
            "a run does not look at its lock before a save",
            "before_save=keep_workdir",
            "before_save=lambda: None",
        ),
    ),
    *of(
        "snclr_jax/run/metrics.py",
        "tests/run/test_metrics.py",
        (
            "metrics that a full disk cuts off are not named in the end",
            "with written(self._file.name):  # it tries again what it could not",
            "if True:",
        ),
    ),
    *of(
        "snclr_jax/run/workdir_lock.py",
        "tests/run/test_workdir.py",
        (
            "a lock that cannot be written is not named",
            "with written(self._path):",
            "if True:",
        ),
    ),
    *of(
        "snclr_jax/run/checkpoint.py",
        "tests/run/test_checkpoint.py",
        (
            "what a save lacks is always room",
            "next(lacked, _ROOM)",
            "_ROOM",
        ),
    ),
    *of(
        "snclr_jax/data/prepare/shards.py",
        "tests/data/test_prepare_killed.py",
        (
            "a journal that a full disk cuts off is not named in the end",
            "with written(self._path):  # it tries again to write what it could not",
            "if True:",
        ),
    ),
    *of(
        "snclr_jax/data/prepare/run.py",
        "tests/data/test_prepare_killed.py",
        (
            "a list of unreadable images that cannot be written is not named",
            "with written(folder / UNREADABLE):",
            "if True:",
        ),
    ),
    *of(
        "snclr_jax/data/prepare/metadata.py",
        "tests/data/test_prepare_killed.py",
        (
            "metadata that cannot be written are not named",
            "with written(part):",
            "if True:",
        ),
    ),
    *of(
        "snclr_jax/data/cached.py",
        "tests/data/test_large_files.py",
        (
            "a cache without room is refused for good",
            "ValueError if isinstance(error, NAMED_WRONGLY) else OSError",
            "ValueError",
        ),
    ),
    *of(
        "snclr_jax/report/run.py",
        "tests/report/test_report.py",
        (
            "a figure that cannot be written loses the one before it",
            "part.write_bytes(encode(figure))",
            '(folder / f"{name}.png").write_bytes(encode(figure))',
        ),
    ),
    *of(
        "snclr_jax/main.py",
        "tests/test_main.py",
        (
            "Orbax narrates its saves",
            '"orbax" not in said.pathname',
            "True",
        ),
    ),
]
