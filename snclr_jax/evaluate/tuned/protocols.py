"""The published ways to judge an encoder by training on augmented images.

Every image is a random crop, resized and perhaps mirrored: nothing else. The rate rises
linearly from 0 where there is a warm-up, and falls to 0 as a cosine.

    settings = configs.evaluate.get_config()
    where = dict(images=train.size, devices=mesh.size, seed=settings.seed)
    protocol = finetune(run_config, **where, **settings.finetune)
"""

from __future__ import annotations

from typing import Any

import optax
from ml_collections import ConfigDict

from snclr_jax.evaluate.frozen.checks import check_positive
from snclr_jax.evaluate.tuned.layer_decay import scale_by_layer
from snclr_jax.evaluate.tuned.supervised import Protocol
from snclr_jax.models import Model, build_model, vit
from snclr_jax.step import optim

# MAE (He et al., 2022, Table 9); the rate is ViT-B's in `FINETUNE.md` of its code.
_TUNE_VIT = dict(
    name="adamw", learning_rate=5e-4, weight_decay=0.05, beta1=0.9, beta2=0.999
)
# SimCLR (Chen et al., 2020, appendix B.5).
_TUNE_OTHERS = dict(name="sgd", learning_rate=0.05, weight_decay=0.0, momentum=0.9)


def linear_augmented(
    run_config: Any,
    *,
    images: int,
    devices: int,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float | None,
    weight_decay: float,
    momentum: float,
    crop_scale: tuple[float, float],
    flip: float | None,
) -> Protocol:
    """Returns the linear protocol of papers: a classifier of a frozen encoder.

    The settings of `configs/evaluate.py` make it MoCo v3's (Chen et al., 2021;
    `main_lincls.py` and `CONFIG.md` of its code): SGD with a cosine and no warm-up, the
    head drawn from a normal distribution of deviation 0.01. There the rate changes once
    an epoch and the epoch that is best on the test images counts; here the rate changes
    every step and the last epoch counts.

    Args:
      run_config: of the pretraining run; reads `model`, `data` and `augment`.
      images: number of training images.
      devices: that they are spread over.
      seed: of the head, the views and the order of the images.
      epochs: over the training images.
      batch_size: images per step; less where there are fewer, and always a multiple of
        the devices.
      learning_rate: for a batch of 256, in proportion for others. None is MoCo v3's:
        3.0 for ViTs, and 0.1, its rate for ResNet-50, for every other network.
      weight_decay: of the head's kernel.
      momentum: of SGD.
      crop_scale: range of the share of the area that a random crop takes.
      flip: how often a crop is mirrored. None is what pretraining did: a mirrored
        photograph is one, a mirrored digit is not.

    Raises:
      ValueError: for fewer images than devices, or a setting out of range.
    """
    if learning_rate is None:
        learning_rate = 3.0 if _is_vit(run_config) else 0.1
    config = _config(
        run_config,
        images,
        devices,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        crop_scale=crop_scale,
        flip=flip,
        optim=dict(
            name="sgd",
            learning_rate=learning_rate,
            warmup_epochs=0.0,
            weight_decay=weight_decay,
            momentum=momentum,
        ),
    )
    return Protocol(
        name="linear_augmented",
        model=build_model(run_config.model),
        config=config,
        optimizer=_optimizer(config, images),
        tunes_encoder=False,
        head_deviation=0.01,
        label_smoothing=0.0,
    )


def finetune(
    run_config: Any,
    *,
    images: int,
    devices: int,
    seed: int,
    epochs: int,
    batch_size: int,
    warmup_epochs: float,
    learning_rate: float | None,
    weight_decay: float | None,
    layer_decay: float,
    drop_path: float,
    label_smoothing: float,
    crop_scale: tuple[float, float],
    flip: float | None,
) -> Protocol:
    """Returns fine-tuning: the whole network learns to classify, from a head of zeros.

    Semi-supervised fine-tuning is the same with a subset of the images.

    ViTs follow MAE's recipe (He et al., 2022, Table 9, and `FINETUNE.md` of its code)
    without its RandAugment, mixup, CutMix and erasing: AdamW with layer-wise rates,
    and stochastic depth. Other networks follow SimCLR's (Chen et al., 2020, appendix
    B.5) with plain momentum in place of Nesterov's. BatchNorm takes the statistics of
    each batch, over all devices, and moves the running ones, which the test is on.

    Args:
      run_config, images, devices, seed, epochs, batch_size, crop_scale, flip: as in
        `linear_augmented`.
      warmup_epochs: in which the rate rises; SimCLR has none.
      learning_rate: for a batch of 256, in proportion for others. None is 5e-4 for
        ViTs (MAE's for ViT-B), 0.05 for other networks (SimCLR).
      weight_decay: of kernels; None is 0.05 for ViTs (MAE), 0 for others (SimCLR).
      layer_decay: ViTs: rate of each layer over that of the next one, in (0, 1]; see
        `layer_multipliers`.
      drop_path: ViTs: stochastic depth's rate at the last block.
      label_smoothing: in [0, 1); see `cross_entropy`. SimCLR has none.

    Raises:
      ValueError: as `linear_augmented`.
    """
    is_vit = _is_vit(run_config)
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay {layer_decay} must be above 0 and at most 1")
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"label_smoothing {label_smoothing} must be at least 0 and below 1"
        )
    settings = dict(_TUNE_VIT if is_vit else _TUNE_OTHERS, warmup_epochs=warmup_epochs)
    if learning_rate is not None:
        settings["learning_rate"] = learning_rate
    if weight_decay is not None:
        settings["weight_decay"] = weight_decay
    config = _config(
        run_config,
        images,
        devices,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        crop_scale=crop_scale,
        flip=flip,
        optim=settings,
    )
    optimizer = _optimizer(config, images)
    if is_vit:
        optimizer = optax.chain(optimizer, scale_by_layer(layer_decay))
    return Protocol(
        name="finetune",
        model=_model_to_tune(run_config, drop_path if is_vit else 0.0),
        config=config,
        optimizer=optimizer,
        tunes_encoder=True,
        head_deviation=0.0,
        label_smoothing=label_smoothing,
    )


def _model_to_tune(run_config: Any, drop_path: float) -> Model:
    """Returns the network of a run with all of its encoder free to learn.

    Pretraining may have kept the patch embedding as it was drawn, or shared statistics
    among a number of images that does not divide a batch here.
    """
    changes = dict(bn_scope=None, freeze_patch_embed=False, drop_path=drop_path)
    config = ConfigDict(run_config.model.to_dict() | changes)
    return build_model(config)


def _is_vit(run_config: Any) -> bool:
    return run_config.model.name in vit.WIDTH


def _fitting_batch(batch_size: int, images: int, devices: int) -> int:
    """Returns the largest multiple of the devices that neither number is below."""
    if images < devices:
        raise ValueError(
            f"the train split has {images} images, fewer than the {devices} devices; "
            "use more labels or fewer devices"
        )
    if batch_size < devices:
        raise ValueError(
            f"batch_size {batch_size} is less than the {devices} devices; use {devices}"
        )
    return min(batch_size, images) // devices * devices


def _config(
    run_config: Any,
    images: int,
    devices: int,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    crop_scale: tuple[float, float],
    flip: float | None,
    optim: dict[str, Any],
) -> ConfigDict:
    """Returns as much of a run's config as feed, views and optimizer read."""
    check_positive("epochs", [epochs])
    check_positive("learning_rate", [optim["learning_rate"]])
    view = dict(
        crop_scale=tuple(crop_scale),
        crop_ratio=(3 / 4, 4 / 3),  # torchvision's RandomResizedCrop
        flip=run_config.augment.view1.flip if flip is None else flip,
        jitter=0.0,
        grayscale=0.0,
        blur=0.0,
        solarize=0.0,
    )
    size = run_config.augment.size
    return ConfigDict(
        dict(
            seed=seed,
            epochs=epochs,
            batch_size=_fitting_batch(batch_size, images, devices),
            data=run_config.data,
            augment=dict(
                global_views=1,
                size=size,
                view1=view,
                view2=view,
                local_views=0,
                local_size=size,
                local=view,
            ),
            model=dict(freeze_patch_embed=False),
            optim=dict(optim, decay_all=False),
        )
    )


def _optimizer(config: ConfigDict, images: int) -> optax.GradientTransformation:
    schedule = optim.learning_rate(config, images // config.batch_size)
    return optim.make_optimizer(config, schedule)
