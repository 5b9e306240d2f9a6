"""The objectives by name, `config.objective.name`: one file and one line for each."""

from __future__ import annotations

from snclr_jax.objectives.all4one import All4One
from snclr_jax.objectives.byol import BYOL
from snclr_jax.objectives.cacr import CACR
from snclr_jax.objectives.cacr_momentum import CACRMomentum
from snclr_jax.objectives.covariance import BarlowTwins, VICReg
from snclr_jax.objectives.dcl import DCL, DCLW
from snclr_jax.objectives.groco import GroCo
from snclr_jax.objectives.info_nce import InfoNCE
from snclr_jax.objectives.memory_dcl import MemoryDCL
from snclr_jax.objectives.mochi import MoCHi
from snclr_jax.objectives.moco_v2 import MoCoV2
from snclr_jax.objectives.multi_view import MVDHEL, MVInfoNCE
from snclr_jax.objectives.nnclr import NNCLR
from snclr_jax.objectives.ressl import ReSSL
from snclr_jax.objectives.sce import SCE
from snclr_jax.objectives.simclr import SimCLR
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.soft_dcl import SoftDCL
from snclr_jax.objectives.swav import SwAV
from snclr_jax.step.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "snclr": SNCLR,
    "soft_dcl": SoftDCL,
    "memory_dcl": MemoryDCL,
    "info_nce": InfoNCE,
    "nnclr": NNCLR,
    "byol": BYOL,
    "simclr": SimCLR,
    "dcl": DCL,
    "dclw": DCLW,
    "sce": SCE,
    "ressl": ReSSL,
    "moco_v2": MoCoV2,
    "swav": SwAV,
    "mv_dhel": MVDHEL,
    "mv_infonce": MVInfoNCE,
    "groco": GroCo,
    "cacr": CACR,
    "cacr_momentum": CACRMomentum,
    "mochi": MoCHi,
    "all4one": All4One,
    "barlow": BarlowTwins,
    "vicreg": VICReg,
}
