"""Settings that others published for an objective on the data of a recipe.

`snclr train --config=cifar10:nnclr` takes them; docs/recipes.md has the figure beside
each. What a source does not say, or what this package has no field for, stays the
recipe's: data, BatchNorm over the whole batch, and that hidden layers of heads have it.

CIFAR: solo-learn at 9187ea3 (scripts/pretrain/cifar, which both sets share) but where
another source is named. ImageNet: the authors' papers and code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]


def _both_views(**fields: Any) -> dict[str, Any]:
    views = ("view1", "view2")
    return {f"augment.{view}.{name}": x for view in views for name, x in fields.items()}


def _optimizer(
    name: str, rate: float, decay: float, *, epochs: int, warmup: float
) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "optim.name": name,
        "optim.learning_rate": rate,
        "optim.weight_decay": decay,
        "optim.warmup_epochs": warmup,
    }


def _average(first: float, final: float) -> dict[str, Any]:
    return {"ema.momentum": first, "ema.final_momentum": final}


def _projector(*hidden: int, last_bn: bool, dim: int = 256) -> dict[str, Any]:
    return {
        "model.projector_hidden": hidden,
        "model.projector_last_bn": last_bn,
        "model.embedding_dim": dim,
    }


# Blur is of one view, solarization of the other; colors are the recipe's.
_CIFAR_VIEWS = {
    **_both_views(crop_scale=(0.08, 1.0)),
    "augment.view1.solarize": 0.2,
    "augment.view2.solarize": 0.0,
    "augment.view2.blur": 0.5,
}


def _simclr_views(strength: float, blur: float) -> dict[str, Any]:
    return _both_views(
        crop_scale=(0.08, 1.0),
        **dict.fromkeys(("brightness", "contrast", "saturation"), 0.8 * strength),
        hue=0.2 * strength,
        blur=blur,
        solarize=0.0,
    )


# MoCo v2's.
_MOCO_VIEWS = _both_views(crop_scale=(0.2, 1.0), saturation=0.4, blur=0.5, solarize=0.0)


def _solo_learn(rate: float, decay: float) -> dict[str, Any]:
    return {
        **_CIFAR_VIEWS,
        **_optimizer("lars", rate, decay, epochs=1000, warmup=10.0),
        **_average(0.99, 1.0),
    }


# Views of SimCLR at half its strength of color; Multi-View-CL at c26ae77.
_MULTI_VIEW_CIFAR = {
    **_simclr_views(0.5, 0.5),
    **_optimizer("sgd", 1.0, 1e-6, epochs=200, warmup=2.0),
    "objective.temperature": 0.5,
}
_MULTI_VIEW_IMAGENET = {
    "batch_size": 256,
    **_simclr_views(1.0, 0.5),
    **_optimizer("sgd", 0.3, 1e-6, epochs=100, warmup=10.0),
    "objective.temperature": 0.1,
}

# raminnakhli/Decoupled-Contrastive-Learning at 0b9b76d, which is not the authors'. Its
# rate is constant, and its Adam adds the decay to the gradient.
_DECOUPLED_CIFAR = {
    **_simclr_views(0.5, 0.0),
    **_both_views(saturation=0.4),
    **_optimizer("adamw", 1e-3, 1e-6, epochs=100, warmup=0.0),
    **_projector(512, last_bn=False, dim=128),
    "objective.temperature": 0.1,
}

_CIFAR = {
    # MoCo v3 adds both directions, each times 2 tau: 4 tau times their mean.
    "info_nce": {
        **_solo_learn(0.3, 1e-6),
        **_projector(4096, last_bn=True),
        "objective.temperature": 0.2,
        "objective.scale": 0.8,
    },
    "simclr": {
        **_solo_learn(0.4, 1e-4),
        **_simclr_views(1.0, 0.5),
        **_projector(2048, last_bn=False),
        "objective.temperature": 0.2,
    },
    "nnclr": {
        **_solo_learn(0.4, 1e-5),
        **_projector(2048, 2048, last_bn=True),
        "objective.temperature": 0.2,
        "objective.queue.size": 65_536,
    },
    "byol": {**_solo_learn(1.0, 1e-5), **_projector(4096, last_bn=False)},
    # Both parts are halved. The published run also has the attention, left out here.
    "all4one": {
        **_solo_learn(1.0, 1e-5),
        **_projector(2048, 2048, last_bn=True),
        "objective.temperature": 0.2,
        "objective.scale": 0.5,
        "objective.queue.size": 98_304,
    },
    "ressl": {
        **_both_views(crop_scale=(0.08, 1.0)),
        **_optimizer("sgd", 0.05, 1e-4, epochs=1000, warmup=10.0),
        **_average(0.99, 1.0),
        **_projector(4096, last_bn=False),
        "optim.decay_all": True,
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.04,
        "objective.queue.size": 65_536,
    },
    # CEA-LIST/SCE at 07cbe63, for CIFAR-10, which has no predictor.
    "sce": {
        "augment.view1.saturation": 0.4,
        "augment.view1.blur": 0.5,
        **_optimizer("sgd", 0.06, 5e-4, epochs=200, warmup=5.0),
        **_average(0.99, 0.99),
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
        **_both_views(jitter=1.0, saturation=0.4, hue=0.4, solarize=0.0),
        **_optimizer("sgd", 0.12, 1e-4, epochs=200, warmup=0.0),
        "model.embedding_dim": 128,
        "optim.decay_all": True,
        "objective.t_positive": 1.0,
        "objective.t_negative": 0.9,
    },
}

_MOCO_V2 = {
    "batch_size": 256,
    **_MOCO_VIEWS,
    **_optimizer("sgd", 0.03, 1e-4, epochs=200, warmup=0.0),
    **_average(0.999, 0.999),
    **_projector(2048, last_bn=False, dim=128),
    "optim.decay_all": True,
    "objective.temperature": 0.2,
    "objective.queue.size": 65_536,
}
# MoCo v3's, and CACR's, for 1000 epochs.
_MOCO_V3_LONG = {
    **_optimizer("lars", 0.3, 1.5e-6, epochs=1000, warmup=10.0),
    **_average(0.996, 1.0),
}

_RESNET50 = {
    # Epochs, rate and moving average are the recipe's, which is MoCo v3's.
    "info_nce": {"objective.temperature": 1.0, "objective.scale": 4.0},
    "cacr_momentum": {
        **_MOCO_V3_LONG,
        "objective.temperature": 1.0,
        "objective.scale": 2.0,
    },
    "moco_v2": _MOCO_V2,
    # "As MoCo v2"; how many rows are mixed is recollection.
    "mochi": {
        **_MOCO_V2,
        "objective.hard": 1024,
        "objective.pairs": 1024,
        "objective.with_query": 128,
    },
    # Google's code: 0.075 sqrt(4096) for 4096 images, and both directions added.
    "simclr": {
        **_simclr_views(1.0, 0.5),
        **_optimizer("lars", 0.3, 1e-4, epochs=100, warmup=10.0),
        **_projector(2048, last_bn=True, dim=128),
        "objective.temperature": 0.1,
        "objective.scale": 2.0,
    },
    # Temperature, queue and epochs are recollection; what a long run takes otherwise is
    # MoCo v3's.
    "nnclr": {
        **_MOCO_V3_LONG,
        "objective.temperature": 0.1,
        "objective.queue.size": 98_304,
    },
    # solo-learn's, scripts/pretrain/imagenet.
    "byol": {
        "batch_size": 2048,
        **_both_views(crop_scale=(0.08, 1.0)),
        **_optimizer("lars", 0.45, 1e-6, epochs=100, warmup=10.0),
        **_average(0.99, 1.0),
        **_projector(4096, last_bn=False),
    },
    # The paper's abstract for "dcl", lightly for "dclw"; neither was read for its rate.
    "dcl": {
        "batch_size": 256,
        "epochs": 200,
        "optim.warmup_epochs": 10.0,
        "objective.temperature": 0.1,
    },
    "dclw": {
        "batch_size": 256,
        "epochs": 100,
        "optim.warmup_epochs": 10.0,
        "objective.temperature": 0.1,
        "objective.weight_temperature": 0.5,
    },
    "mv_infonce": _MULTI_VIEW_IMAGENET,
    "mv_dhel": _MULTI_VIEW_IMAGENET,
    # Epochs and rate are the recipe's. Two strong views, both directions.
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
        **_optimizer("sgd", 0.05, 1e-4, epochs=200, warmup=5.0),
        **_average(0.999, 0.999),
        **_projector(4096, last_bn=False, dim=512),
        "objective.temperature": 0.1,
        "objective.target_temperature": 0.04,
        "objective.queue.size": 131_072,
    },
}

# Recipe: objective: settings.
PUBLISHED: dict[str, dict[str, Settings]] = {
    "cifar10": _CIFAR,
    "cifar100": {**_CIFAR, "cacr": {**_CIFAR["cacr"], "objective.t_negative": 2.0}},
    "imagenet_resnet50": _RESNET50,
    # Optimizer, epochs and views are the recipe's, which is MoCo v3's.
    "imagenet_vit_s16": {
        "info_nce": {"objective.temperature": 0.2, "objective.scale": 0.8}
    },
    "imagenet_vit_b16": {
        "info_nce": {"objective.temperature": 0.2, "objective.scale": 0.8},
        "cacr_momentum": {"objective.temperature": 0.2, "objective.scale": 0.4},
    },
}
