"""Every objective: its oracle, recorded values, any devices, and the ends of its range.

`objective_cases/` has a file for each, with its equations in numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import objective_cases
import pytest
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from objective_cases.case import SEED, Case, Rows

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.step.objective import Now, Seen

CASES = {
    f"{module.name}-{number}": case
    for module in pkgutil.iter_modules(objective_cases.__path__)
    if module.name != "case"
    for number, case in enumerate(
        importlib.import_module(f"objective_cases.{module.name}").CASES
    )
}
RECORDED = {
    f"{name}-{number}": recorded
    for name, case in CASES.items()
    for number, recorded in enumerate(case.recorded)
}
BATCH, DIM, STEP, STEPS_PER_EPOCH = 8, 6, 7, 4
ROWS = ("projection", "prediction")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_rows(case: Case, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    every = case.global_views + case.local_views
    objective = type(case.objective)

    def draw(views):
        rows = rng.normal(size=(views, BATCH, DIM))
        return unit(rows) if objective.unit_rows else rows

    projection = draw(every)
    return Rows(
        projection,
        draw(every) if objective.predictor else projection,
        draw(case.global_views)
        if objective.target
        else projection[: case.global_views],
        rng.permutation(3 * BATCH)[:BATCH].astype(np.int32),
    )


def placed(rows, mesh) -> Seen:
    over_images = NamedSharding(mesh, P(None, "data"))
    return Seen(
        *(jax.device_put(jnp.asarray(array), over_images) for array in rows[:3]),
        jax.device_put(jnp.asarray(rows.image_id), NamedSharding(mesh, P("data"))),
    )


def put(objective, state, mesh):
    specs = objective.specs(state)
    return jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), state, specs
    )


def now(mesh, step) -> Now:
    return Now(jnp.asarray(step, jnp.int32), STEPS_PER_EPOCH, mesh, SEED)


def start(case: Case, mesh, *, pushes: int, dtype=np.float64):
    """Returns parameters, and a state that saw `pushes` batches before `STEP`."""
    objective = case.objective
    params, state = objective.init(jax.random.key(0), DIM)
    rng = np.random.default_rng(5)
    # Unlike their start, such as the identity, which would hide a transposed matrix.
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), dtype),
        params,
    )
    state = put(objective, state, mesh)
    for number in range(pushes):
        rows = random_rows(case, seed=100 + number)
        seen = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == float else x, placed(rows, mesh)
        )
        state = update(objective, mesh, state, seen, STEP - pushes + number)
    return params, state


@functools.cache
def compiled(objective, mesh):
    """Returns the loss and metrics with its gradients, and the update, compiled.

    Gradients are by parameters, projection and prediction.
    """

    def loss_of(params, projection, prediction, state, seen, step):
        moved = seen._replace(
            projection=projection,
            prediction=prediction if objective.predictor else projection,
        )
        at = now(mesh, step)
        value, aux = objective.loss(params, state, moved, at)
        return value, objective.metrics(aux, moved, None, at)

    def update(state, seen, step):
        return objective.update(state, seen, now(mesh, step))

    gradients_of = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    return jax.jit(gradients_of), jax.jit(update)


def value_and_gradients(objective, mesh, params, state, seen):
    """Returns the loss, metrics, and its gradients by what they are of."""
    function, _ = compiled(objective, mesh)
    rows = seen.projection, seen.prediction
    (value, metrics), gradients = function(params, *rows, state, seen, np.int32(STEP))
    return value, metrics, dict(zip(("params", *ROWS), gradients, strict=True))


def update(objective, mesh, state, seen, step):
    _, function = compiled(objective, mesh)
    return function(state, seen, np.int32(step)) if jax.tree.leaves(state) else state


def numpy_of(tree):
    """Returns arrays that may be spread over several processes."""
    if jax.process_count() > 1:
        return process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, jax.device_get(tree))


def by_name(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(numpy_of(tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def same_arrays(arrays, expected) -> None:
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, atol=1e-12, err_msg=name)


def test_every_objective_has_a_case():
    tried = {type(case.objective) for case in CASES.values()}
    assert set(OBJECTIVES.values()) == tried


def test_a_section_has_every_default():
    for name, cls in OBJECTIVES.items():
        assert cls.from_section(cls.section(name)) == cls()


def slope(function, at, line) -> float:
    """Returns the derivative of `function` at `at` along `line`, of fourth order."""
    step = 1e-3

    def moved(distance):
        return function(jax.tree.map(lambda x, to: x + distance * to, at, line))

    near, far = (moved(d) - moved(-d) for d in (step, 2 * step))
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("pushes", [0, 1, 4], ids=["empty", "half", "wrapped"])
@every_case
def test_loss_gradients_and_state_are_those_of_the_equations(case, pushes, mesh_of):
    """Gradients against differences of the oracle's values, along random lines."""
    mesh, objective = mesh_of(4), case.objective
    params, state = start(case, mesh, pushes=pushes)
    if pushes and not jax.tree.leaves(state):
        pytest.skip("has no state")
    rows = random_rows(case, seed=1)
    seen = placed(rows, mesh)
    value, metrics, gradients = value_and_gradients(
        objective, mesh, params, state, seen
    )
    params, before = numpy_of(params), numpy_of(state)
    stopped = rows._replace(params=params)

    def oracle(params=params, **moved):
        if "projection" in moved and not objective.predictor:
            moved["prediction"] = moved["projection"]
        own = rows._replace(**moved)
        return case.loss(objective, params, before, own, stopped, STEP)

    np.testing.assert_allclose(value, oracle(), rtol=1e-9, atol=1e-12)
    if case.metrics:
        expected = case.metrics(objective, params, before, rows, STEP)
        close_arrays({name: metrics[name] for name in expected}, expected)
    moves = {"params": params, "projection": rows.projection}
    if objective.predictor:
        moves["prediction"] = rows.prediction
    rng = np.random.default_rng(2)
    for name, at in moves.items():
        line = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), at)
        expected = slope(lambda x, name=name: oracle(**{name: x}), at, line)
        products = jax.tree.map(np.vdot, numpy_of(gradients[name]), line)
        np.testing.assert_allclose(
            sum(jax.tree.leaves(products)), expected, rtol=1e-7, atol=1e-8, err_msg=name
        )
    if case.state_after:
        expected = case.state_after(objective, before, rows, STEP)
        same_arrays(by_name(update(objective, mesh, state, seen, STEP)), expected)
    else:
        assert not jax.tree.leaves(state)


def everything(case: Case, mesh) -> dict[str, jax.Array]:
    """Returns the loss, metrics, gradients and the state after an update, by name."""
    params, state = start(case, mesh, pushes=2)
    seen = placed(random_rows(case, seed=1), mesh)
    value, metrics, gradients = value_and_gradients(
        case.objective, mesh, params, state, seen
    )
    after = update(case.objective, mesh, state, seen, STEP)
    return by_name(
        {"loss": value, "metrics": metrics, "gradients": gradients, "state": after}
    )


def close_arrays(arrays, expected) -> None:
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(
            arrays[name], array, rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].neighbors])
def test_neighbors_that_are_shown_are_those_of_the_equations(name, mesh_of):
    case, mesh = CASES[name], mesh_of(4)
    params, state = start(case, mesh, pushes=2)
    rows = random_rows(case, seed=1)
    shown = jax.jit(
        lambda params, state, seen: case.objective.neighbors(
            params, state, seen, now(mesh, STEP)
        )
    )(params, state, placed(rows, mesh))
    before = numpy_of(state)
    expected = case.neighbors(case.objective, numpy_of(params), before, rows)
    for image, (nearest, weights) in enumerate(expected):
        count = len(nearest)
        assert shown.valid[image].tolist() == [
            number < count for number in range(shown.valid.shape[1])
        ]
        assert shown.row[image, :count].tolist() == list(nearest)
        assert (shown.image_id[image, :count] == before.image_id[nearest]).all()
        np.testing.assert_allclose(shown.weight[image, :count], weights, atol=1e-12)


@every_case
def test_any_number_of_devices_computes_the_same(case, mesh_of):
    # Two images on each of four, as in the test before, whose programs these are.
    one, four = (everything(case, mesh_of(devices)) for devices in (1, 4))
    close_arrays(four, one)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """What the first of two processes has of `everything`, by case."""
    outputs = [tmp_path_factory.mktemp("process") / "everything.npz" for _ in range(2)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "objectives_and_dump.py"
    path = os.pathsep.join([str(script.parent), str(Path(__file__).parent)])
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    environment = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags}
    processes = [
        subprocess.Popen(
            [sys.executable, script, output, str(number), str(port)], env=environment
        )
        for number, output in enumerate(outputs)
    ]
    try:
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()  # jax.distributed swallows SIGTERM
            process.wait()
    one, other = (dict(np.load(output)) for output in outputs)
    assert all(np.array_equal(one[name], other[name]) for name in one | other)
    return one


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_the_same(name, of_two_processes, mesh_of):
    own = {
        key.removeprefix(f"{name}:"): array
        for key, array in of_two_processes.items()
        if key.startswith(f"{name}:")
    }
    close_arrays(own, everything(CASES[name], mesh_of(1)))


@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
def test_recorded_values_are_reproduced(recorded, mesh_of):
    recorded, mesh = recorded(), mesh_of(4)
    objective = recorded.objective
    params = jax.tree.map(jnp.asarray, recorded.params)
    state = put(objective, jax.tree.map(jnp.asarray, recorded.state), mesh)
    raw = placed(recorded.rows, mesh)

    def normalized(rows):
        if not objective.unit_rows:
            return rows
        return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)

    def seen_of(projection, prediction):
        """What the step makes of the rows of networks, those that there are."""
        y = normalized(projection)
        own = jax.lax.stop_gradient(y[: raw.target.shape[0]])
        return raw._replace(
            projection=y,
            prediction=normalized(prediction) if objective.predictor else y,
            target=normalized(raw.target) if objective.target else own,
        )

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    def value_and_gradients(params, *rows):
        return objective.loss(params, state, seen_of(*rows), now(mesh, STEP))[0]

    rows = raw.projection, raw.prediction
    value, (of_params, *of_rows) = value_and_gradients(params, *rows)
    np.testing.assert_allclose(value, recorded.loss, rtol=1e-9)
    gradients = dict(zip(ROWS, of_rows, strict=True)) | by_name(of_params)
    assert recorded.gradients
    for name, array in recorded.gradients.items():
        largest = max(np.abs(array).max(), 1e-3)
        np.testing.assert_allclose(
            gradients[name], array, atol=1e-9 * largest, rtol=0, err_msg=name
        )
    after = by_name(update(objective, mesh, state, seen_of(*rows), STEP))
    same_arrays(
        {name: after[name] for name in recorded.state_after}, recorded.state_after
    )


@every_case
def test_loss_and_gradient_stay_finite_at_the_ends(case, mesh_of):
    """All rows alike or opposite, at the lowest temperatures and at the highest.

    And at the ends of what else the case stretches.
    """
    mesh = mesh_of(1)
    temperatures = [
        field.name
        for field in dataclasses.fields(case.objective)
        if field.name.endswith("temperature")
    ]
    fields = {}
    if hasattr(case.objective, "queue"):
        fields["queue"] = dataclasses.replace(case.objective.queue, dtype="float32")
    ends = [dict.fromkeys(temperatures, tau) for tau in (1e-6, 1e3)]
    for end in (*ends, *case.stretched):
        stretched = dataclasses.replace(case.objective, **fields, **end)
        moved = dataclasses.replace(case, objective=stretched)
        for pushes in (0, 2):
            params, state = start(moved, mesh, pushes=pushes, dtype=np.float32)
            for sign in (1.0, -1.0):
                rows = random_rows(moved, seed=1)
                same = [
                    np.broadcast_to(rows.projection[:1, :1], x.shape) for x in rows[:3]
                ]
                same = Rows(same[0], same[1], sign * same[2], rows.image_id)
                seen = jax.tree.map(
                    lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x,
                    placed(same, mesh),
                )
                result = value_and_gradients(stretched, mesh, params, state, seen)
                for leaf in jax.tree.leaves(result):
                    assert np.isfinite(leaf).all(), (end, pushes, sign)
