"""The objectives by name, `config.objective.name`: one file and one line for each."""

from __future__ import annotations

from snclr_jax.objectives.info_nce import InfoNCE
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.step.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "snclr": SNCLR,
    "info_nce": InfoNCE,
}
