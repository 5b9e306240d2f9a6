"""The settings of a search and a loss on their own."""

from __future__ import annotations

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.soft_neighbors import Attention
from snclr_jax.queue.settings import QueueSettings


def settings_of(
    k=5, banks=1, form="paper", tau=0.2, decoupled=False, exclude=True, **queue
):
    """Returns SNCLR with small blocks and an attention that cuts some weights."""
    queue = {"recall": 0.9, "block": 1024} | queue
    return SNCLR(
        form=form,
        temperature=tau,
        decoupled=decoupled,
        attention=Attention(temperature=0.5, gamma=1.5, threshold=0.1),
        queue=QueueSettings(k=k, banks=banks, exclude_same_image=exclude, **queue),
    )
