"""Any config is accepted and makes a step, or is refused with the field and the fix."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from config_mutations import mutated, mutations
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from recipes import RECIPES, recipe

import snclr_jax
from snclr_jax.data import digits, open_data
from snclr_jax.data.choose import choose_from_data
from snclr_jax.devices.mesh import over_batch, replicated
from snclr_jax.models import build_model
from snclr_jax.run.metrics import NonFiniteError, PendingMetrics
from snclr_jax.settings.check import check_against_data, check_config, notes
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.resident import is_resident
from snclr_jax.step.augment import view_settings
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.probe import count_classes
from snclr_jax.step.state import init_train_state, train_state_shapes
from snclr_jax.step.train_step import make_train_step
from snclr_jax.step.views import Batch

PACKAGE = str(Path(snclr_jax.__file__).parent)
FIX = re.compile(
    "use |must be|must divide|is needed|needs|remove|start from|give |add |leave "
    "|decode at least|rises, then falls"
)
# A field that says where data are is answered with the path or name that is not there.
ANSWERED_BY = {"data.name": ("data.path", "data.tfds_name", "data.image_size")}


@functools.cache
def base_config(name: str) -> ConfigDict:
    return recipe(name, "debug")


def accept(config: ConfigDict, devices: int) -> tuple[ConfigDict, Any]:
    """Returns the config and the training images, refused as `train` refuses them."""
    config, _ = choose_from_data(config, devices=devices)
    check_config(config, devices=devices)
    train = open_data(config.data).train
    check_against_data(config, train.size)
    notes(config, train.size)
    return config, train


def make(
    config: ConfigDict, train: Any, mesh: Any, state_of: Any = init_train_state
) -> tuple[Any, Any]:
    """Returns the step, and a function that makes its state, or the shapes of it."""
    steps_per_epoch = train.size // config.batch_size
    objective = build_objective(config)
    model = build_model(config.model, predictor=objective.predictor)
    optimizer = make_optimizer(config, learning_rate(config, steps_per_epoch))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=steps_per_epoch
    )
    classes = count_classes(train.labels) if config.evaluate.online_probe else 0
    init = functools.partial(state_of, probe_classes=classes)
    return step, functools.partial(init, model, objective, optimizer, config, mesh)


def shapes(config: ConfigDict, images: int) -> Batch:
    """The batch that a run of this config hands to its step, of shapes."""
    size, side, views, resident = config.batch_size, config.data.image_size, None, None
    if is_resident(config, images):
        resident = jax.ShapeDtypeStruct((images, side, side, 3), jnp.uint8)
    else:
        views = tuple(
            jax.ShapeDtypeStruct((size, pixels, pixels, 3), jnp.uint8)
            for pixels, _ in view_settings(config.augment)
        )
    return Batch(
        image_id=jax.ShapeDtypeStruct((size,), jnp.int32),
        views=views,
        resident=resident,
        labels=jax.ShapeDtypeStruct((images,), jnp.int32),
    )


def trace(config: ConfigDict, mesh: Any) -> None:
    config, train = accept(config, mesh.size)
    step, state_shapes = make(config, train, mesh, train_state_shapes)
    jax.eval_shape(step, state_shapes(), shapes(config, train.size))


def assert_well_refused(error: ValueError, changes: dict[str, Any]) -> None:
    """The message is ours, names a field that was changed, and says what to do."""
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    assert last.tb_frame.f_code.co_filename.startswith(PACKAGE), "raised elsewhere"
    message = str(error)
    names = {each for field in changes for each in (field, *ANSWERED_BY.get(field, ()))}
    assert any(name in message for name in names), message
    assert FIX.search(message), message


@pytest.fixture
def blank_digits(monkeypatch):
    """Digits of one pixel, made once: nothing here looks at them."""

    def draw(masks, side, random):
        del side, random
        return np.zeros((len(masks), 1, 1, 3), np.uint8)

    monkeypatch.setattr(digits, "draw_digits", draw)
    blank = functools.cache(digits.open_digits.__wrapped__)
    monkeypatch.setattr(digits, "open_digits", blank)


def examples(count: int):
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def assert_each_is_traced_or_refused(names: st.SearchStrategy, count: int, mesh: Any):
    outcomes = Counter()

    @given(data=st.data())
    @examples(count)
    def check(data):
        config = base_config(data.draw(names))
        changes = data.draw(mutations(config))
        try:
            trace(mutated(config, changes), mesh)
            outcomes["accepted"] += 1
        except ValueError as error:
            assert_well_refused(error, changes)
            outcomes["refused"] += 1

    check()
    # Of refusals alone, or of none, little would be learned.
    assert min(outcomes["accepted"], outcomes["refused"]) > count / 20, outcomes


def test_mutated_configs_are_traced_or_refused(mesh_of, blank_digits):
    assert_each_is_traced_or_refused(st.just("digits"), 40, mesh_of(8))


@pytest.mark.slow
def test_a_thousand_mutated_recipes_are_traced_or_refused(mesh_of, blank_digits):
    # Digits are traced in a fifth of a ResNet's time.
    names = st.sampled_from(["digits"] * 40 + RECIPES)
    assert_each_is_traced_or_refused(names, 1000, mesh_of(8))


@pytest.mark.slow
@given(data=st.data())
@examples(30)
def test_what_is_accepted_makes_a_step(data, mesh_of, blank_digits):
    """The step is finite, or ends in the error that a run reports."""
    name, mesh = data.draw(st.sampled_from(["digits"] * 10 + RECIPES)), mesh_of(8)
    config = mutated(base_config(name), data.draw(mutations(base_config(name))))
    try:
        config, train = accept(config, mesh.size)
        step, init = make(config, train, mesh)
    except ValueError:
        assume(False)
    like = jax.eval_shape(init), shapes(config, train.size)
    # What a machine has room for is not the config's to say: `snclr preflight` does.
    assume(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(like)) < 2**26)
    _, metrics = step(init(), random_batch(like[1], mesh))
    pending = PendingMetrics()
    pending.add(1, metrics)
    try:
        pending.take()
    except NonFiniteError as error:
        assert "optim.learning_rate" in str(error)


def random_batch(like: Batch, mesh: Any) -> Batch:
    rng = np.random.default_rng(0)

    def draw(leaf: Any, below: int, sharding: Any) -> jax.Array:
        values = rng.integers(0, below, leaf.shape, leaf.dtype)
        return jax.device_put(values, sharding)

    images, split, whole = like.labels.shape[0], over_batch(mesh), replicated(mesh)
    return Batch(
        image_id=draw(like.image_id, images, split),
        views=like.views and tuple(draw(view, 256, split) for view in like.views),
        resident=like.resident and draw(like.resident, 256, whole),
        labels=draw(like.labels, 10, whole),
    )
