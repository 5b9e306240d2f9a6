"""Command line: flags -> one program. Everything else is importable.

The workers of `prepare` load this file again: it imports no JAX.

snclr train --config=digits
python -m snclr_jax.main train --config=digits --config.epochs=5
"""

from __future__ import annotations

import difflib
import io
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from snclr_jax import __version__
from snclr_jax.devices.compilation_cache import keep_compiled
from snclr_jax.devices.signals import ENDED, end_at_once
from snclr_jax.run.files import NAMED_WRONGLY
from snclr_jax.settings.command_line import parse
from snclr_jax.settings.paths import expanded

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


class _PathParser(flags.ArgumentParser):
    """Paths as they are meant: a shell leaves `~` after `=`."""

    def parse(self, argument: str) -> str:
        return expanded(argument)


def _path(name: str, default: str | None, help: str) -> flags.FlagHolder:
    return flags.DEFINE(_PathParser(), name, default, help)


_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe: its name or file.")
_WORKDIR = _path("workdir", None, "Folder of the run.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, such as v5e:8x8.")
_SLICES = flags.DEFINE_integer("slices", 1, "Such TPU slices.", lower_bound=1)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "This process.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", None, "Training images.", lower_bound=1)
_path("source", "", "Images to prepare: folder or tar.")
_SOURCE_TEST = _path("source_test", "", "Test images: folder or tar.")
_TEST_LABELS = _path("test_labels", "", "Classes of the test images.")
flags.DEFINE_string("name", "", "TFDS set to prepare.")
_OUT = _path("out", "", "File or folder to write.")
_path("masks", "", "Folder of images and masks.")
_WHAT = flags.DEFINE_list("what", None, "Evaluations.")
_NETWORK = flags.DEFINE_string("network", None, "Encoder: online or target.")
_OPSET = flags.DEFINE_integer("opset", None, "Version of ONNX's operators.")
_FORMAT = flags.DEFINE_string("format", None, "Format of the exported file.")
_path("weights", "", "Weights to import.")
_N = flags.DEFINE_integer("n", None, "Similar images.", lower_bound=1)
_BASELINES = flags.DEFINE_boolean("baselines", False, "Score the baselines too.")
_ALLOW = flags.DEFINE_list("allow_changes", [], "Fields that may change.")
_ALL = flags.DEFINE_boolean("all", False, "Show everything.")
_ONCE = flags.DEFINE_boolean("once", False, "Look once.")
_SHARD_MB = flags.DEFINE_integer("shard_mb", None, "Size of a shard.", lower_bound=1)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes that decode.", lower_bound=1
)
_MAX_UNREADABLE = flags.DEFINE_float(
    "max_unreadable",
    None,
    "Share of unreadable images to accept.",
    lower_bound=0,
    upper_bound=1,
)


def run() -> None:
    """Entry point of `snclr` and of `python -m snclr_jax.main`."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h", "help"} & set(arguments):
        print(_page(next((word for word in arguments if word in COMMANDS), "")))
        return
    if "--version" in arguments:
        print(f"snclr_jax {__version__}")
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: no name of a file, and no locale, can end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not CLEANS_UP & set(arguments):
        end_at_once()
    keep_compiled(os.environ)
    try:
        app.run(main, flags_parser=_parse)
    except KeyboardInterrupt:
        _fail(ENDED, status=130)


def main(arguments: list[str]) -> None:
    """Runs the command that the arguments name; errors end in one clear message."""
    # Orbax narrates every save, and raises the errors whose traceback it logs; the
    # run's own lines say what matters.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(lambda said: "orbax" not in said.pathname)
    command = arguments[1] if len(arguments) > 1 else ""
    operands = arguments[2:]
    if command not in COMMANDS or (operands and command not in OF_PATHS):
        near = difflib.get_close_matches(command, set(COMMANDS) - {command}, n=1)
        meant = f"did you mean {near[0]}? " if near and not operands else ""
        commands = ", ".join(COMMANDS)
        said = " ".join(arguments[1:])
        _fail(f"{said!r} is not a command; {meant}use one of {commands}")
    try:
        paths = [expanded(operand) for operand in operands]
        COMMANDS[command](*([paths] if command in OF_PATHS else []))
    except (ValueError, *NAMED_WRONGLY) as error:
        _fail(str(error))
    except OSError as error:
        _fail(str(error), status=os.EX_TEMPFAIL)
    except MemoryError as error:
        _fail(
            f"there is no more memory for this process: {error}; use a smaller "
            "batch_size or data.num_workers, or give it more (ulimit -v, the "
            "scheduler's or the container's limit)"
        )


def _train() -> None:
    config = _config("train")
    _join()
    from jax.errors import JaxRuntimeError

    from snclr_jax.run.checkpoint_reader import OUT_OF_MEMORY
    from snclr_jax.run.metrics import NonFiniteError
    from snclr_jax.train import train

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    try:
        train(config, _WORKDIR.value or f"runs/{name}", allow=_ALLOW.value)
    except NonFiniteError as error:
        _fail(str(error))
    except JaxRuntimeError as error:
        if not OUT_OF_MEMORY.search(str(error)):
            raise
        said = str(error).partition("\n")[0]
        _fail(
            f"the run does not fit into memory ({said}); use a smaller batch_size, "
            "model, augment.size or objective.queue.size, a larger accumulate, or "
            "model.remat"
        )


def _recipes() -> None:
    from snclr_jax.configs import recipes

    for name, line in recipes().items():
        print(f"{name:18}{line}")


def _evaluate() -> None:
    (workdir,) = _needed("evaluate", "workdir")
    settings = _evaluation_settings()
    _join()
    from snclr_jax.evaluate.run import evaluate
    from snclr_jax.run.metrics import NonFiniteError

    try:
        evaluate(
            workdir,
            _WHAT.value,
            settings,
            network=_NETWORK.value,
            baselines=_BASELINES.value,
        )
    except NonFiniteError as error:
        _fail(str(error))


def _segment() -> None:
    workdir, masks = _needed("segment", "workdir", "masks")
    settings = _evaluation_settings()
    from snclr_jax.evaluate.segment import segment

    scored = {"network": _NETWORK.value, "baselines": _BASELINES.value}
    segment(workdir, masks, settings, **scored)


def _features() -> None:
    workdir, out = _needed("features", "workdir", "out")
    settings = _evaluation_settings()
    _join()
    from snclr_jax.evaluate.extract import extract

    extract(workdir, out, settings, network=_NETWORK.value)


def _explore() -> None:
    (workdir,) = _needed("explore", "workdir")
    settings = _evaluation_settings()
    from snclr_jax.explore.run import explore

    print(explore(workdir, settings, network=_NETWORK.value, out=_OUT.value))


def _similar(queries: list[str]) -> None:
    (workdir,) = _needed("similar", "workdir")
    settings = _evaluation_settings()
    from snclr_jax.explore.similar import similar

    given = _given(n=_N.value)
    whose = {"network": _NETWORK.value, "out": _OUT.value}
    print(similar(queries, workdir, settings, **whose, **given))


def _export() -> None:
    workdir, out = _needed("export", "workdir", "out")
    from snclr_jax.evaluate.results import read_records, records_path
    from snclr_jax.export.run import export

    records = read_records(records_path(workdir))
    given = _given(format=_FORMAT.value, opset=_OPSET.value)
    print(export(workdir, out, network=_NETWORK.value, records=records, **given))


def _import() -> None:
    config = _config("import")
    weights, out = _needed("import", "weights", "out")
    from snclr_jax.export.import_weights import import_weights

    print(import_weights(weights, out, config, network=_NETWORK.value))


def _compare(workdirs: list[str]) -> None:
    from snclr_jax.report.compare import compare

    print(compare(workdirs, everything=_ALL.value))


def _report() -> None:
    (workdir,) = _needed("report", "workdir")
    from snclr_jax.report.run import report

    print(report(workdir, network=_NETWORK.value))


def _watch(workdirs: list[str]) -> None:
    from snclr_jax.run.watch import watch

    watch(workdirs or _needed("watch", "workdir"), once=_ONCE.value)


def _evaluation_settings() -> ConfigDict:
    if "fewshot" not in _loaded():
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        _fail(
            f"--config={name} is a recipe; an evaluation's settings are those of "
            "configs/evaluate.py, and the run's own config is read from its checkpoint"
        )
    return _CONFIG.value


def _preflight() -> None:
    config = _config("preflight")
    from snclr_jax.preflight import DoesNotFit, preflight

    try:
        preflight(
            config,
            topology=_TOPOLOGY.value,
            slices=_SLICES.value,
            images=_IMAGES.value,
        )
    except DoesNotFit as error:
        _fail(str(error), status=DOES_NOT_FIT)


def _prepare() -> None:
    source, name, out = _needed("prepare", "source", "name", "out")
    if (_PROCESS.value is None) != (_PROCESSES.value is None):
        _fail("prepare needs both --processes=N and --process=0 to N-1, or neither")
    from snclr_jax.data.prepare.parts import Part
    from snclr_jax.data.prepare.run import prepare

    prepare(
        source,
        name,
        out,
        source_test=_SOURCE_TEST.value,
        test_labels=_TEST_LABELS.value,
        workers=_WORKERS.value,
        part=Part(_PROCESS.value or 0, _PROCESSES.value or 1),
        **_given(shard_mb=_SHARD_MB.value, max_unreadable=_MAX_UNREADABLE.value),
    )


def _join() -> None:
    from snclr_jax.devices.processes import start

    start(
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process=_PROCESS.value,
    )


def _needed(command: str, *names: str) -> list[Any]:
    missing = [f"--{name}" for name in names if not flags.FLAGS[name].value]
    if missing:
        _fail(f"{command} needs {' and '.join(missing)}; see snclr --help")
    return [flags.FLAGS[name].value for name in names]


def _given(**values: Any) -> dict[str, Any]:
    """Returns what was set; a function has the defaults of all the rest."""
    return {name: value for name, value in values.items() if value is not None}


def _config(command: str) -> ConfigDict:
    if _CONFIG.value is None:
        _fail(
            f"{command} needs --config=RECIPE, such as --config=digits; "
            "'snclr recipes' lists them"
        )
    return _loaded()


def _loaded() -> ConfigDict:
    try:
        # A file that could not be loaded says so when it is first asked for something.
        _CONFIG.value.keys()
    except OSError as error:
        raise ValueError(str(error)) from error
    return _CONFIG.value


def _parse(arguments: list[str]) -> list[str]:
    try:
        return parse(arguments)
    except ValueError as error:
        _fail(str(error))


def _page(command: str) -> str:
    """Returns the help of one command; of all, where none is named."""
    if not command:
        return HELP + ON_CONFIGS
    paragraphs = HELP.split("\n\n")
    (page,) = (each for each in paragraphs if each.startswith(f"  snclr {command}"))
    return f"{page}\n{ON_CONFIGS}" if "--config=RECIPE" in page else page


def _fail(message: str, *, status: int = 2) -> NoReturn:
    print(f"snclr: {message}", file=sys.stderr)
    sys.exit(status)


COMMANDS = {
    "train": _train,
    "recipes": _recipes,
    "evaluate": _evaluate,
    "segment": _segment,
    "explore": _explore,
    "similar": _similar,
    "features": _features,
    "export": _export,
    "import": _import,
    "compare": _compare,
    "report": _report,
    "watch": _watch,
    "preflight": _preflight,
    "prepare": _prepare,
}

# The exit status of a preflight; docs/reliability.md has all of them.
DOES_NOT_FIT = 3
# Commands that name runs, or images, without a flag.
OF_PATHS = ("compare", "similar", "watch")
# Commands that Ctrl-C reaches as an exception: they end their workers, or give the
# terminal its cursor back.
CLEANS_UP = {"prepare", "watch"}

if __name__ == "__main__":
    run()
