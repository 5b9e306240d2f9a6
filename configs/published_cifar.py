"""Settings published for CIFAR-10 and CIFAR-100.

solo-learn's at 9187ea3 (scripts/pretrain/cifar, which both sets share) but where
another source is named.
"""

from __future__ import annotations

from typing import Any

from snclr_jax.configs.published_fields import (
    Settings,
    average,
    both_views,
    optimizer,
    projector,
    simclr_views,
)


def _solo_learn(rate: float, decay: float) -> dict[str, Any]:
    # Colors, no blur, and solarization of the second view are the recipe's.
    return {
        **both_views(crop_scale=(0.08, 1.0)),
        **optimizer("lars", rate, decay, epochs=1000, warmup=10.0),
        **average(0.99, 1.0),
    }


# Views of SimCLR at half its strength of color; Multi-View-CL at c26ae77.
_MULTI_VIEW_CIFAR = {
    **simclr_views(0.5, 0.0),
    **optimizer("sgd", 1.0, 1e-6, epochs=200, warmup=2.0),
    "objective.temperature": 0.5,
}

# raminnakhli/Decoupled-Contrastive-Learning at 0b9b76d, which is not the authors'. Its
# rate is constant, and its Adam adds the decay to the gradient.
_DECOUPLED_CIFAR = {
    **simclr_views(0.5, 0.0),
    **both_views(saturation=0.4),
    **optimizer("adamw", 1e-3, 1e-6, epochs=100, warmup=0.0),
    **projector(512, last_bn=False, dim=128),
    "objective.temperature": 0.1,
}

CIFAR10: dict[str, Settings] = {
    # MoCo v3 adds both directions, each times 2 tau: 4 tau times their mean.
    "info_nce": {
        **_solo_learn(0.3, 1e-6),
        **projector(4096, last_bn=True),
        "objective.temperature": 0.2,
        "objective.scale": 0.8,
    },
    "simclr": {
        **_solo_learn(0.4, 1e-4),
        **simclr_views(1.0, 0.5),
        **projector(2048, last_bn=False),
        "objective.temperature": 0.2,
    },
    "nnclr": {
        **_solo_learn(0.4, 1e-5),
        **projector(2048, 2048, last_bn=True),
        "objective.temperature": 0.2,
        "objective.queue.size": 65_536,
    },
    "byol": {**_solo_learn(1.0, 1e-5), **projector(4096, last_bn=False)},
    # Both parts are halved. The published run also has the attention, left out here.
    "all4one": {
        **_solo_learn(1.0, 1e-5),
        **projector(2048, 2048, last_bn=True),
        "objective.temperature": 0.2,
        "objective.scale": 0.5,
        "objective.queue.size": 98_304,
    },
    "ressl": {
        **both_views(crop_scale=(0.08, 1.0)),
        "augment.view1.blur": 0.5,
        **optimizer("sgd", 0.05, 1e-4, epochs=1000, warmup=10.0),
        **average(0.99, 1.0),
        **projector(4096, last_bn=False),
        "optim.decay_all": True,
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.04,
        "objective.queue.size": 65_536,
    },
    # CEA-LIST/SCE at 07cbe63, for CIFAR-10, which has no predictor.
    "sce": {
        "augment.view1.saturation": 0.4,
        "augment.view1.blur": 0.5,
        **optimizer("sgd", 0.06, 5e-4, epochs=200, warmup=5.0),
        **average(0.99, 0.99),
        **projector(512, last_bn=False, dim=128),
        "optim.decay_all": True,
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.05,
        "objective.coefficient": 0.5,
        "objective.positive_in_softmax": True,
        "objective.queue.size": 4096,
    },
    "dcl": _DECOUPLED_CIFAR,
    "dclw": {**_DECOUPLED_CIFAR, "objective.weight_temperature": 0.5},
    "mv_infonce": _MULTI_VIEW_CIFAR,
    "mv_dhel": _MULTI_VIEW_CIFAR,
    # JegZheng/CACR-SSL at fbc9d94. The rate there falls in three steps.
    "cacr": {
        "batch_size": 128,
        "augment.global_views": 5,
        **both_views(jitter=1.0, saturation=0.4, hue=0.4, solarize=0.0),
        **optimizer("sgd", 0.12, 1e-4, epochs=200, warmup=0.0),
        "model.embedding_dim": 128,
        "optim.decay_all": True,
        "objective.t_positive": 1.0,
        "objective.t_negative": 0.9,
    },
    "swav": {
        **_solo_learn(0.6, 1e-6),
        **simclr_views(1.0, 0.5),
        **projector(2048, last_bn=False, dim=128),
        "objective.prototypes": 3000,
        "objective.temperature": 0.1,
        "objective.epsilon": 0.05,
        "objective.iterations": 3,
        "objective.freeze_epochs": 2.0,
        "objective.queue_from_epoch": 50.0,
        "objective.queue.size": 3840,
    },
    "barlow": {
        **_solo_learn(0.3, 1e-4),
        **projector(2048, 2048, last_bn=False, dim=2048),
        "objective.off_diagonal": 0.0051,
        "objective.scale": 0.1,
    },
    # Views are mild and alike. The variance of both views is added there.
    "vicreg": {
        **_solo_learn(0.3, 1e-4),
        **both_views(crop_scale=(0.2, 1.0), solarize=0.1),
        **projector(2048, 2048, last_bn=False, dim=2048),
        "objective.invariance": 25.0,
        "objective.variance": 50.0,
        "objective.covariance": 1.0,
    },
}
CIFAR100 = {**CIFAR10, "cacr": {**CIFAR10["cacr"], "objective.t_negative": 2.0}}
