"""How an encoder is evaluated: every setting of `snclr evaluate`, and its default.

    snclr evaluate --workdir=DIR --what=knn,linear --config.knn.k="(1,20)"

Every field is stored beside the numbers it led to, in evaluation.json. A field that may
be None is a placeholder. Variant: `:debug` (a minute on a CPU).
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(name: str = "") -> ConfigDict:
    """Returns the settings; `name` is "" or "debug".

    Raises:
      ValueError: for an unknown name.
    """
    config = ConfigDict()
    # Of held-back parts, subsets, heads and the order of images.
    config.seed = 0
    # Images per step when features are extracted.
    config.batch_size = 500

    config.data = _data()
    config.knn = _knn()
    config.linear = _linear()
    config.linear_augmented = _linear_augmented()
    config.finetune = _finetune()
    config.semi = _semi()
    config.fewshot = _fewshot()
    config.retrieval = _retrieval()
    config.quality = _quality()
    config.segment = _segment()
    config.explore = _explore()
    match name:
        case "":
            return config
        case "debug":
            return _debug(config)
    raise ValueError(f"config variant {name!r} is unknown; use 'debug'")


def _data() -> ConfigDict:
    """The images to evaluate on; None is the run's own, anything else is a transfer."""
    data = ConfigDict()
    data.name = placeholder(str)
    data.path = placeholder(str)
    data.tfds_name = placeholder(str)
    data.train_split = placeholder(str)
    data.test_split = placeholder(str)
    data.image_column = placeholder(str)
    data.label_column = placeholder(str)
    data.pages = placeholder(str)
    data.holdback = placeholder(int)
    return data


def _knn() -> ConfigDict:
    knn = ConfigDict()
    # Every k with every temperature, and unweighted votes of every k, in one pass.
    knn.k = (1, 10, 20, 100, 200)
    knn.temperature = (0.07, 0.1)
    return knn


def _linear() -> ConfigDict:
    """A classifier on cached features; the best on held-back images is tested once."""
    linear = ConfigDict()
    # Heads trained side by side by SGD on features of mean 0 and deviation 1: every
    # rate with every decay on every layer of features.
    linear.learning_rate = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    linear.weight_decay = (0.0, 1e-4)
    linear.epochs = 30
    linear.batch_size = 256
    # Logistic regression by L-BFGS: strengths of the penalty.
    linear.l2 = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    # Steps of L-BFGS at most.
    linear.max_steps = 500
    # Share of every class's training images that chooses among them all.
    linear.holdback = 0.1
    return linear


def _linear_augmented() -> ConfigDict:
    """The protocol of papers: SGD on random crops, the encoder frozen (MoCo v3)."""
    linear = ConfigDict()
    # Passes over the training images, and images per step.
    linear.epochs = 90
    linear.batch_size = 1024
    # Times batch_size / 256. None: MoCo v3's 0.1 for ResNets and 3.0 for ViTs.
    linear.learning_rate = placeholder(float)
    # Of SGD.
    linear.weight_decay = 0.0
    linear.momentum = 0.9
    # Share of the area that random crops take, and how often they are mirrored; None:
    # as often as the run's first view.
    linear.crop_scale = (0.08, 1.0)
    linear.flip = placeholder(float)
    return linear


def _finetune() -> ConfigDict:
    """All of the network learns from all labels."""
    tune = ConfigDict()
    # Passes over the training images, and images per step.
    tune.epochs = 100
    tune.batch_size = 256
    # Epochs in which the rate rises: a twentieth of them all, unless it is set.
    tune.warmup_epochs = tune.get_ref("epochs").to_float() * 0.05
    # Times batch_size / 256. ViTs take AdamW, other networks SGD; None: MAE's 5e-4 and
    # 0.05 for ViTs, SimCLR's 0.05 and 0 for others.
    tune.learning_rate = placeholder(float)
    tune.weight_decay = placeholder(float)
    # Each layer of a ViT learns this much slower than the one above it.
    tune.layer_decay = 0.65
    # ViTs: stochastic depth, the share of images that skip the last block.
    tune.drop_path = 0.1
    # Share of the target that is spread evenly over the classes.
    tune.label_smoothing = 0.1
    # As in linear_augmented.
    tune.crop_scale = (0.08, 1.0)
    tune.flip = placeholder(float)
    return tune


def _semi() -> ConfigDict:
    """Fine-tuning with few labels: what is not named here, or None, is `finetune`'s."""
    semi = ConfigDict()
    # Shares of the training labels, drawn class by class.
    semi.share = (0.01, 0.1)
    # Folder with SimCLR's lists for ImageNet, 1percent.txt and 10percent.txt; "": none.
    semi.lists = ""
    # SimCLR's settings (appendix B.5), which takes 30 epochs for 10%.
    semi.epochs = 60
    semi.warmup_epochs = 0.0
    semi.label_smoothing = 0.0
    semi.learning_rate = placeholder(float)
    return semi


def _fewshot() -> ConfigDict:
    """Logistic regression on the features of a few images of each class."""
    fewshot = ConfigDict()
    # Images of each class.
    fewshot.shots = (1, 5, 10)
    # Independent draws that the mean and its confidence interval are over.
    fewshot.draws = 20
    # Strength of the penalty.
    fewshot.l2 = 1e-2
    return fewshot


def _retrieval() -> ConfigDict:
    """Test images look for images of their class among the training images."""
    retrieval = ConfigDict()
    # Ranks k of recall@k: is one of the first k images of the class?
    retrieval.recall_at = (1, 5, 10)
    return retrieval


def _quality() -> ConfigDict:
    """What features are like, without labels."""
    quality = ConfigDict()
    # Images that it is measured on; RankMe's paper takes 25,600.
    quality.images = 25_600
    # Neighbors whose class is compared, where there are labels.
    quality.k = 20
    return quality


def _segment() -> ConfigDict:
    """Places of images are labelled by their dense features: `snclr segment`."""
    segment = ConfigDict()
    # Labelled training places at most; of more, so many are drawn.
    segment.places = 100_000
    # As in knn: every k with every temperature, and unweighted votes of every k.
    segment.k = (20,)
    segment.temperature = (0.07,)
    # Logistic regression by L-BFGS: strength of the penalty, and steps at most.
    segment.l2 = 1e-3
    segment.max_steps = 500
    return segment


def _explore() -> ConfigDict:
    """What `snclr explore` shows of a set of images, without labels."""
    explore = ConfigDict()
    # Images to label first, spread over all.
    explore.subset = 100
    # Clusters; None: half the square root of the number of images, at most 50.
    explore.clusters = placeholder(int)
    # Cosine from which on two images are near-duplicates; None: what images suggest.
    explore.threshold = placeholder(float)
    return explore


def _debug(config: ConfigDict) -> ConfigDict:
    """Shrinks every evaluation to seconds; says nothing about an encoder."""
    config.batch_size = 64
    config.knn.k = (1, 5)
    config.linear.update(learning_rate=(0.1, 1.0), epochs=2, l2=(1e-2,), max_steps=20)
    config.linear_augmented.update(epochs=1, batch_size=16)
    config.finetune.update(epochs=1, batch_size=16, warmup_epochs=0.0)
    config.semi.update(share=(0.5,), epochs=1)
    config.fewshot.update(shots=(1, 2), draws=3)
    config.quality.update(images=64, k=5)
    config.segment.update(places=1000, k=(5,), max_steps=20)
    return config
