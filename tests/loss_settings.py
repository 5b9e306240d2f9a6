"""The settings of a search and a loss on their own."""

from __future__ import annotations

import ml_collections


def config_of(
    k=5, banks=1, form="paper", tau=0.2, decoupled=False, exclude=True, **queue
):
    queue = {"k": k, "banks": banks, "exclude_same_image": exclude} | queue
    return ml_collections.ConfigDict(
        {
            "queue": {"search": "exact", "recall": 0.9, "block": 1024} | queue,
            "loss": {"form": form, "temperature": tau, "decoupled": decoupled},
            "attention": {"temperature": 0.5, "gamma": 1.5, "threshold": 0.1},
        }
    )
