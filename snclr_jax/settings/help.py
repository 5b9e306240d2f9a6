"""What `snclr --help` says, of all commands or of one.

Like `main`, it imports no JAX.
"""

from __future__ import annotations

HELP = """\
snclr: contrastive pretraining of visual encoders with soft neighbors, in JAX

  snclr train --config=RECIPE[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE ...]
      Pretrains an encoder, or continues the run in DIR (default: runs/RECIPE).
      DIR receives checkpoints/, metrics.jsonl, tensorboard/ and summary.json.

  snclr recipes
      Lists the recipes, a line each. A recipe of your own is named by its path, such
      as --config=mine.py.

  snclr evaluate --workdir=DIR [--what=knn,linear] [--baselines] [--config.FIELD=VALUE]
      Scores an encoder and prints a table; DIR/evaluation.json keeps every number
      with its settings. DIR is a run's folder (its newest checkpoint), one of its
      checkpoints (DIR/checkpoints/STEP) or an exported file. --what takes any of knn,
      linear, linear_augmented, finetune, semi, fewshot, retrieval, quality; left out,
      knn and linear, or what the labels suffice for: quality needs none. With
      --baselines an untrained encoder and raw pixels are scored beside it.
      --network=online or target says whose encoder (default, here and below: what
      the run's evaluate.network says). The settings are the fields of
      configs/evaluate.py. On other images:
        snclr evaluate --workdir=DIR --config.data.name=folder --config.data.path=FOLDER
        snclr evaluate --workdir=DIR --config.data.name=tfds \\
            --config.data.tfds_name=cifar100 --config.data.path=DATA_DIR

  snclr segment --workdir=DIR --masks=FOLDER [--baselines] [--config.segment...]
      Labels the pixels of test images by the encoder's dense features: kNN and a linear
      classifier of places; prints mIoU and pixel accuracy, and the IoU of every label.
      FOLDER has train/images/NAME.jpg with train/masks/NAME.png, labels from 0 on where
      255 does not count, and the same in test/.

  snclr explore --workdir=DIR [--out=FOLDER] [--network=...] [--config.data...]
      Shows what images hold, without labels: DIR/explore/explore.html, a page that
      needs no network, has a map with pictures, clusters, near-duplicates, outliers,
      covered regions and what to label first; tables of all images lie beside it.
      --config.explore.subset=100, .clusters=N and .threshold=COSINE are its settings.

  snclr similar IMAGE IMAGE ... --workdir=DIR [-n 10] [--out=FOLDER] [--config.data...]
      Prints the images of the run that are most like each IMAGE, a file, and shows them
      in DIR/explore/similar.html.

  snclr features --workdir=DIR --out=FILE.npz [--network=...] [--config.data...]
      Writes every image's features, label, split and name into one numpy file.

  snclr export --workdir=DIR --out=FILE [--format=FORMAT] [--network=...]
      Writes the encoder into one file and, beside it, FILE.md, which says what it is,
      what it scored and how to load it. FORMAT is safetensors (this package's own;
      evaluate and features take it as DIR), torchvision or detectron2 (ResNets), timm
      (ViTs), stablehlo (a program that needs JAX alone, FILE.stablehlo), onnx (a
      program for onnxruntime, FILE.onnx; --opset=N, 17 or later), or hub (a folder in
      the layout of Hugging Face's, which evaluate and features take as DIR, too).

  snclr import --weights=FILE --config=RECIPE[:VARIANT] --out=FILE.safetensors
      Turns a ResNet under torchvision's names or a ViT under timm's, alone or in a
      MoCo v3 checkpoint (--network=online or target), into this package's format.
      Start a run from it: snclr train ... --config.model.init_from=FILE.safetensors

  snclr compare DIR DIR ... [--all]
      Prints runs side by side: objective, images, time, scores, and the first settings
      that differ. Runs that differ in their seed alone are one column, with confidence
      intervals. With --all: every setting that differs, curves, every score.

  snclr report --workdir=DIR [--network=...]
      Writes DIR/report.html, one page that needs no network: curves, neighbor gallery,
      positiveness, where the encoder looks, map of the embedding, confusion, queue,
      evaluations, settings; and its figures as DIR/figures/*.png. The run may still
      be training.

  snclr watch DIR DIR ... [--once]
      Shows runs in the terminal until all are finished: step, time left, loss, kNN,
      images/s, neighbors, checkpoint. It reads their files and nothing else.
      With --once it looks once.

  snclr preflight --config=RECIPE[:VARIANT] [--topology=SLICE [--slices=N]]
                  [--images=N]
      Compiles the training step and prints the memory, work, communication and time
      that it needs. SLICE is a TPU slice such as v5e:8x8, compiled for without a
      TPU; left out, the devices here. N training images are assumed where the data
      are elsewhere. Exits with 3 where the step does not fit.

  snclr prepare --source=DIR_OR_TAR --name=NAME --out=DIR [--source_test=DIR_OR_TAR]
      Writes images, as they are encoded, into the TFDS set DIR/NAME: a folder of
      images, train/<class>/* with test/ or val/, or such a folder as a tar. With
      --source_test, --source is what train/ would be. Every image is decoded once by
      --workers=N processes (default: one a core); unreadable ones are left out and
      listed, up to --max_unreadable=0.01 of them. Shards hold --shard_mb=256 MB.
      ImageNet, from its tars:
        snclr prepare --source=ILSVRC2012_img_train.tar --name=imagenet2012 \\
            --source_test=ILSVRC2012_img_val.tar --out=DIR
      Several machines that all see DIR share the work by --processes=N --process=I on
      each; the one that ends last finishes the set.
      Test images without class folders take their classes from --test_labels=FILE,
      one a line in the order of names; for ImageNet's the list is known.

snclr COMMAND --help shows one of these alone; snclr --version, the version.
"""

ON_CONFIGS = """
VARIANT is debug (a minute on a CPU, with the embedded digits in place of the data),
paper or authors (their choices, configs/base.py); several are joined by commas.
Every field of configs/base.py can be set:

  snclr train --config=digits --config.objective.queue.k=0          # plain InfoNCE
  snclr train --config=digits --config.objective.temperature=0.1
  snclr train --config=folder --config.data.path=my_photos
  snclr train --config=imagenet_resnet50:400 --config.data.path=DIR
  snclr train --config=imagenet_vit_s16:debug

Ctrl-C saves, and so do a closed terminal and SIGTERM, SIGUSR1, SIGUSR2 and SIGXCPU;
the same command continues where it stopped. A run is continued with its own config:
--allow_changes=objective.queue.size,augment takes a changed field or section, and says
what it means; model, optim.name and objective.attention.kind cannot change.

Several processes: --coordinator=HOST:PORT --processes=N --process=I on each; on Cloud
TPU and under srun they find each other. launch/ has scripts for both.
"""


def page(command: str) -> str:
    """Returns the help of one command; of all, where none is named."""
    if not command:
        return HELP + ON_CONFIGS
    paragraphs = HELP.split("\n\n")
    (text,) = (each for each in paragraphs if each.startswith(f"  snclr {command}"))
    return f"{text}\n{ON_CONFIGS}" if "--config=RECIPE" in text else text
