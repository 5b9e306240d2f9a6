"""Mistakes in what a run, its report and preflight say."""

from __future__ import annotations

from mistakes.mistake import of

REPORT = "tests/report/test_report.py"

MISTAKES = [
    *of(
        "snclr_jax/report/summary.py",
        "tests/report/test_recorded.py",
        (
            "a summary has the first evaluation",
            "scores[-1].items()",
            "scores[0].items()",
        ),
    ),
    *of(
        "snclr_jax/loop.py",
        "tests/test_train.py",
        (
            "one batch an interval is counted as trained on",
            "steps * self.config.batch_size, self.feed",
            "self.config.batch_size, self.feed",
        ),
    ),
    *of(
        "snclr_jax/report/run.py",
        REPORT,
        (
            "a report has the first evaluation at its top",
            "in_words(scored[-1],",
            "in_words(scored[0],",
        ),
        (
            "a report is of the network that the run names",
            "open_encoder(workdir, network=network,",
            "open_encoder(workdir, network=None,",
        ),
    ),
    *of(
        "snclr_jax/report/measure.py",
        REPORT,
        (
            "an image votes for itself where there is no test split",
            "leave_one_out=left_out",
            "leave_one_out=False",
        ),
    ),
    *of(
        "snclr_jax/preflight/report.py",
        "tests/preflight/test_preflight.py",
        (
            "float32 is timed as bfloat16",
            'chip.bfloat16 if dtype == "bfloat16" else chip.float32',
            "chip.bfloat16",
        ),
    ),
]
