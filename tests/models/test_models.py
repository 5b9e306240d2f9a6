"""Networks: published sizes, modes of normalization, and clear refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import (
    arbitrary_variables,
    image_keys,
    make_config,
    random_images,
    small_model,
    with_two_stages,
)

from snclr_jax.models import Variables, build_model, target_subset
from snclr_jax.models.patchnet import local_contrast

SMALL = ("resnet18", "vit_ti", "patchnet")


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest) -> SimpleNamespace:
    """One online and one target pass of each small network, in one compilation."""
    model = small_model(request.param)
    if request.param == "resnet18":
        model = with_two_stages(model)
    params, batch_stats = arbitrary_variables(model)

    @jax.jit
    def passes(params: Variables, images: jax.Array) -> Any:
        def loss(params: Variables) -> Any:
            outputs, stats = model.online(params, batch_stats, images)
            return jnp.sum(outputs.prediction**3), (outputs, stats)

        gradients, online = jax.grad(loss, has_aux=True)(params)
        target = model.target(target_subset(params), target_subset(batch_stats), images)
        return gradients, *online, *target

    gradients, outputs, online_stats, projection, target_stats = passes(
        params, random_images()
    )
    return SimpleNamespace(**locals())


def test_target_of_equal_params_agrees_with_online(trained: SimpleNamespace) -> None:
    np.testing.assert_allclose(
        trained.projection, trained.outputs.projection, atol=1e-6
    )
    online_stats = target_subset(trained.online_stats)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        online_stats,
        trained.target_stats,
    )


def test_structure_and_types_of_batch_stats_never_change(
    trained: SimpleNamespace,
) -> None:
    def shapes(tree: Variables) -> Variables:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert shapes(trained.online_stats) == shapes(trained.batch_stats)
    assert shapes(trained.target_stats) == shapes(target_subset(trained.batch_stats))


def test_outputs_have_the_advertised_shapes(trained: SimpleNamespace) -> None:
    model, outputs = trained.model, trained.outputs
    assert outputs.feature.shape == (4, model.feature_dim)
    assert outputs.projection.shape == (4, model.embedding_dim)
    assert outputs.prediction.shape == (4, model.embedding_dim)


def test_gradient_reaches_every_parameter(trained: SimpleNamespace) -> None:
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(trained.gradients)
        if not np.any(leaf)
    ]
    assert silent == []


def test_a_predictor_exists_only_where_it_is_asked_for() -> None:
    for predictor, more in ((True, {"predictor"}), (False, set())):
        model = small_model("patchnet", predictor)
        params, _ = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), (8, 8, 3)))
        assert set(params) == {"encoder", "projector"} | more
    params, stats = jax.jit(model.init, static_argnums=1)(jax.random.key(0), (8, 8, 3))
    outputs, _ = model.online(params, stats, random_images())
    np.testing.assert_array_equal(outputs.prediction, outputs.projection)


# Batch normalization


def test_online_uses_batch_statistics_and_encode_the_running_ones() -> None:
    model = small_model("patchnet")
    images = random_images()
    params, moved = arbitrary_variables(model)
    batch_stats = jax.tree.map(lambda leaf: leaf + 0.5, moved)

    online = jax.jit(model.online)
    before, _ = online(params, batch_stats, images)
    after, _ = online(params, moved, images)
    np.testing.assert_array_equal(before.prediction, after.prediction)

    encode = jax.jit(model.encode)
    whole = encode(params, moved, images)
    assert np.abs(whole - encode(params, batch_stats, images)).max() > 1e-3
    alone = jnp.concatenate(
        [encode(params, moved, images[i : i + 1]) for i in range(4)]
    )
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-6)


# Types, errors


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_keeps_float32_params_statistics_and_outputs(name: str) -> None:
    model = small_model(name, "linear", dtype="bfloat16")
    images = random_images()

    def init_and_apply(key: jax.Array) -> Any:
        params, batch_stats = model.init(key, images.shape[1:])
        return (
            params,
            batch_stats,
            model.online(params, batch_stats, images),
            model.target(target_subset(params), target_subset(batch_stats), images),
            model.encode(params, batch_stats, images),
        )

    leaves = jax.tree.leaves(jax.eval_shape(init_and_apply, jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert "bf16" in str(jax.make_jaxpr(init_and_apply)(jax.random.key(0)))


def test_bfloat16_computes_the_same_function_roughly() -> None:
    exact, rounded = (
        small_model("patchnet", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    params, batch_stats = arbitrary_variables(exact)
    expected, actual = (
        jax.jit(model.encode)(params, batch_stats, random_images())
        for model in (exact, rounded)
    )
    error = np.abs(actual - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(name="resnet19"), r"model.name 'resnet19'.*resnet18"),
        (dict(name="resnet18", stem="tiny"), r"model.stem 'tiny'.*cifar"),
        (dict(name="resnet18", depth=3), r"model.depth 3.*None"),
        (dict(name="vit_s", vit_heads="12"), r"model.vit_heads '12'.*mocov3"),
        (dict(name="vit_s", width=100), r"model.width 100.*such as 108"),
        (dict(drop_path=0.1), r"model.drop_path 0.1.*patchnet.*model.drop_path=0"),
        (dict(remat=True), r"model.remat True.*patchnet.*model.remat=False"),
        (dict(scan=True), r"model.scan True.*patchnet.*ViT"),
        (dict(name="resnet18", scan=True), r"model.scan True.*resnet18.*ViT"),
        (dict(name="vit_s", drop_path=1.0), r"model.drop_path 1.0.*below 1"),
        (dict(dtype="float16"), r"model.dtype 'float16'.*bfloat16"),
        (dict(dtype="float64"), r"model.dtype 'float64'.*JAX_ENABLE_X64"),
    ],
)
def test_bad_fields_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(make_config(**fields))


def test_stochastic_depth_needs_a_key_for_each_image() -> None:
    model = small_model("vit_ti", drop_path=0.1)
    with pytest.raises(ValueError, match="model.drop_path 0.1 needs a key"):
        model.online(*arbitrary_variables(model), random_images())


@pytest.mark.parametrize("name", ["resnet18", "vit_ti"])
def test_nothing_is_drawn_where_nothing_is_dropped(name: str) -> None:
    whole, dropping = (small_model(name, drop_path=rate) for rate in (0.0, 0.1))
    params, batch_stats = arbitrary_variables(whole)
    inputs = (params, batch_stats, random_images())
    program = jax.make_jaxpr(whole.online)(*inputs, image_keys(4))
    assert "random" not in str(program)
    assert "random" in str(jax.make_jaxpr(dropping.online)(*inputs, image_keys(4)))
    for method in ("target", "encode"):
        programs = [
            str(jax.make_jaxpr(getattr(model, method))(*inputs))
            for model in (whole, dropping)
        ]
        assert programs[0] == programs[1]


@pytest.mark.parametrize(
    ("name", "fits"), [("vit_ti", r"\[2, 4, 8"), ("patchnet", "multiples of 10")]
)
def test_patch_size_must_divide_the_image(name: str, fits: str) -> None:
    model = small_model(name, patch_size=5)
    with pytest.raises(ValueError, match=f"model.patch_size 5.*32x32.*{fits}"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))


def test_patchnet_sees_neither_a_smooth_ground_nor_contrast() -> None:
    rng = np.random.default_rng(0)
    shape = np.zeros((1, 32, 32, 3), np.float32)
    shape[0, 8:20, 14:18] = 1.0
    ground = np.linspace(0, 1, 32, dtype=np.float32)[None, :, None, None]
    ground = ground * rng.normal(size=3).astype(np.float32)
    seen = local_contrast(jnp.asarray(shape), 4.0)
    other = local_contrast(jnp.asarray(5 * shape + ground), 4.0)
    inner = np.s_[:, 8:-8, 8:-8]  # at the border the Gaussian is cut
    assert jnp.abs(seen - other)[inner].max() < 0.1 * jnp.abs(seen).max()
    np.testing.assert_allclose(jnp.mean(seen**2), 1, atol=0.05)
