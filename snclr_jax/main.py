"""Command line: flags -> one program. Everything else is importable.

The workers of `prepare` load this file again: it imports no JAX.

snclr train --config=digits
python -m snclr_jax.main train --config=digits --config.epochs=5
"""

from __future__ import annotations

import difflib
import io
import os
import signal
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
from snclr_jax.settings.help import page
from snclr_jax.settings.paths import expanded


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
    helps = not arguments or {"--help", "-h", "help"} & set(arguments)
    if helps or PRINTS & set(arguments):
        # As other programs end where `head` has read enough: they lose nothing.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if helps:
        print(page(next((word for word in arguments if word in COMMANDS), "")))
        return
    if "--version" in arguments:
        print(f"snclr_jax {__version__}")
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: no name of a file, and no locale, can end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    # An objective or an evaluator of one's own is found, as by `python -m`.
    sys.path.append("")
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
# Commands that do no more than print.
PRINTS = {"recipes", "compare", "preflight"}
# Commands that Ctrl-C reaches as an exception: they end their workers, or give the
# terminal its cursor back.
CLEANS_UP = {"prepare", "watch"}

if __name__ == "__main__":
    run()
