"""Changes of a config, likely and unlikely, for hypothesis to draw."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from ml_collections import ConfigDict

REASONABLE = {
    bool: [True, False],
    int: [1, 2, 3, 4, 8, 16, 24, 32],
    float: [0.0, 1e-3, 0.1, 0.5, 0.99, 1.0, 2.0, 10],
    str: ["", "float32", "bfloat16", "both", "approx", "linear", "sgd", "adamw"],
}
EXTREME = {
    bool: [None, 0, 1],
    int: [0, -1, 5, 7, 30, 64, 1000, 2**31, 2**32, 2**64, 10**400],
    float: [-0.5, 1.5, 1e-300, 1e-30, 1e-7, 1e6, 1e30, 1e300, math.nan, math.inf],
    str: ["nope", "float64", "target", "imagenet", "lars", "tfds", "folder", "\0"],
}
# Steps through many views or layers take long to trace, and teach nothing more.
EXTREME_OF = {
    "augment.global_views": [0, 1, -3, 17, 1000, 2**31],
    "augment.local_views": [-1, 65, 1000, 2**31],
    "model.depth": [0, -1, 1025, 2**31],
}
REASONABLE_OF = {
    "augment.global_views": [2, 3],
    "augment.local_views": [0, 1, 2],
    "model.depth": [1, 2],
    "model.name": ["resnet18", "patchnet", "vit_ti", "vit_s", "vit_l"],
    "model.vit_heads": ["mocov3", "timm"],
    "model.stem": ["cifar", "imagenet"],
    "model.bn_scope": [2, 4, 8, 16],
    "batch_size": [8, 16, 32, 64],
    "objective.queue.size": [0, 8, 64, 72],
    "data.holdback": [1, 100, 1499, 1500],
}
OF_ANY_TYPE = [None, "x", "", True, 0, 1, 2.5, math.nan, (), (1,), [2], {}, object]
TOGETHER = [
    {"objective.queue.k": 65, "objective.queue.size": 64},
    {"objective.queue.k": 64, "objective.queue.size": 64},
    {"objective.queue.k": 2**20, "objective.queue.size": 2**30},
    {"objective.queue.k": 9, "objective.queue.banks": 8},
    {"objective.queue.k": 0, "objective.queue.size": 0},
    {"batch_size": 24, "objective.queue.banks": 16},
    {"batch_size": 32, "accumulate": 2, "model.bn_scope": 2},
    {"batch_size": 32, "accumulate": 4, "model.bn_scope": 2},
    {"batch_size": 32, "accumulate": 2},
    {"augment.size": 48, "data.image_size": 32},
    {"augment.size": 24, "model.patch_size": 16},
    {"augment.local_views": 1, "augment.local_size": 12},
    {"augment.local_views": 1, "augment.local_size": 40},
    {"model.name": "vit_s", "model.width": 20},
    {"model.name": "patchnet", "model.drop_path": 0.1},
    {"model.name": "patchnet", "model.patch_size": 32},
    {"model.name": "resnet18", "model.scan": True},
    {"model.name": "resnet50", "model.depth": 3},
    {"model.name": "vit_ti", "model.drop_path": 0.5, "model.scan": True},
    {"optim.warmup_epochs": 1.0, "epochs": 1},
    {"objective.queue.dtype": "float64", "model.dtype": "float32"},
    {"data.name": "digits", "data.path": "photos"},
    {"data.pictures_per_digit": 16, "data.image_size": 256},
    {"data.resident": False, "augment.local_views": 2},
    {"batch_size": None, "objective.queue.banks": "x"},
    {"batch_size": None, "accumulate": 0},
    {"objective.queue.size": None, "data.image_size": -1},
    {"epochs": 10**8, "batch_size": 16},
    {"objective": None},
    {"objective.name": None},
    {"objective.queue": None},
    {"objective.queue.length": 64},
]


def fields_of(config: ConfigDict, path: str = "") -> dict[str, type]:
    """Returns the type of every field, at its dotted path."""
    found = {}
    for name in sorted(config):
        if isinstance(config[name], ConfigDict):
            found |= fields_of(config[name], f"{path}{name}.")
        else:
            found[path + name] = config.get_type(name)
    return found


def ranges(value: tuple) -> st.SearchStrategy:
    """Tuples like and unlike one of the base config."""
    one = EXTREME[type(value[0])] + REASONABLE[type(value[0])]
    return st.one_of(
        st.sampled_from([value[::-1], list(value), value * 2, (), (0.0, 1.0), ("x",)]),
        st.lists(st.sampled_from(one), min_size=len(value), max_size=len(value)).map(
            tuple
        ),
    )


@st.composite
def mutations(draw, config: ConfigDict) -> dict[str, Any]:
    """Draws new values of one to three fields, by their dotted paths."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(TOGETHER))
    fields, found = fields_of(config), {}
    for field in draw(
        st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True)
    ):
        kind = fields[field]
        if draw(st.integers(0, 6)) == 0:
            value = draw(st.sampled_from(OF_ANY_TYPE))
        elif kind is tuple:
            value = draw(ranges(get(config, field)))
        elif draw(st.booleans()):
            value = draw(st.sampled_from(REASONABLE_OF.get(field, REASONABLE[kind])))
        else:
            value = draw(st.sampled_from(EXTREME_OF.get(field, EXTREME[kind])))
        found[field] = value
    return found


def get(config: ConfigDict, field: str) -> Any:
    for name in field.split("."):
        config = config[name]
    return config


def mutated(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.ignore_type(), config.unlocked():
        for field, value in changes.items():
            section, _, name = field.rpartition(".")
            (get(config, section) if section else config)[name] = value
    return config
