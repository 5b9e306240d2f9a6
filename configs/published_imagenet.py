"""Settings published for ImageNet: by an objective's authors, or by who is named.

"Not confirmed" are settings that are remembered, and that no source was found for.
"""

from __future__ import annotations

from snclr_jax.configs.published_fields import (
    Settings,
    average,
    both_views,
    of_views,
    optimizer,
    projector,
    simclr_draws,
    simclr_views,
)

# Views of SimCLR; Multi-View-CL at c26ae77.
_MULTI_VIEW_IMAGENET = {
    "batch_size": 256,
    **simclr_views(1.0, 0.5),
    **optimizer("sgd", 0.3, 1e-6, epochs=100, warmup=10.0),
    "objective.temperature": 0.1,
}

# facebookresearch/moco at 7397dfe, with "--mlp --moco-t 0.2 --aug-plus --cos". Its
# heads have no BatchNorm.
_MOCO_V2 = {
    "batch_size": 256,
    **both_views(crop_scale=(0.2, 1.0), saturation=0.4, blur=0.5, solarize=0.0),
    **optimizer("sgd", 0.03, 1e-4, epochs=200, warmup=0.0),
    **average(0.999, 0.999),
    **projector(2048, last_bn=False, dim=128),
    "optim.decay_all": True,
    "objective.temperature": 0.2,
    "objective.queue.size": 65_536,
}
# MoCo v3's, and CACR's, for 1000 epochs.
_MOCO_V3_LONG = {
    **optimizer("lars", 0.3, 1.5e-6, epochs=1000, warmup=10.0),
    **average(0.996, 1.0),
}
# lightly at e8d317f (benchmarks/imagenet/resnet50): 0.075 sqrt(256) for 256 images.
_DECOUPLED = {
    "batch_size": 256,
    **simclr_views(1.0, 0.5),
    **optimizer("lars", 1.2, 1e-6, epochs=100, warmup=10.0),
    **projector(2048, last_bn=True, dim=128),
    "objective.temperature": 0.1,
}
# facebookresearch/barlowtwins at 8e8d284 and vicreg at 4e12602; blur and solarization
# are the recipe's.
_WITHOUT_NEGATIVES = {
    "batch_size": 2048,
    **both_views(crop_scale=(0.08, 1.0)),
    **optimizer("lars", 0.2, 1e-6, epochs=1000, warmup=10.0),
    **projector(8192, 8192, last_bn=False, dim=8192),
}

RESNET50: dict[str, Settings] = {
    # Epochs, rate and moving average are the recipe's, which is MoCo v3's.
    "info_nce": {"objective.temperature": 1.0, "objective.scale": 4.0},
    "cacr_momentum": {
        **_MOCO_V3_LONG,
        "objective.temperature": 1.0,
        "objective.scale": 2.0,
    },
    "moco_v2": _MOCO_V2,
    # As MoCo v2. Not confirmed: how many rows are mixed.
    "mochi": {
        **_MOCO_V2,
        "objective.hard": 1024,
        "objective.pairs": 1024,
        "objective.with_query": 128,
    },
    # google-research/simclr at 383d414: 0.075 sqrt(4096) for 4096 images, and both
    # directions added.
    "simclr": {
        **simclr_views(1.0, 0.5),
        **optimizer("lars", 0.3, 1e-4, epochs=100, warmup=10.0),
        **projector(2048, 2048, last_bn=True, dim=128),
        "objective.temperature": 0.1,
        "objective.scale": 2.0,
    },
    # Not confirmed: temperature, queue and epochs, nor that as long a run takes the
    # optimizer of MoCo v3.
    "nnclr": {
        **_MOCO_V3_LONG,
        "objective.temperature": 0.1,
        "objective.queue.size": 98_304,
    },
    # solo-learn at 9187ea3, scripts/pretrain/imagenet.
    "byol": {
        "batch_size": 2048,
        **both_views(crop_scale=(0.08, 1.0)),
        **optimizer("lars", 0.45, 1e-6, epochs=100, warmup=10.0),
        **average(0.99, 1.0),
        **projector(4096, last_bn=False),
    },
    "dcl": _DECOUPLED,
    "dclw": {**_DECOUPLED, "objective.weight_temperature": 0.5},
    "mv_infonce": _MULTI_VIEW_IMAGENET,
    "mv_dhel": _MULTI_VIEW_IMAGENET,
    # CEA-LIST/SCE at 07cbe63. Epochs and rate are the recipe's. Two strong views, both
    # directions.
    "sce": {
        "augment.view2.jitter": 0.8,
        "augment.view2.grayscale": 0.2,
        "augment.view2.blur": 0.1,
        "augment.view2.solarize": 0.2,
        "objective.symmetric": True,
        "objective.positive_in_softmax": True,
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.07,
        "objective.coefficient": 0.5,
        "objective.queue.size": 65_536,
    },
    "ressl": {
        "batch_size": 256,
        "augment.view1.saturation": 0.4,
        "augment.view1.blur": 0.5,
        **optimizer("sgd", 0.05, 1e-4, epochs=200, warmup=5.0),
        **average(0.999, 0.999),
        **projector(4096, last_bn=False, dim=512),
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.04,
        "objective.queue.size": 131_072,
    },
    # facebookresearch/swav at 06b1b7c: six small crops, and no queue at this batch.
    "swav": {
        "augment.local_views": 6,
        **both_views(crop_scale=(0.14, 1.0), **simclr_draws(1.0, 0.5)),
        **of_views("local", crop_scale=(0.05, 0.14), **simclr_draws(1.0, 0.5)),
        **optimizer("lars", 0.3, 1e-6, epochs=100, warmup=10.0),
        **projector(2048, last_bn=False, dim=128),
        "optim.decay_all": True,
        "objective.prototypes": 3000,
        "objective.temperature": 0.1,
        "objective.epsilon": 0.05,
        "objective.iterations": 3,
        "objective.freeze_epochs": 1.0,
        "objective.queue.size": 0,
    },
    # ninatu/learning_by_sorting at 47c074e.
    "groco": {
        "batch_size": 1024,
        **both_views(crop_scale=(0.14, 1.0)),
        **optimizer("sgd", 0.75, 1e-6, epochs=100, warmup=1.0),
        **projector(2048, 2048, last_bn=True, dim=2048),
        "optim.decay_all": True,
        "objective.negatives": 10,
        "objective.steepness": 1.0,
    },
    "barlow": {**_WITHOUT_NEGATIVES, "objective.off_diagonal": 0.0051},
    "vicreg": {
        **_WITHOUT_NEGATIVES,
        "objective.invariance": 25.0,
        "objective.variance": 25.0,
        "objective.covariance": 1.0,
    },
}

# Optimizer, epochs and views are the recipe's, which is MoCo v3's.
VIT_S: dict[str, Settings] = {
    "info_nce": {"objective.temperature": 0.2, "objective.scale": 0.8}
}
VIT_B: dict[str, Settings] = {
    **VIT_S,
    "cacr_momentum": {"objective.temperature": 0.2, "objective.scale": 0.4},
}

# solo-learn at 9187ea3, scripts/pretrain/imagenet-100. Both parts are halved, and the
# attention is left out, as for CIFAR.
RESNET18_ON_100: dict[str, Settings] = {
    "all4one": {
        "batch_size": 256,
        **both_views(crop_scale=(0.08, 1.0)),
        **optimizer("lars", 1.0, 1e-5, epochs=400, warmup=10.0),
        **average(0.99, 1.0),
        **projector(2048, 2048, last_bn=True),
        "objective.temperature": 0.2,
        "objective.scale": 0.5,
        "objective.queue.size": 98_304,
    }
}
