"""Two steps of a run, every number they leave behind, against a plain oracle.

The oracle is numpy in float64, with loops and gradients written by hand; of the package
it calls the networks' `apply` alone. Views are drawn without chance, so that it need
not draw them; targets, queue and statistics start unlike one another.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import tiny
from ml_collections import ConfigDict
from snclr_jax.configs import base

from snclr_jax.devices.mesh import place_batch, place_everywhere
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.forward import Forward
from snclr_jax.step.state import state_shardings
from snclr_jax.step.views import Batch

B, Q, IMAGES, FIRST_STEP = 8, 24, 16, 3


def config_of(preset: str = "", **fields: Any) -> ConfigDict:
    config = tiny.config(
        **dict(
            batch_size=B,
            model__dtype="float64",
            objective__queue__dtype="float64",
            objective__queue__size=Q,
            objective__queue__k=3,
            objective__attention__temperature=0.5,
            objective__attention__gamma=1.3,
            objective__scale=1.7,
            objective__neighbor_weight=0.9,
            objective__neighbor_warmup_epochs=0.4,
            ema__momentum=0.8,
            optim__name="sgd",
            optim__learning_rate=4.0,
            optim__weight_decay=0.01,
            optim__warmup_epochs=0.0,
            **tiny.NOTHING_DRAWN,
        )
    )
    if preset:
        base.apply_preset(config, preset=preset)
    return tiny.override(config, **fields)


DROPPED_PATHS = dict(
    model__name="vit_ti",
    model__depth=2,
    model__drop_path=0.5,
    model__freeze_patch_embed=False,
    objective__attention__stop_gradient=True,
    objective__form="soft_cross_entropy",
    # A large first step would amplify the rounding of a float32 softmax in the second.
    optim__learning_rate=0.1,
)
CASES = {
    "three views and a local one": config_of(
        augment__global_views=3,
        augment__local_views=1,
        objective__queue__push="both",
        ema__final_momentum=0.9,
    ),
    "authors, banks": config_of("authors", objective__queue__banks=2),
    "linear, decoupled": config_of(
        objective__attention__kind="linear",
        objective__attention__threshold=0.3,
        objective__decoupled=True,
        objective__queue__push="both",
        objective__queue__search="approx",
    ),
    "dropped paths": config_of(**DROPPED_PATHS),
    "dropped paths, together": config_of(**DROPPED_PATHS),
    "no neighbors, in micro-batches, together": config_of(
        objective__queue__k=0,
        augment__global_views=3,
        augment__local_views=2,
        accumulate=2,
        model__bn_scope=4,
    ),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", CASES)
def test_two_steps_are_the_equations(float64, mesh_of, monkeypatch, case):
    """On CPUs views go through one by one; "together" as on GPUs."""
    config, mesh = CASES[case], mesh_of(1 if "micro-batches" in case else 4)
    if "together" in case:
        together = lambda forward, views: [views] if views else []  # noqa: E731
        monkeypatch.setattr(Forward, "_groups", together)
    model, step, state = tiny.build(config, mesh)
    shardings = state_shardings(state, build_objective(config), mesh)
    state = jax.device_put(arbitrary(state, config), shardings)
    mine = Mine.of(state)
    networks = Networks(model.network)
    # Schedules are float32 whatever the model is, and so is a ViT's softmax.
    tolerance = 1e-5 if config.model.name.startswith("vit") else 1e-6
    for number in range(2):
        views, ids = images_of(config, number)
        batch = Batch(
            image_id=place_batch(ids, mesh),
            views=tuple(place_batch(view, mesh) for view in views),
            labels=place_everywhere(LABELS, mesh),
        )
        state, metrics = step(state, batch)
        mine, expected = take_step(networks, mine, views, ids, config)
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            close(metrics[name], value, tolerance, f"{name} of step {number}")
        jax.tree.map(
            functools.partial(close, tolerance=tolerance),
            Mine.of(state)._asdict(),
            mine._asdict(),
        )


def close(actual: Any, expected: Any, tolerance: float, err_msg: str = "") -> None:
    atol = tolerance * np.abs(expected).max() + 1e-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=err_msg)


class Mine(NamedTuple):
    """The state as the oracle keeps it, in numpy."""

    step: int
    params: Any
    stats: Any
    target: Any
    target_stats: Any
    momentum: Any
    queue: dict[str, Any]

    @classmethod
    def of(cls, state: Any) -> Mine:
        momentum = optax.tree.get(state.opt_state, "trace")
        queue = {
            name: getattr(state.objective, name)
            for name in ("keys", "image_id", "pushed_at", "cursor")
        }
        return cls(
            int(state.step),
            *jax.tree.map(
                lambda leaf: np.array(leaf),
                (
                    state.params,
                    state.batch_stats,
                    state.target_params,
                    state.target_batch_stats,
                    momentum,
                    queue,
                ),
            ),
        )


def arbitrary(state: Any, config: ConfigDict) -> Any:
    """Returns a state whose parts are unlike one another, some steps into a run."""
    rng = np.random.default_rng(0)

    def moved(tree: Any) -> Any:
        return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), tree)

    def spread(tree: Any) -> Any:
        return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), tree)

    pushed_at = rng.integers(0, FIRST_STEP, Q).astype(np.int32)
    pushed_at[[4, 20]] = -1
    counts_on = lambda x: x + FIRST_STEP if x.dtype == jnp.int32 else x  # noqa: E731
    return state.replace(
        step=jnp.int32(FIRST_STEP),
        params=moved(state.params),
        batch_stats=spread(state.batch_stats),
        target_params=moved(state.target_params),
        target_batch_stats=spread(state.target_batch_stats),
        opt_state=jax.tree.map(counts_on, state.opt_state),
        objective=state.objective.replace(
            keys=jnp.asarray(
                oracle.unit(rng.normal(size=(Q, config.model.embedding_dim)))
            ),
            image_id=jnp.asarray(rng.integers(0, IMAGES, Q), jnp.int32),
            pushed_at=jnp.asarray(pushed_at),
            cursor=jnp.int32(7 if config.objective.queue.banks == 1 else 9),
        ),
    )


# Classes of the images; that of image 5 is unknown.
LABELS = np.where(np.arange(IMAGES) == 5, -1, np.arange(IMAGES) % 3).astype(np.int32)


def images_of(config: ConfigDict, number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns black and white pixels, exact in any type, and the images' ids."""
    rng = np.random.default_rng(10 + number)
    sizes = [config.augment.size] * config.augment.global_views
    sizes += [config.augment.local_size] * config.augment.local_views
    views = [
        rng.choice(np.array([0, 255], np.uint8), (B, size, size, 3)) for size in sizes
    ]
    return views, rng.permutation(IMAGES)[:B].astype(np.int32)


class Networks:
    """The networks' `apply`, and the pull-back of what the online one returns."""

    def __init__(self, network: flax.linen.Module) -> None:
        def apply(method, params, stats, views, *keys):
            variables = {"params": params, "batch_stats": stats}
            inputs = (each[:, None] for each in (views, *keys))
            outputs, moved = network.apply(
                variables, *inputs, method=method, mutable=["batch_stats"]
            )
            return jax.tree.map(lambda rows: rows[:, 0], outputs), moved["batch_stats"]

        def online(params, cotangents, *inputs):
            def rows(params):
                outputs, moved = apply("online", params, *inputs)
                return (outputs.projection, outputs.prediction), moved

            outputs, pull_back, moved = jax.vjp(rows, params, has_aux=True)
            return outputs, moved, pull_back(cotangents)[0]

        self.target = jax.jit(functools.partial(apply, "target"))
        self.online = jax.jit(online)


def take_step(
    networks: Networks,
    state: Mine,
    views: list[np.ndarray],
    ids: np.ndarray,
    config: ConfigDict,
) -> tuple[Mine, dict[str, float]]:
    step, queue = state.step, {name: x.copy() for name, x in state.queue.items()}
    # Black is -2 and white is 2: mean 0.5, standard deviation 0.25.
    views = [np.where(view > 0, 2.0, -2.0) for view in views]
    whole = config.augment.global_views

    targets, target_stats = [], state.target_stats
    for view in views[:whole]:
        rows, target_stats = networks.target(state.target, target_stats, view)
        targets.append(oracle.unit(rows))

    raw, y, z, stats, inputs = [], [], [], state.stats, []
    for number, view in enumerate(views):
        keys = drop_keys(config, step, number)
        inputs.append((stats, view, *keys))
        nothing = (np.zeros((B, config.model.embedding_dim)),) * 2
        rows, moved, _ = networks.online(state.params, nothing, *inputs[-1])
        raw.append([np.array(each) for each in rows])
        y.append(oracle.unit(rows[0]))
        z.append(oracle.unit(rows[1]))
        stats = moved if number < whole else stats

    settings, attention = config.objective, config.objective.attention
    warmup = round(settings.neighbor_warmup_epochs * tiny.STEPS_PER_EPOCH)
    weight = settings.neighbor_weight * (min(step / warmup, 1) if warmup else 1)
    total, by_y, by_z = 0.0, [0 * each for each in y], [0 * each for each in z]
    by_w1, by_w2, seen = 0.0, 0.0, []
    part = settings.scale / (whole * (len(views) - 1))
    for u, target in enumerate(targets):
        rows = oracle.find_rows(
            queue["keys"],
            target,
            config.objective.queue.k,
            eligible=functools.partial(may_meet, queue, ids, config),
        )
        neighbors = [queue["keys"][each] for each in rows]
        for v in range(len(views)):
            if v == u:
                continue
            anchor, w1, w2 = y[v], None, None
            if attention.kind == "linear":
                w1, w2 = (state.params["objective"][name] for name in ("w1", "w2"))
                anchor = np.array([w2.T @ (w1 @ each) for each in y[v]])
            weights, jacobians = zip(
                *(
                    oracle.weights_and_jacobian(
                        a,
                        n,
                        temperature=attention.temperature,
                        gamma=attention.gamma,
                        threshold=attention.threshold,
                    )
                    for a, n in zip(anchor, neighbors, strict=True)
                ),
                strict=True,
            )
            seen.append(
                (rows, weights, [n @ t for n, t in zip(neighbors, target, strict=True)])
            )
            value, into_z, into_weights = oracle.loss_and_gradients(
                z[v],
                target,
                neighbors,
                [weight * np.array(each) for each in weights],
                tau=settings.temperature,
                form=settings.form,
                decoupled=settings.decoupled,
            )
            total += part * value
            by_z[v] = by_z[v] + part * into_z
            for i in range(B):
                into = sum(
                    (part * weight * g * row)
                    for g, row in zip(into_weights[i], jacobians[i], strict=True)
                )
                if attention.kind == "linear":
                    by_w2 = by_w2 + np.outer(w1 @ y[v][i], into)
                    by_w1 = by_w1 + np.outer(w2 @ into, y[v][i])
                    into = w1.T @ (w2 @ into)
                if not attention.stop_gradient:
                    by_y[v][i] += into

    gradient = jax.tree.map(np.zeros_like, state.params)
    for v in range(len(views)):
        cotangents = tuple(
            through_unit(rows, into)
            for rows, into in zip(raw[v], (by_y[v], by_z[v]), strict=True)
        )
        found = networks.online(state.params, cotangents, *inputs[v])[2]
        gradient = jax.tree.map(lambda a, b: a + np.array(b), gradient, found)
    if attention.kind == "linear":
        gradient["objective"] = {"w1": by_w1, "w2": by_w2}

    total_steps = config.epochs * tiny.STEPS_PER_EPOCH
    falling = (1 + math.cos(math.pi * step / total_steps)) / 2
    rate = config.optim.learning_rate * B / 256 * falling
    momentum = jax.tree.map(
        lambda m, g, p: (
            config.optim.momentum * m
            + g
            + config.optim.weight_decay * (sum(n > 1 for n in p.shape) > 1) * p
        ),
        state.momentum,
        gradient,
        state.params,
    )
    params = jax.tree.map(lambda p, m: p - rate * m, state.params, momentum)
    final = config.ema.final_momentum
    slow = final - (final - config.ema.momentum) * falling
    target = jax.tree.map(
        lambda old, new: slow * old + (1 - slow) * new,
        state.target,
        {name: params[name] for name in state.target},
    )
    metrics = {
        "loss": total,
        "feature_std": y[0].std(axis=0).mean() * math.sqrt(y[0].shape[1]),
        "gradient_norm": norm(gradient),
        "parameter_norm": norm(params),
        "learning_rate": rate,
        "ema_momentum": slow,
    }
    if config.objective.queue.k:
        metrics["neighbor_weight"] = weight
        metrics |= describe(seen, queue, ids, step, len(views) - 1, config)
    for pushed in targets if config.objective.queue.push == "both" else targets[1:2]:
        oracle.push(queue, pushed, ids, step, banks=config.objective.queue.banks)
    after = Mine(step + 1, params, stats, target, target_stats, momentum, queue)
    return after, metrics


def drop_keys(config: ConfigDict, step: int, number: int) -> tuple[jax.Array, ...]:
    """One key for each image: of the seed, the step, 1000 + the view, the place."""
    if not config.model.drop_path:
        return ()
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    key = jax.random.fold_in(key, 1000 + number)
    return (jnp.stack([jax.random.fold_in(key, i) for i in range(B)]),)


def may_meet(
    queue: dict[str, Any], ids: np.ndarray, config: ConfigDict, image: int, row: int
) -> bool:
    banks = config.objective.queue.banks
    filled = queue["pushed_at"][row] >= 0
    same_bank = image * banks // B == row * banks // Q
    same_image = queue["image_id"][row] == ids[image]
    return (
        filled
        and same_bank
        and not (same_image and config.objective.queue.exclude_same_image)
    )


def through_unit(rows: np.ndarray, into_unit: np.ndarray) -> np.ndarray:
    """The gradient by x from that by x / |x|."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    along = np.sum(into_unit * rows, axis=1, keepdims=True) / length
    return (into_unit - along * rows / length) / length


def norm(tree: Any) -> float:
    return math.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def describe(
    seen: list[Any],
    queue: dict[str, Any],
    ids: np.ndarray,
    step: int,
    predict: int,
    config: ConfigDict,
) -> dict[str, float]:
    """Means over neighbors, one entry of `seen` for each pair of views."""
    weights, ages, similarities, entropies, same = [], [], [], [], []
    for rows, of_images, products in seen:
        for image in range(B):
            w = np.array(of_images[image])
            share = w[w > 0] / w.sum()
            weights += list(w)
            entropies.append(-np.sum(share * np.log(share)))
            similarities += list(products[image])
            ages += [step - queue["pushed_at"][row] for row in rows[image]]
            label = LABELS[ids[image]]
            labels = [LABELS[queue["image_id"][row]] for row in rows[image]]
            same += [each == label for each in labels if min(each, label) >= 0]
    assert len(weights) == len(seen) * B * config.objective.queue.k, (
        "some image has fewer than K"
    )
    metrics = {
        "positiveness_mean": np.mean(weights),
        "positiveness_max": max(weights),
        "positiveness_entropy": np.mean(entropies),
        "neighbor_similarity": np.mean(similarities),
        "neighbor_age": np.mean(ages),
        "neighbors_found": 1.0,
        "neighbor_purity": np.mean(same),
    }
    if config.objective.queue.search == "approx":
        metrics["search_recall"] = 1.0  # on a CPU it is exact
    return metrics
