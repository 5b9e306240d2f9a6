"""The base config: every field, its meaning and its default.

A recipe starts from `get_config()`, overrides few fields and ends with
`variant(config, name)`. On the command line variants follow a colon:

    snclr train --config=digits:authors --config.objective.temperature=0.1
    snclr train --config=imagenet_vit_s16:authors,debug

Epochs count passes over the training set. A field that may be None is a placeholder.
Warm-ups, and whatever else begins or ends at an epoch, are a recipe's share of its
epochs: with other epochs they are as much shorter or longer, unless they are set, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from snclr_jax.configs.objectives import choose_objective

from snclr_jax.objectives import OBJECTIVES

VARIANTS = ("debug", "paper", "authors")
# How fields of `optim` and `objective` end that count epochs from the start of a run.
EPOCHS = ("_epochs", "_epoch")


def get_config() -> ConfigDict:
    """Returns the base config."""
    config = ConfigDict()
    # Weights, augmentation and the order of the data all follow from the seed.
    config.seed = 0
    # Images per step, over all devices.
    config.batch_size = 256
    # Gradient accumulation: micro-batches that go through the networks one after the
    # other. Less memory, the same loss over the whole batch. Needs model.bn_scope.
    config.accumulate = 1
    # Steps that the host starts in one call, where the images stay on the device. They
    # compute the same. Where metrics, a checkpoint or an evaluation are due before the
    # call would end, steps are taken one by one.
    config.steps_per_call = 1
    # Over the training set.
    config.epochs = 100

    config.data = _data()
    config.augment = _augment()
    config.model = _model()
    # What a step minimizes; its fields stand in the objective's own file.
    config.objective = OBJECTIVES["snclr"].section("snclr")
    config.optim = _optim()

    config.ema = ConfigDict()
    # Momentum of the target network at the first step, and where a cosine takes it by
    # the end; with both the same it is constant.
    config.ema.momentum = 0.99
    config.ema.final_momentum = 1.0

    config.log = ConfigDict()
    # Metrics are averaged over this many steps, then written.
    config.log.every_steps = 50
    # Where numbers and images go besides metrics.jsonl: any of "tensorboard", "wandb",
    # "mlflow" and "trackio", or () for none. The last three are extras of pip.
    config.log.to = ("tensorboard",)

    config.checkpoint = ConfigDict()
    # Steps between checkpoints; what is evaluated is saved first, too.
    config.checkpoint.every_steps = 1000
    # How many of the newest checkpoints stay.
    config.checkpoint.keep = 2

    config.evaluate = ConfigDict()
    # Epochs between online kNN evaluations; 0 evaluates at the end only.
    config.evaluate.every_epochs = 10
    # "online", or "target", its moving average: whose encoder is evaluated, and taken
    # out of the run by features, export, load_encoder, report and init_from. At the end
    # of a run the target scores no better (benchmarks/RESULTS.md); before, it lags.
    config.evaluate.network = "online"
    # Neighbors of the weighted kNN classifier, and its temperature.
    config.evaluate.k = 20
    config.evaluate.temperature = 0.07
    # The online kNN classifies by at most this many training images.
    config.evaluate.train_images = 50_000
    # Images per step when features are extracted.
    config.evaluate.batch_size = 500
    # Train a linear classifier of the encoder's features beside it and report its
    # accuracy on augmented training images. It costs next to nothing and moves nothing
    # else, but reads the labels of the training images.
    config.evaluate.online_probe = False
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # "digits" or "digit_pairs" (embedded), "folder" (of images), "parquet" (or Arrow),
    # "webdataset" (tars), "numpy" (.npy, .npz), "omniglot" (its archives, unpacked),
    # "tfds", or "python" where train() is given images.
    data.name = "digits"
    # Folder of images or of the files that hold them, or one such file; or the TFDS
    # data directory ("" is TFDS's own default).
    data.path = ""
    # TFDS only: data set name.
    data.tfds_name = ""
    # Splits of a TFDS set, words in the names of files, or folders in a folder of
    # images. "" is the whole set, and "train" and "test" stand for other names, too
    # (docs/data.md). An empty test_split is none.
    data.train_split = "train"
    data.test_split = "test"
    # Parquet only: columns of the images and of their labels; None finds them.
    data.image_column = placeholder(str)
    data.label_column = placeholder(str)
    # Folders only: "all" makes every page of a TIFF an image; None is the first page.
    data.pages = placeholder(str)
    # Images are decoded to this height and width: shorter side resized, then cropped.
    # A set that does not stay on the device is cropped for training before it is
    # resized, out of the whole image; evaluation always uses this square.
    data.image_size = 32
    # Training images held back to choose recipes on, in place of the test split.
    data.holdback = 0
    # Grain worker processes that decode images; 0 decodes in threads. They pass images
    # through shared memory, some 30 MB each for views of 224 pixels (a container's
    # --shm-size), and load the calling script again (guard it: if __name__ ==
    # "__main__").
    data.num_workers = 0
    # Share of a split's images that may be unreadable. Each is replaced by the next one
    # that can be read, and named in the workdir's bad_files.jsonl; one more stops the
    # run. Damage to single files stays far below one in a hundred.
    data.max_bad = 0.01
    # Keep the decoded set on the device: True, False, or None to do so where it is
    # small (see snclr_jax/data/feed.py).
    data.resident = placeholder(bool)
    # "random" shuffles every epoch as a whole; "windowed" reads blocks of 128 images
    # that lie one after the other, for storage that is slow at single reads; None takes
    # "windowed" for TFDS sets in a bucket that gcsfuse shows (docs/tpu.md).
    data.order = placeholder(str)
    # Digits only: pictures drawn from each handwritten digit.
    data.pictures_per_digit = 8
    # Levels "low,high" that become black and white in gray images of more than 8 bits,
    # such as "0,4096" for 12 bits in files of 16. "auto" measures them on training
    # images, and keeps them with the run; None or "full" is 0 to 65536.
    data.range = placeholder(str)
    # Channels of the images, 1 to 16. 3 reads all images in color; of another number,
    # each image has exactly so many (gray files 1), kept as they are stored.
    data.channels = 3
    # Channel statistics in [0, 1], subtracted and divided after augmentation. These
    # are ImageNet's. With another number of values than of channels, such as (), they
    # are measured on 256 training images, and kept with the run.
    data.mean = (0.485, 0.456, 0.406)
    data.std = (0.229, 0.224, 0.225)
    return data


def _augment() -> ConfigDict:
    augment = ConfigDict()
    # Views of each image that have a target; at least 2.
    augment.global_views = 2
    # Their height and width, in pixels.
    augment.size = 32
    # How the first, third, ... and the second, fourth, ... of them are drawn.
    augment.view1 = view()
    augment.view2 = view(solarize=0.2)
    # Smaller views that predict every target and have none (SwAV, section 3.3), their
    # height and width, and how they are drawn.
    augment.local_views = 0
    augment.local_size = 16
    augment.local = view(crop_scale=(0.05, 0.3))
    return augment


def view(**overrides) -> ConfigDict:
    """Returns the augmentation of one view: MoCo v3's without blur (small images)."""
    settings = ConfigDict()
    # Share of the image's area, and aspect ratio, that a random crop takes.
    settings.crop_scale = (0.08, 1.0)
    settings.crop_ratio = (3 / 4, 4 / 3)
    # Probabilities of each operation.
    settings.flip = 0.5
    settings.jitter = 0.8
    settings.grayscale = 0.2
    settings.blur = 0.0
    settings.solarize = 0.0
    # Color jitter strengths (MoCo v3, appendix A).
    settings.brightness = 0.4
    settings.contrast = 0.4
    settings.saturation = 0.2
    settings.hue = 0.1
    # Standard deviation of the blur, in pixels.
    settings.blur_sigma = (0.1, 2.0)
    settings.update(overrides)
    return settings


def set_photo_views(augment: ConfigDict) -> None:
    """Sets the views of photographs: MoCo v3's for ResNets, and SwAV's small crops."""
    augment.view1 = view(crop_scale=(0.2, 1.0), blur=1.0)
    augment.view2 = view(crop_scale=(0.2, 1.0), blur=0.1, solarize=0.2)
    augment.local = view(crop_scale=(0.05, 0.2), blur=0.5)


def _model() -> ConfigDict:
    model = ConfigDict()
    # resnet18, resnet34, resnet50, resnet101, resnet152, vit_ti, vit_s, vit_b, vit_l or
    # patchnet.
    model.name = "resnet18"
    # ResNets: "imagenet" (7x7 stride 2 and max-pool) or "cifar" (3x3 stride 1).
    model.stem = "cifar"
    # Channels of the first stage (ResNet) or of every layer (ViT, patchnet); None is
    # the published number: 64 for every ResNet, so 128 is ResNet-50 (2x).
    model.width = placeholder(int)
    # Layers (ViT, patchnet); None is the published number.
    model.depth = placeholder(int)
    # ViT and patchnet: pixels per patch side.
    model.patch_size = 16
    # ViT: "mocov3" (12 attention heads) or "timm" (3, 6, 12 for Ti, S, B); L has 16.
    model.vit_heads = "mocov3"
    # ViT: keep the random patch embedding (MoCo v3, section 4.2).
    model.freeze_patch_embed = True
    # Hidden widths of projector and predictor, and the embedding dimension d.
    model.projector_hidden = (4096,)
    model.predictor_hidden = (4096,)
    model.embedding_dim = 256
    # BatchNorm without affine after the last layer (ViT: True for both).
    model.projector_last_bn = True
    model.predictor_last_bn = False
    # Images that share BatchNorm statistics: None is the global batch; n is each n
    # consecutive images of it, such as batch_size / devices for one device's own.
    model.bn_scope = placeholder(int)
    # Stochastic depth: how often the last residual branch is left out for an image; the
    # first never is, and it grows evenly in between (Huang et al., 2016).
    model.drop_path = 0.0
    # Keep each block's input alone and compute the block again in the backward pass.
    model.remat = False
    # ViT: one compiled block for all layers. Compiles faster; use it with remat, since
    # the loop keeps what every layer makes.
    model.scan = False
    # Compute type: "float32" or "bfloat16". Parameters, statistics and loss: float32.
    model.dtype = "float32"
    # Encoder to start from, "" for a random one: a file from snclr import or export, a
    # workdir or a checkpoint (of a run, the network that its own evaluate.network
    # names). Both networks start from it, the heads from random weights; a run that is
    # continued does not read it again.
    model.init_from = ""
    return model


def _optim() -> ConfigDict:
    optim = ConfigDict()
    # "lars", "adamw" or "sgd".
    optim.name = "sgd"
    # Peak for a batch of 256; multiplied by batch_size / 256 (the linear scaling rule,
    # Goyal et al., 2017), so that a recipe keeps its value at another batch. Beyond
    # some thousands of images per step, and for AdamW on small sets, the rule asks for
    # too much: lower this value, or lengthen the warm-up, where the loss jumps early.
    optim.learning_rate = 0.06
    # Epochs in which the rate rises from 0; it then falls to 0 as a cosine. With other
    # epochs than the recipe's, and unless it is set, it is the same share of them.
    optim.warmup_epochs = 5.0
    # Of kernels; of everything with decay_all.
    optim.weight_decay = 5e-4
    # Decay norms and biases too, as the authors' AdamW does.
    optim.decay_all = False
    # SGD and LARS.
    optim.momentum = 0.9
    # LARS: eta, and whether its ratio is clipped at the learning rate.
    optim.trust_coefficient = 0.001
    optim.trust_clip = False
    # AdamW.
    optim.beta1 = 0.9
    optim.beta2 = 0.999
    return optim


def variant(
    config: ConfigDict,
    name: str,
    own: Mapping[str, Callable[[ConfigDict], ConfigDict]] = MappingProxyType({}),
) -> ConfigDict:
    """Returns `config` changed by a variant.

    "", "debug", "paper", "authors", or the name of an objective. Several are joined by
    commas, "authors,debug", and applied in that order.

    Args:
      config: any recipe; changed in place.
      name: of the variants.
      own: further ones, which the recipe has for itself.

    Raises:
      ValueError: for an unknown name.
    """
    _scale_warmups(config)
    for each in name.split(","):
        match each:
            case "":
                pass
            case _ if each in own:
                config = own[each](config)
                _scale_warmups(config)
            case "debug":
                config = _debug(config)
            case _ if each in OBJECTIVES:
                config = choose_objective(config, each)
                _scale_warmups(config)
            case "paper" | "authors":
                config = apply_preset(config, preset=each)
            case _:
                # An objective with published settings is one of a recipe's own, too.
                others = [name for name in own if name not in OBJECTIVES]
                raise ValueError(
                    f"config variant {each!r} is unknown; use one of "
                    f"{(*others, *VARIANTS, *OBJECTIVES)}"
                )
    return config


def _scale_warmups(config: ConfigDict) -> None:
    """Lets warm-ups and all `EPOCHS` follow `epochs`: each is the recipe's share."""
    for section in (config.optim, config.objective):
        for name in [name for name in section if name.endswith(EPOCHS)]:
            # Multiplied first: the recipe's own epochs give its own number, exactly.
            epochs = config.get_ref("epochs").to_float()
            section[name] = epochs * section[name] / config.epochs


def apply_preset(config: ConfigDict, *, preset: str) -> ConfigDict:
    """Sets every choice where the paper and the authors' code disagree.

    Data, network, batch, K and the sizes of the queue stay as they are.

    Args:
      config: any recipe; changed in place.
      preset: "paper" or "authors".

    Raises:
      ValueError: for an unknown preset.
    """
    if preset not in ("paper", "authors"):
        raise ValueError(f"preset {preset!r} is unknown; use 'paper' or 'authors'")
    if config.objective.name != "snclr":
        raise ValueError(
            f"variant {preset!r} is one of SNCLR, and objective.name is "
            f"{config.objective.name!r}; leave one of them out"
        )
    authors = preset == "authors"
    objective = config.objective
    objective.form = "soft_cross_entropy" if authors else "paper"
    # The authors add both directions, each times 2 tau. A reference, so that the scale
    # follows a temperature that is set later.
    objective.scale = 4 * objective.get_ref("temperature") if authors else 1.0
    objective.decoupled = False
    objective.neighbor_weight = 1.0
    objective.neighbor_warmup_epochs = 0.0
    objective.attention.kind = "cosine" if authors else "linear"
    objective.attention.temperature = 1.0
    objective.attention.gamma = 1.0
    objective.attention.threshold = None
    objective.attention.stop_gradient = False
    # The authors keep one queue per device: set banks to their number of devices.
    objective.queue.banks = 1
    objective.queue.exclude_same_image = not authors
    objective.queue.push = "second"
    config.optim.decay_all = authors and config.optim.name == "adamw"
    return config


def _debug(config: ConfigDict) -> ConfigDict:
    """Shrinks any recipe to a minute on a CPU; says nothing about its quality.

    The embedded digits take the place of its data, so nothing has to be there; name
    other data behind it, such as --config.data.name=folder --config.data.path=FOLDER.
    """
    config.batch_size = 16
    config.accumulate = 1
    config.epochs = 1
    config.data.name = "digits"
    config.data.image_size = 32
    config.data.num_workers = 0
    config.data.pictures_per_digit = 1
    config.augment.size = 32
    config.augment.local_size = 16
    if "queue" in config.objective:
        config.objective.queue.size = 64
        if "k" in config.objective.queue:
            config.objective.queue.k = min(config.objective.queue.k, 4)
        if "rank" in config.objective.queue:
            config.objective.queue.rank = 16
    if config.model.name.startswith("resnet"):
        config.model.width = 16
        config.model.stem = "cifar"
    else:
        config.model.width = 48 if config.model.name == "vit_l" else 24
        config.model.depth = 1
        config.model.patch_size = min(config.model.patch_size, 16)
    config.model.projector_hidden = (32,)
    config.model.predictor_hidden = (32,)
    config.model.embedding_dim = 16
    config.optim.warmup_epochs = 0.0
    config.log.every_steps = 10
    config.evaluate.every_epochs = 1
    return config
