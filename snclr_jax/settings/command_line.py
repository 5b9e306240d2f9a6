"""The words of a command line, in any order; what is wrong with them, in one line.

Like `main`, it imports no JAX, but to explain a mistake.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from snclr_jax.settings.paths import expanded

# Commands whose config is that of evaluations, not a recipe.
_EVALUATING = ("evaluate", "explore", "features", "segment", "similar")
_MOST_MEANT = 3  # fields that are suggested for one that there is not


def parse(words: list[str]) -> list[str]:
    """Parses the flags of `snclr`, wherever they stand.

    Args:
      words: the program, and what follows it.

    Returns:
      The program, the command and its operands.

    Raises:
      ValueError: naming the flag, the field or the file, and the fix.
    """
    plain, named = _sort(words[1:])
    recipe = [word for word in named if word.startswith("--config=")]
    others = [word for word in named if word not in recipe]
    if plain[:1] and plain[0] in _EVALUATING and not recipe:
        recipe = [f"--config={_file_of('evaluate')}"]
    recipe = [_with_file(word) for word in recipe]
    # Fields follow the file that has them, also where the config's flag reads them.
    arguments = sys.argv = [words[0], *plain, *recipe, *others]
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        raise ValueError(_explain(recipe, others, e)) from e


def _sort(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns plain words, and flags, each with its value in one word."""
    plain, named = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            plain.append(word)
        elif "=" not in word and rest and not rest[0].startswith("-") and _takes(word):
            named.append(f"{word}={rest.pop(0)}")
        else:
            named.append(word)
    return plain, named


def _takes(word: str) -> bool:
    """Whether the word after a flag is its value."""
    name = word.lstrip("-")
    if name in flags.FLAGS:
        return not flags.FLAGS[name].boolean
    return name.startswith("config.")


def _with_file(argument: str) -> str:
    """Puts the file of a recipe in the place of its name: found from any folder."""
    flag, _, value = argument.partition("=")
    name, colon, variant = expanded(value).partition(":")
    if "/" in name or name.endswith(".py"):
        if not Path(name).is_file():
            raise ValueError(
                f"--config={name} is no file; name one that is there, or a recipe of "
                "the package ('snclr recipes' lists them)"
            )
        return f"{flag}={name}{colon}{variant}"
    from snclr_jax.configs import recipes

    if name not in (known := recipes()):
        (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(
            f"--config={name} is no recipe; did you mean {nearest}? 'snclr recipes' "
            "lists them all, and a file of your own is named with its .py"
        )
    return f"{flag}={_file_of(name)}{colon}{variant}"


def _file_of(name: str) -> str | None:
    spec = importlib.util.find_spec(f"snclr_jax.configs.{name}")
    return spec.origin if spec else None


def _explain(recipe: list[str], others: list[str], error: Exception) -> str:
    for word in others:
        name, _, value = word.lstrip("-").partition("=")
        if f"flag --{name}={value}:" in str(error) and (needed := _needed(name)):
            return f"--{name}={value}: {needed} is needed"
    config = _load(recipe)
    if isinstance(error, flags.UnrecognizedFlagError):
        return _explain_unknown(f"--{error.flagname}", config)
    sections = {} if config is None else dict(_fields(config))
    fields = [field for field, is_section in sections.items() if not is_section]
    for name in (word.partition("=")[0] for word in others):
        if fields and name.startswith("--config.") and name not in fields:
            if name not in sections:
                return f"{name} is not a field of the config{_meant(name, fields)}"
            first = next(field for field in fields if field.startswith(f"{name}."))
            return f"{name} is a section; set its fields, such as {first}"
    if isinstance(error, KeyError) and recipe:
        return f"{recipe[0]} asks for {error}, which is not there; correct the file"
    # ml_collections wraps its own errors, quotes and line ends included; an error
    # inside the config file comes with a traceback, whose last line says it.
    message = str(error).replace("\\n", "\n").replace("\\'", "'")
    last = [line.strip() for line in message.split("\n") if line.strip()][-1]
    return re.sub(r"^[\w.]*Error: ", "", last)


def _needed(name: str) -> str:
    """Returns what a flag takes in words, "" where it takes any text."""
    flag = flags.FLAGS[name]
    return "True or False" if flag.boolean else flag.parser.syntactic_help


def _explain_unknown(name: str, config: ConfigDict | None) -> str:
    if config is None:
        if name.startswith("--config."):
            return (
                f"{name} is a field of a recipe, and none is named; add "
                "--config=RECIPE, such as --config=digits ('snclr recipes' lists them)"
            )
        from snclr_jax.configs import base

        config = base.get_config()
    known = [each for each, is_section in _fields(config) if not is_section]
    for module, of_module in flags.FLAGS.flags_by_module_dict().items():
        if not module.startswith("absl."):
            known += [f"--{flag.name}" for flag in of_module]
    return f"{name} is not a flag{_meant(name, known)}"


def _load(recipe: list[str]) -> ConfigDict | None:
    """Returns the config that is named, with nothing of it changed; None for none."""
    sys.argv = [sys.argv[0], *recipe]
    try:
        flags.FLAGS(sys.argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError):
        return None
    config = flags.FLAGS["config"].value
    return config if isinstance(config, ConfigDict) else None


def _fields(config: ConfigDict, prefix: str = "--config.") -> Iterator[tuple]:
    """Yields the flag of every field and section, and whether it is a section."""
    for name, value in config.items():
        yield prefix + name, isinstance(value, ConfigDict)
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")


def _meant(name: str, known: Iterable[str]) -> str:
    """Returns the question for the flags whose last part is alike, or abbreviated so.

    Example:
      >>> _meant("--config.lr", ["--workdir", "--config.optim.learning_rate"])
      '; did you mean --config.optim.learning_rate?'
    """
    by_last: dict[str, list[str]] = {}
    for each in known:
        by_last.setdefault(_last(each), []).append(each)
    last = _last(name)
    near = [each for each in by_last if each == last] or [
        each
        for each in by_last
        if "_" in each and "".join(part[:1] for part in each.split("_")) == last
    ]
    near = near or difflib.get_close_matches(last, by_last, n=1)
    meant = [flag for each in near for flag in by_last[each]]
    # Those first that lie in a section of the same name.
    meant = difflib.get_close_matches(name, meant, n=_MOST_MEANT, cutoff=0.0)
    if not meant:
        return "; see snclr --help and docs/configuration.md"
    return f"; did you mean {' or '.join(meant)}?"


def _last(name: str) -> str:
    return name.lstrip("-").rpartition(".")[2]
