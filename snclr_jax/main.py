"""Command line: flags -> one program. Everything else is importable.

snclr train --config=configs/digits.py
python -m snclr_jax.main train --config=configs/digits.py --config.epochs=5
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from snclr_jax.metrics import NonFiniteError

HELP = """\
snclr: contrastive pretraining of visual encoders with soft neighbors, in JAX

  snclr train --config=FILE[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE ...]
      Pretrains an encoder, or continues the run in DIR (default: runs/<config>).
      DIR receives checkpoints/, metrics.jsonl, tensorboard/ and summary.json.

  snclr evaluate --workdir=DIR
      Scores the newest checkpoint of a run: kNN and a linear probe on frozen
      features. Writes DIR/evaluation.json.

VARIANT is debug (a minute on a CPU), paper or authors (their choices, configs/base.py).
Every field of configs/base.py can be set:

  snclr train --config=configs/digits.py --config.queue.k=0          # plain InfoNCE
  snclr train --config=configs/digits.py --config.loss.temperature=0.1
  snclr train --config=configs/folder.py --config.data.path=my_photos
  snclr train --config=configs/cifar10.py:debug --config.data.path=cifar10

Ctrl-C and SIGTERM save; the same command continues where it stopped.
"""
COMMANDS = ("train", "evaluate")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")


def run() -> None:
    """Entry point of `snclr` and of `python -m snclr_jax.main`."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h", "help"} & set(arguments):
        print(HELP)
        return
    app.run(main, flags_parser=_parse)


def main(arguments: list[str]) -> None:
    """Runs the command that the arguments name; errors end in one clear message."""
    # Orbax narrates every save; the run's own lines say what matters.
    logging.set_verbosity(logging.WARNING)
    command = arguments[1] if len(arguments) > 1 else ""
    if command not in COMMANDS or len(arguments) > 2:
        _fail(f"{' '.join(arguments[1:])!r} is not a command; use one of {COMMANDS}")
    try:
        {"train": _train, "evaluate": _evaluate}[command]()
    except (ValueError, NonFiniteError, OSError) as error:
        _fail(str(error))


def _train() -> None:
    if _CONFIG.value is None:
        _fail("train needs --config=FILE, for example --config=configs/digits.py")
    from snclr_jax.train import train

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    train(_CONFIG.value, _WORKDIR.value or f"runs/{name}")


def _evaluate() -> None:
    if _WORKDIR.value is None:
        _fail("evaluate needs --workdir=DIR of a run")
    from snclr_jax.evaluate.run import evaluate

    evaluate(_WORKDIR.value)


def _parse(arguments: list[str]) -> list[str]:
    """Parses the flags; an error ends in one line that names the flag or the file."""
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        _fail(_explain(arguments, e))


def _explain(arguments: list[str], error: Exception) -> str:
    # ml_collections wraps its own errors, quotes and line ends included.
    message = str(error).replace("\\n", "\n").replace("\\'", "'")
    lines = [line.strip() for line in message.split("\n") if line.strip()]
    for argument in arguments:
        name = argument.split("=")[0]
        if name.startswith("--config.") and any(
            f"'{part}'" in lines[0] for part in name.split(".")[1:]
        ):
            return " ".join(
                [f"{name} is not a field of the config.", *lines[1:]]
            ).rstrip("'")
    # An error inside the config file comes with a traceback: its last line says it.
    return lines[-1]


def _fail(message: str) -> None:
    print(f"snclr: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    run()
