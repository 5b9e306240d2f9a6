"""Digits: SNCLR and its alternatives, same recipe, side by side.

    python benchmarks/digits.py final            # 3 seeds, scored on the test digits
    python benchmarks/digits.py choices          # 1 seed, 6 epochs, on held-back digits

Every run is a fresh process of the command line; finished ones are not repeated. Prints
a Markdown table, whose rows belong in benchmarks/RESULTS.md with hardware and date.
"""

from __future__ import annotations

import statistics
import sys

from runs import run

FINAL = {"SNCLR (the recipe)": {}, "K = 0 (InfoNCE)": {"objective.queue.k": 0}}
CHOICES = FINAL | {
    "EMA momentum 0.99": {"ema.momentum": 0.99},
    "soft cross-entropy": {"objective.form": "soft_cross_entropy"},
    "linear attention": {"objective.attention.kind": "linear"},
    "own views allowed": {"objective.queue.exclude_same_image": False},
    "loss temperature 0.2": {"objective.temperature": 0.2},
}


def main() -> None:
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    if what not in ("final", "choices"):
        sys.exit(__doc__)
    final = what == "final"
    print("| run | kNN % by seed | median | training s | images/s |")
    print("|---|---|---|---|---|")
    for name, settings in (FINAL if final else CHOICES).items():
        short = {} if final else {"data.holdback": 2000, "epochs": 6}
        summaries = [
            run("digits", f"{what} {name}", settings | short, seed=seed)
            for seed in (range(3) if final else range(1))
        ]
        accuracy = [each["knn_trained"] for each in summaries]
        seconds = statistics.median(each["train_seconds"] for each in summaries)
        rate = statistics.median(each["images_per_second"] for each in summaries)
        by_seed = ", ".join(f"{each:.1f}" for each in accuracy)
        print(
            f"| {name} | {by_seed} | {statistics.median(accuracy):.1f} | "
            f"{seconds:.0f} | {rate:.0f} |",
            flush=True,
        )
    first = summaries[0]
    print(
        f"| raw pixels | {first['knn_raw_pixels']:.1f} | | | |\n"
        f"| untrained encoder | {first['knn_untrained']:.1f} | | | |"
    )


if __name__ == "__main__":
    main()
