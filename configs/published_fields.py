"""What published settings are made of: fields of a config, by dotted name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]


def of_views(*views: str, **fields: Any) -> dict[str, Any]:
    """Returns fields of how "view1", "view2" or "local" views are drawn."""
    return {f"augment.{view}.{name}": x for view in views for name, x in fields.items()}


def both_views(**fields: Any) -> dict[str, Any]:
    """Returns fields of how both global views are drawn."""
    return of_views("view1", "view2", **fields)


def simclr_draws(strength: float, blur: float) -> dict[str, Any]:
    """Returns SimCLR's fields of a view, but for its crop.

    Args:
      strength: of color; 1 on ImageNet.
      blur: how often.
    """
    return {
        **dict.fromkeys(("brightness", "contrast", "saturation"), 0.8 * strength),
        "hue": 0.2 * strength,
        "blur": blur,
        "solarize": 0.0,
    }


def simclr_views(strength: float, blur: float) -> dict[str, Any]:
    """Returns SimCLR's fields of both global views, see `simclr_draws`."""
    return both_views(crop_scale=(0.08, 1.0), **simclr_draws(strength, blur))


def optimizer(
    name: str, rate: float, decay: float, *, epochs: int, warmup: float
) -> dict[str, Any]:
    """Returns an optimizer with its epochs; `rate` is of a batch of 256."""
    return {
        "epochs": epochs,
        "optim.name": name,
        "optim.learning_rate": rate,
        "optim.weight_decay": decay,
        "optim.warmup_epochs": warmup,
    }


def average(first: float, final: float) -> dict[str, Any]:
    """Returns the momentum of the target network, first and last."""
    return {"ema.momentum": first, "ema.final_momentum": final}


def projector(*hidden: int, last_bn: bool, dim: int = 256) -> dict[str, Any]:
    """Returns the projector: hidden widths, BatchNorm behind it, and its output."""
    return {
        "model.projector_hidden": hidden,
        "model.projector_last_bn": last_bn,
        "model.embedding_dim": dim,
    }
