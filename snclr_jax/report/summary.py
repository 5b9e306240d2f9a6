"""What a run says of its scores: in sentences, and in `summary.json` at its end."""

from __future__ import annotations

import json

import jax
from etils import epath
from ml_collections import ConfigDict

from snclr_jax.data.feed import Feed
from snclr_jax.evaluate.frozen.accuracy import BALANCED, in_words
from snclr_jax.report.recorded import recorded
from snclr_jax.run.files import SUMMARY_FILE, write_whole
from snclr_jax.run.metrics import Clock, read_metrics, say

LABELS = {
    "majority": "always the most frequent class",
    "knn_raw_pixels": "kNN on raw pixels",
    "knn_untrained": "kNN on the untrained encoder",
    "knn_initial": "kNN on the encoder of model.init_from",
    "knn_trained": "kNN on the trained encoder",
}
ONLINE = {"knn": "kNN", "probe_test": "online probe"}


def in_sentence(numbers: dict[str, float]) -> str:
    """Returns what evaluators measured at one step, by name, in a line."""
    return ", ".join(
        f"{ONLINE[name]} {in_words(numbers, name)}"
        if name in ONLINE
        else f"{name} {value:.4g}"
        for name, value in numbers.items()
        # A balanced accuracy is in the words of its accuracy.
        if name.removesuffix(BALANCED) not in ONLINE.keys() - {name}
    )


def accuracies(numbers: dict[str, float]) -> list[str]:
    """Returns a sentence for each accuracy before or after training."""
    return [
        f"{label}: {in_words(numbers, name)}"
        for name, label in LABELS.items()
        if name in numbers
    ]


def summarize(
    config: ConfigDict,
    workdir: str,
    *,
    baseline: dict[str, float],
    clock: Clock,
    feed: Feed,
) -> None:
    """Writes and prints `summary.json`: accuracies in percent, and the time.

    Behind it stands what was recorded of the same recipe, where it was.
    """
    if jax.process_index() != 0:
        return
    scores = [line for line in read_metrics(workdir) if "knn" in line]
    summary = dict(baseline)
    for name, value in scores[-1].items() if scores else ():
        if name.startswith("knn"):
            summary[name.replace("knn", "knn_trained")] = value
    summary["train_seconds"] = round(clock.train_seconds, 1)
    seconds = max(clock.train_seconds, 1e-9)
    summary["images_per_second"] = round(clock.images / seconds)
    if not feed.resident:
        summary["data_wait"] = round(clock.waited / seconds, 4)
    path = epath.Path(workdir) / SUMMARY_FILE
    write_whole(path, json.dumps(summary, indent=2) + "\n")
    say("\n".join([_sentence(summary), *filter(None, [recorded(config)])]))


def _sentence(summary: dict[str, float]) -> str:
    lines = accuracies(summary)
    lines.append(
        f"trained for {summary['train_seconds']:.0f} s "
        f"at {summary['images_per_second']} images/s"
    )
    if "data_wait" in summary:
        lines.append(f"waited for data {summary['data_wait']:.0%} of that time")
    return "\n".join(lines)
