"""Classifiers trained on augmented images: the linear protocol and fine-tuning."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from snclr_jax.configs import evaluate as settings_file

from snclr_jax.data import Split
from snclr_jax.data.order import RANDOM, epoch_order
from snclr_jax.encoder.encode import make_encode
from snclr_jax.evaluate.features import extract_features
from snclr_jax.evaluate.tuned import protocols, supervised
from snclr_jax.evaluate.tuned.layer_decay import layer_multipliers, scale_by_layer
from snclr_jax.evaluate.tuned.supervised import (
    accuracies,
    cross_entropy,
    fit,
    init_classifier,
    train_classifier,
)
from snclr_jax.models import build_model
from snclr_jax.run.metrics import NonFiniteError
from snclr_jax.step.views import Batch

SIZE = 16
CLASSES = 6


def linear_augmented(config, **changed):
    """The protocol with the settings of `snclr evaluate`, but for those changed."""
    settings = dict(settings_file.get_config().linear_augmented, seed=0)
    return protocols.linear_augmented(config, **settings | changed)


def finetune(config, **changed):
    """The protocol with the settings of `snclr evaluate`, but for those changed."""
    settings = dict(settings_file.get_config().finetune, seed=0)
    return protocols.finetune(config, **settings | changed)


def run_config(name="patchnet", **fields):
    """A pretraining run's config: a small patchnet, or a small ViT."""
    network = dict(depth=1, width=8, patch_size=4)
    if name == "vit_ti":
        # What fine-tuning has to undo, and what it has to keep.
        network = dict(depth=2, width=12, patch_size=8, freeze_patch_embed=True)
    config = tiny.config(data__image_size=SIZE, augment__size=SIZE, **fields)
    config.model.update(network, name=name, bn_scope=7, scan=name == "vit_ti")
    return config


@functools.cache
def encoder_of(name):
    """Fresh parameters and running statistics, under the key "encoder"."""
    config = run_config(name)
    model = build_model(config.model)
    init = jax.jit(lambda: model.init(jax.random.key(0), (SIZE, SIZE, 3)))
    return tuple(
        {name: jax.device_get(tree[name]) for name in tree if name == "encoder"}
        for tree in init()
    )


def stripes(count, seed=0):
    """Noisy stripes, whose direction is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    angle = (np.pi * labels / CLASSES)[:, None, None]
    y, x = np.mgrid[:SIZE, :SIZE]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    wave = np.sin(x * np.cos(angle) + y * np.sin(angle) + phase)
    images = 128 + 40 * wave[..., None] + rng.normal(0, 40, (count, SIZE, SIZE, 3))
    images = np.clip(images, 0, 255).astype(np.uint8)
    return Split(images.__getitem__, size=count, labels=labels)


def trained(name, protocol, split, mesh):
    """Returns the state and the loss, in host memory."""
    state = init_classifier(protocol, *encoder_of(name), CLASSES, mesh)
    return jax.device_get(fit(protocol, state, split, mesh))


def softmax_regression(protocol, head, features, labels):
    """Trains a head, (kernel, bias), with loops; returns it and every step's loss."""
    settings, batch_size = protocol.config.optim, protocol.config.batch_size
    per_epoch = len(labels) // batch_size
    steps = protocol.config.epochs * per_epoch
    peak = settings.learning_rate * batch_size / 256
    kernel, bias = head
    momentum, losses = [0.0, 0.0], []
    for step in range(steps):
        epoch, batch = divmod(step, per_epoch)
        order = epoch_order(
            RANDOM, len(labels), batch_size, protocol.config.seed, epoch
        )
        rows = order[batch * batch_size : (batch + 1) * batch_size]
        smoothing = protocol.label_smoothing
        y = (1 - smoothing) * np.eye(CLASSES)[labels[rows]] + smoothing / CLASSES
        x = features[rows]
        p = np.exp(x @ kernel.T + bias)
        p /= p.sum(axis=1, keepdims=True)
        losses.append(-np.mean((y * np.log(p)).sum(axis=1)))
        error = (p - y) / batch_size
        gradient = error.T @ x + settings.weight_decay * kernel, error.sum(axis=0)
        momentum = [0.9 * m + g for m, g in zip(momentum, gradient, strict=True)]
        rate = peak * (1 + math.cos(math.pi * step / steps)) / 2
        kernel, bias = kernel - rate * momentum[0], bias - rate * momentum[1]
    return kernel, bias, losses


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "from the host"])
def test_the_linear_protocol_is_softmax_regression_by_sgd(mesh_of, resident):
    # Of a large TFDS set, a feed reads no labels.
    config = run_config(data__resident=resident, data__name="tfds")
    train, test, mesh = stripes(20), stripes(13, seed=1), mesh_of(8)
    protocol = linear_augmented(
        config,
        images=20,
        devices=8,
        seed=3,
        epochs=3,
        batch_size=8,
        learning_rate=2.0,
        weight_decay=0.1,
        crop_scale=(1.0, 1.0),
        flip=0.0,
    )._replace(label_smoothing=0.2)
    params, stats = encoder_of("patchnet")
    state = init_classifier(protocol, params, stats, CLASSES, mesh)
    head = [np.asarray(leaf, np.float64) for leaf in state.params["head"]]
    assert 0.007 < head[0].std() < 0.013 and not head[1].any()
    state, loss = fit(protocol, state, train, mesh)

    encode = make_encode(protocol.model.encode, config, mesh)
    x, of_test = (
        extract_features(encode, params, stats, split, batch_size=20, mesh=mesh)
        for split in (train, test)
    )
    kernel, bias, losses = softmax_regression(protocol, head, x, train.labels)
    np.testing.assert_allclose(state.params["head"].kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(state.params["head"].bias, bias, atol=1e-5)
    assert loss == pytest.approx(np.mean(losses[-2:]), abs=1e-5)

    order = np.argsort(-(of_test @ kernel.T + bias), axis=1)
    hits = order == test.labels[:, None]
    top1, top5 = accuracies(protocol, state, test, 5, mesh)
    assert top1.top1 == pytest.approx(100 * hits[:, 0].mean())
    of_classes = [hits[test.labels == c, 0].mean() for c in np.unique(test.labels)]
    assert top1.balanced == pytest.approx(100 * np.mean(of_classes))
    assert top5 == pytest.approx(100 * hits[:, :5].any(axis=1).mean())

    # Not a bit of the encoder moved.
    same = np.testing.assert_array_equal
    jax.tree.map(same, state.params["encoder"], params["encoder"])
    jax.tree.map(same, state.batch_stats, stats)


SLOW = pytest.param("patchnet", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["vit_ti", SLOW])
def tuned(request, mesh_of):
    """(trains on any number of devices, what that gives on 8, the network)."""
    name, split = request.param, stripes(27)

    def train(devices):
        settings = dict(epochs=2, batch_size=16, warmup_epochs=0.0, drop_path=0.5)
        protocol = finetune(run_config(name), images=27, devices=devices, **settings)
        return trained(name, protocol, split, mesh_of(devices))

    return train, train(8), name


def test_finetuning_moves_the_whole_encoder(tuned):
    _, (state, _), name = tuned
    before, stats = encoder_of(name)
    moved = jax.tree.map(
        lambda now, then: (now != then).any(),
        [state.params["encoder"], state.batch_stats],
        [before["encoder"], stats],
    )
    assert all(jax.tree.leaves(moved)), moved


def test_one_and_eight_devices_agree(tuned):
    train, (state, loss), _ = tuned
    same, same_loss = train(1)
    assert same_loss == pytest.approx(loss, abs=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (same.params, same.batch_stats),
        (state.params, state.batch_stats),
    )


def test_finetuning_learns_what_a_frozen_encoder_does_not_show(mesh_of):
    config, mesh = run_config(), mesh_of(2)
    train, test = stripes(320).subset(np.arange(0, 320, 2)), stripes(100, seed=1)
    settings = dict(images=160, devices=2, epochs=8, batch_size=33, learning_rate=3.0)
    where = dict(eval_batch_size=50, mesh=mesh)
    linear, tuned = (
        train_classifier(protocol, *encoder_of("patchnet"), train, test, **where)
        for protocol in (
            linear_augmented(config, **settings, crop_scale=(0.8, 1.0)),
            finetune(config, **settings, crop_scale=(0.8, 1.0), warmup_epochs=1.0),
        )
    )
    assert tuned.accuracy.top1 > linear.accuracy.top1 + 30
    assert tuned.top5_accuracy >= 95
    assert (tuned.train_images, tuned.batch_size, tuned.steps) == (160, 32, 40)
    assert tuned.learning_rate == 3.0 * 32 / 256


def test_a_batch_fits_the_images_and_the_devices():
    config = run_config()
    for images, devices, batch_size in ((1000, 8, 256), (13, 8, 8), (13, 4, 12)):
        for protocol in (linear_augmented, finetune):
            fitted = protocol(config, images=images, devices=devices, batch_size=256)
            assert fitted.config.batch_size == batch_size


@pytest.mark.parametrize(
    ("name", "linear", "tune"),
    [("resnet50", (0.1, 0.0), (0.05, 0.0)), ("vit_b", (3.0, 0.0), (5e-4, 0.05))],
)
def test_settings_left_open_are_the_published_ones(name, linear, tune):
    config = run_config()
    config.model.update(name=name, depth=None, width=None, scan=False)
    for protocol, expected in ((linear_augmented, linear), (finetune, tune)):
        settings = protocol(config, images=100, devices=1).config.optim
        assert (settings.learning_rate, settings.weight_decay) == expected
    given = finetune(config, images=9, devices=1, learning_rate=0.3, weight_decay=0.1)
    settings = given.config.optim
    assert (settings.learning_rate, settings.weight_decay) == (0.3, 0.1)


def test_crops_are_mirrored_where_pretraining_mirrored_them():
    config = run_config()
    for share in (0.0, 0.5):
        config.augment.view1.flip = share
        augment = finetune(config, images=9, devices=1).config.augment
        assert augment.view1.flip == share
    augment = finetune(config, images=9, devices=1, flip=0.25).config.augment
    assert augment.view1.flip == 0.25


def layers(scan):
    """Ones in place of the parameters of a ViT of 3 layers and its head."""
    config = run_config("vit_ti")
    config.model.update(depth=3, scan=scan)
    model = build_model(config.model)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), (SIZE, SIZE, 3)))
    params = {"encoder": params["encoder"], "head": jax.ShapeDtypeStruct((2,), "f")}
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), params)


def test_a_layer_learns_slower_than_the_one_above_it():
    multipliers = layer_multipliers(layers(scan=False), 0.5)
    expected = dict(patch_embed=1 / 16, cls_token=1 / 16, norm=1.0)
    expected |= dict(blocks_0=1 / 8, blocks_1=1 / 4, blocks_2=1 / 2)
    assert multipliers["head"] == 1.0
    assert multipliers["encoder"].keys() == expected.keys()
    for name, value in expected.items():
        assert set(jax.tree.leaves(multipliers["encoder"][name])) == {value}, name


def test_stacked_layers_learn_as_layers_of_their_own():
    scale = jax.jit(scale_by_layer(0.65).update)
    plain, stacked = (
        scale(layers(scan), optax.EmptyState())[0]["encoder"] for scan in (False, True)
    )
    blocks = [plain.pop(f"blocks_{i}") for i in range(3)]
    expected = plain | {"blocks": jax.tree.map(lambda *x: np.stack(x), *blocks)}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), stacked, expected
    )


def test_finetuning_takes_the_recipe_of_each_network():
    """Rates by layer and dropped paths are for ViTs; smoothing is for all."""
    settings = dict(images=9, devices=1, drop_path=0.25, label_smoothing=0.125)
    vit, other = (finetune(run_config(n), **settings) for n in ("vit_ti", "patchnet"))
    assert (vit.model.drop_path, other.model.drop_path) == (0.25, 0.0)
    assert vit.label_smoothing == other.label_smoothing == 0.125
    assert linear_augmented(run_config(), images=9, devices=1).label_smoothing == 0


def test_rates_of_a_vit_rise_and_then_differ_by_layer():
    """Adam moves by the rate, where every gradient is one."""
    config = run_config("vit_ti")
    config.model.scan = False
    protocol = finetune(
        config,
        images=32,
        devices=1,
        batch_size=8,
        epochs=3,
        warmup_epochs=1.0,  # 4 steps
        learning_rate=0.32,
        weight_decay=0.0,
        layer_decay=0.5,
    )
    params = {"encoder": encoder_of("vit_ti")[0]["encoder"], "head": np.ones(2)}
    state = protocol.optimizer.init(params)
    ones, updates = jax.tree.map(np.ones_like, params), []
    move = jax.jit(protocol.optimizer.update)
    for _ in range(5):
        update, state = move(ones, state, params)
        updates.append(update)
    peak = 0.32 * 8 / 256
    heads = [-float(update["head"][0]) for update in updates]
    np.testing.assert_allclose(heads, peak * np.arange(5) / 4, rtol=1e-4, atol=1e-9)
    kernel = updates[4]["encoder"]["patch_embed"]["kernel"]
    np.testing.assert_allclose(kernel, -peak / 8, rtol=1e-4)  # of two blocks


def test_every_step_draws_crops_and_dropped_paths_of_its_own(mesh_of, rng):
    """The same images twice, and nothing learns: what differs was drawn."""
    mesh, split = mesh_of(1), stripes(16)
    config = run_config("vit_ti")
    still = dict(flip=0.0, crop_scale=(1.0, 1.0))
    for changed in (dict(drop_path=0.0), dict(still, drop_path=0.5)):
        protocol = finetune(config, images=16, devices=1, batch_size=16, **changed)
        protocol = protocol._replace(optimizer=optax.set_to_zero())
        state = init_classifier(protocol, *encoder_of("vit_ti"), CLASSES, mesh)
        head = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), state.params)
        state = state.replace(params=state.params | {"head": head["head"]})
        batch = Batch(
            image_id=jnp.arange(16),
            resident=jnp.asarray(split.images()),
            labels=jnp.asarray(split.labels),
        )
        step, losses = supervised.make_step(protocol, mesh), []
        for _ in range(2):
            state, loss = step(state, batch)
            losses.append(float(loss))
        assert abs(losses[0] - losses[1]) > 1e-3


def test_label_smoothing(rng):
    values, labels = rng.normal(size=(5, 4)), np.array([0, 3, 2, 2, 1])
    log_p = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    expected = 0.0
    for row, label in zip(log_p, labels, strict=True):
        expected -= (0.7 * row[label] + 0.3 * row.mean()) / 5
    assert cross_entropy(values, labels, 0.3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_tuned_features_are_those_of_training(rate):
    config = run_config("vit_ti")
    config.model.update(drop_path=rate, scan=False, depth=1)
    model = build_model(config.model)
    images = jax.random.normal(jax.random.key(1), (7, SIZE, SIZE, 3))
    keys = jax.random.split(jax.random.key(2), 7)

    @jax.jit
    def both():
        params, stats = model.init(jax.random.key(0), (SIZE, SIZE, 3))
        encoder = {"encoder": params["encoder"]}
        outputs, _ = model.online(params, stats, images, keys)
        return outputs.feature, *model.tune(encoder, {}, images, keys)

    expected, feature, stats = both()
    np.testing.assert_allclose(feature, expected, rtol=1e-6)
    assert stats == {}
    if rate:
        with pytest.raises(ValueError, match="keys to Model.tune"):
            model.tune({}, {}, images)


@pytest.mark.parametrize("protocol", [linear_augmented, finetune])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(images=7), "7 images, fewer than the 8 devices; use more labels"),
        (dict(batch_size=4), "batch_size 4 is less than the 8 devices; use 8"),
        (dict(epochs=0), "epochs is 0; use a value above 0"),
        (dict(learning_rate=0.0), "learning_rate is 0.0; use a value above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(protocol, settings, message):
    with pytest.raises(ValueError, match=message):
        protocol(run_config(), **dict(images=100, devices=8) | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(layer_decay=0.0), "layer_decay 0.0 must be above 0 and at most 1"),
        (dict(label_smoothing=1.0), "label_smoothing 1.0 .* below 1"),
    ],
)
def test_shares_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        finetune(run_config(), images=100, devices=1, **settings)


@pytest.mark.parametrize("labels", [None, np.array([0, -1], np.int32)])
def test_images_without_a_label_are_refused(mesh_of, labels):
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    bad = Split(images.__getitem__, size=2, labels=labels)
    protocol = finetune(run_config(), images=2, devices=1)
    with pytest.raises(ValueError, match="the test split has images without a label"):
        where = dict(eval_batch_size=2, mesh=mesh_of(1))
        train_classifier(protocol, {}, {}, stripes(2), bad, **where)


def test_a_loss_that_is_no_number_names_the_rate_to_lower(mesh_of, monkeypatch):
    def make_step(protocol, mesh):
        return lambda state, batch: (state, jnp.nan)

    monkeypatch.setattr(supervised, "make_step", make_step)
    protocol = finetune(run_config(), images=8, devices=1, learning_rate=7.5)
    with pytest.raises(NonFiniteError, match=r"finetune: .*epoch 1 is nan.*rate.*7\.5"):
        trained("patchnet", protocol, stripes(8), mesh_of(1))
