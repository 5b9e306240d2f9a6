"""Every field of a config on its own: it is there, of its type and in its range."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from ml_collections import ConfigDict

from snclr_jax.configs import base
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.settings.embedded import EMBEDDED
from snclr_jax.settings.levels import AUTO, parse_levels
from snclr_jax.settings.objective import objective_class
from snclr_jax.step.channels import COLOR, MOST, channels_of
from snclr_jax.step.objective import Objective

_CHOICES = {
    "data.name": (
        *EMBEDDED,
        *("omniglot", "folder", "parquet", "webdataset", "numpy", "tfds", "python"),
    ),
    "data.pages": (None, "all"),
    "data.order": (None, "random", "windowed"),
    "model.dtype": ("float32", "bfloat16", "float64"),
    "optim.name": ("lars", "adamw", "sgd"),
    "evaluate.network": ("online", "target"),
}
_AT_LEAST_ONE = (
    "batch_size",
    "accumulate",
    "steps_per_call",
    "epochs",
    "data.image_size",
    "data.channels",
    "data.pictures_per_digit",
    "augment.size",
    "augment.local_size",
    "model.width",
    "model.depth",
    "model.patch_size",
    "model.embedding_dim",
    "log.every_steps",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "evaluate.k",
    "evaluate.train_images",
    "evaluate.batch_size",
)
_AT_LEAST_TWO = ("augment.global_views", "model.bn_scope")
_POSITIVE = ("optim.learning_rate",)
_TEMPERATURES = ("evaluate.temperature",)
_NOT_NEGATIVE = (
    "seed",
    "data.holdback",
    "data.num_workers",
    "augment.local_views",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "optim.trust_coefficient",
    "evaluate.every_epochs",
)
_SHARES = ("data.max_bad", "ema.momentum", "ema.final_momentum")
_BELOW_ONE = ("optim.momentum", "optim.beta1", "optim.beta2")
# What no data set and no device asks for; a slip of the keys would take hours to fail.
_AT_MOST = {
    "seed": 2**32 - 1,
    "data.image_size": 2**14,
    "data.channels": MOST,
    "data.num_workers": 2**10,
    "augment.global_views": 16,
    "augment.local_views": 64,
    "model.width": 2**16,
    "model.depth": 2**10,
    "model.embedding_dim": 2**16,
}
_MOST_HIDDEN = 2**20
_OF_CHANNELS = ("data.mean", "data.std")

_VIEW_SHARES = ("flip", "jitter", "grayscale", "blur", "solarize")
_VIEW_STRENGTHS = ("brightness", "contrast", "saturation", "hue")

_NEEDED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
}
# Of float32: the largest number, the smallest normal one, and what is resolved of a
# similarity.
_LARGEST, _TINY, _LEAST_TEMPERATURE = 3.4e38, 1.2e-38, 1e-6


def check_fields(config: ConfigDict, *, unset: tuple[str, ...] = ()) -> None:
    """Raises ValueError naming the field, its value and what is needed.

    The command line refuses values of another type; a config that is built in Python
    may hold anything. Types are those of `configs/base.py` and of the objective's own
    class. An integer is a number too, and a list as good as a tuple.

    Args:
      config: the run's config.
      unset: fields that may be None, as every placeholder of the base config may.
    """
    expected = base.get_config()
    objective = class_of_section(config)
    expected.objective = objective.section(config.objective.name)
    name = config.objective.name
    if name in OBJECTIVES and set(config.objective) != set(expected.objective):
        raise ValueError(
            f"config.objective has not the fields of objective.name {name!r}, "
            f"{sorted(expected.objective)}; name the objective behind the recipe, as "
            f"--config=digits:{name} does"
        )
    _check_section("config", config, expected, unset)
    for field, choices in _CHOICES.items():
        if get_field(config, field) not in choices:
            raise ValueError(
                f"{field} {get_field(config, field)!r} is unknown; use one of {choices}"
            )
    if "://" in config.data.path:
        raise ValueError(
            f"data.path {config.data.path!r} is a URL, and image sets are read from "
            "folders; mount the bucket and name its folder (launch/tpu.sh --mount does)"
        )
    if config.data.range != AUTO:
        parse_levels(config.data.range)
    _check_ranges(config)
    check_annotations("objective", objective, config.objective)
    _check_lists(config)
    for name in ("view1", "view2", "local"):
        _check_view(f"augment.{name}", config.augment[name])


def get_field(config, field: str) -> Any:
    """Returns the value at a dotted path."""
    for name in field.split("."):
        config = config[name]
    return config


def _check_section(
    path: str, section: Any, expected: ConfigDict, unset: tuple[str, ...]
) -> None:
    if not isinstance(section, ConfigDict):
        raise _wrong(path, section, f"a section with the fields {sorted(expected)}")
    for name in section:
        if name not in expected:
            raise ValueError(
                f"{path}.{name} is not a field of the config; remove it, or use one of "
                f"{sorted(expected)}"
            )
    for name in expected:
        field, default = f"{path}.{name}", expected[name]
        if name not in section:
            raise ValueError(
                f"{field} is missing; start from configs/base.py, or set it"
            )
        value, kind = section[name], expected.get_type(name)
        may_be_none = default is None or field.removeprefix("config.") in unset
        if kind is ConfigDict:
            _check_section(field, value, expected[name], unset)
        elif kind is tuple:
            _check_tuple(field, value, expected[name])
        elif not (value is None and may_be_none):
            _check_value(field, value, kind)


def _check_tuple(field: str, value: Any, default: tuple) -> None:
    """Ranges have as many numbers as in the base; widths and channels are a list."""
    kind, count = type(default[0]), len(default)
    fits = isinstance(value, list | tuple)
    if kind is not float and not fits:
        elements = "integers" if kind is int else "strings"
        raise _wrong(field, value, f"a tuple of {elements}")
    if field.removeprefix("config.") in _OF_CHANNELS:
        count = len(value) if fits else count  # see `_check_lists`
    if kind is float and not (fits and len(value) == count):
        raise _wrong(field, value, f"a tuple of {count} numbers")
    for index, element in enumerate(value):
        _check_value(f"{field}[{index}]", element, kind)


def _check_value(field: str, value: Any, kind: type) -> None:
    accepted = (int, float) if kind is float else kind
    # To Python, True is an integer.
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
        raise _wrong(field, value, _NEEDED[kind])
    # Compared, since a float does not hold any integer; and nan is not below anything.
    if kind is float and not abs(value) <= _LARGEST:
        raise _wrong(field, value, f"a number of at most {_LARGEST} in size")


def _wrong(field: str, value: Any, needed: str) -> ValueError:
    return ValueError(
        f"{field} is {value!r} ({type(value).__name__}), {needed} is needed"
    )


def _check_ranges(config: ConfigDict) -> None:
    least = _LEAST_TEMPERATURE
    rules = (
        (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (_AT_LEAST_TWO, lambda value: value >= 2, "at least 2"),
        (_POSITIVE, lambda value: value >= _TINY, "greater than 0"),
        (_TEMPERATURES, lambda value: value >= least, f"at least {least:g}"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        (_SHARES, lambda value: 0 <= value <= 1, "between 0 and 1"),
        (_BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    )
    for fields, holds, rule in rules:
        for field in fields:
            value = get_field(config, field)
            if value is not None and not holds(value):
                raise ValueError(f"{field} {value} must be {rule}")
    for field, most in _AT_MOST.items():
        value = get_field(config, field)
        if value is not None and value > most:
            raise ValueError(f"{field} {value} must be at most {most}")


def _check_lists(config: ConfigDict) -> None:
    channels = channels_of(config.data)
    for field in _OF_CHANNELS:
        count = len(get_field(config, field))
        if count not in (channels, COLOR, 0):  # a recipe's three give way to others
            raise ValueError(
                f"{field} has {count} values, and data.channels is {channels}; give "
                f"{channels}, or () to have them measured"
            )
    for field, holds, rule in (
        ("data.mean", lambda value: 0 <= value <= 1, "between 0 and 1"),
        ("data.std", lambda value: _TINY <= value <= 1, "above 0 and at most 1"),
        *(
            (
                f"model.{head}_hidden",
                lambda value: 1 <= value <= _MOST_HIDDEN,
                f"between 1 and {_MOST_HIDDEN}",
            )
            for head in ("projector", "predictor")
        ),
    ):
        values = get_field(config, field)
        if not all(map(holds, values)):
            raise ValueError(f"{field} {values} must be {rule}, each of them")


def _check_view(name: str, view: ConfigDict) -> None:
    for field in _VIEW_SHARES:
        if not 0 <= view[field] <= 1:
            raise ValueError(f"{name}.{field} {view[field]} must be between 0 and 1")
    for field in _VIEW_STRENGTHS:
        if view[field] < 0:
            raise ValueError(f"{name}.{field} {view[field]} must be 0 or more")
    if view.hue > 0.5:
        raise ValueError(f"{name}.hue {view.hue} must be at most 0.5, half a turn")
    for field, largest in (
        ("crop_scale", 1.0),
        ("crop_ratio", float("inf")),
        ("blur_sigma", float("inf")),
    ):
        low, high = view[field]
        if not _TINY <= low <= high <= largest:
            raise ValueError(
                f"{name}.{field} {(low, high)} must be an increasing pair above 0"
                + (f" and at most {largest:g}" if largest == 1.0 else "")
            )


def class_of_section(config: Any) -> type[Objective]:
    """Returns the class that says which fields the section `objective` has.

    Raises:
      ValueError: where the section, its name or the class is not there.
    """
    section = config.get("objective") if isinstance(config, ConfigDict) else None
    if not isinstance(section, ConfigDict):
        raise _wrong("config.objective", section, "a section with the field 'name'")
    if not isinstance(section.get("name"), str):
        raise _wrong("config.objective.name", section.get("name"), "a string")
    return objective_class(section.name)


def check_annotations(path: str, cls: type, section: ConfigDict) -> None:
    """Checks values of the right type against the annotations of a dataclass.

    Args:
      path: of the section, for messages.
      cls: the dataclass; a field may be one itself.
      section: its values.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        if name not in {field.name for field in dataclasses.fields(cls)}:
            continue  # a class variable
        field, value = f"{path}.{name}", section[name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            check_annotations(field, kind, value)
            continue
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            if value is None:
                continue
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
            choices = typing.get_args(kind)
            raise ValueError(f"{field} {value!r} is unknown; use one of {choices}")
        if typing.get_origin(kind) is Annotated and value is not None:
            for bound in typing.get_args(kind)[1:]:
                holds, rule = _rule(bound, value)
                if not holds:
                    raise ValueError(f"{field} {value} must be {rule}")


def _rule(bound: Any, value: Any) -> tuple[bool, str]:
    """Returns whether a value keeps a bound, and the bound in words."""
    match bound:
        case Ge(least):
            return value >= least, f"at least {least:g}"
        case Gt(0):
            # Its inverse has to be a number, too.
            return value >= _TINY, "greater than 0"
        case Le(most):
            return value <= most, f"at most {most}"
        case Lt(most):
            return value < most, f"below {most:g}"
    raise TypeError(f"{bound} is not a bound that is checked")
