"""A run starts from an encoder that was trained before, once, or refuses it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from saved import SMALL, save_random_encoder, save_run

from snclr_jax.encoder.init_from import init_from
from snclr_jax.run.metrics import read_metrics
from snclr_jax.train import train


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_both_encoders_start_from_it_and_nothing_else_moves(tmp_path, mesh_of):
    mesh, file = mesh_of(4), tmp_path / "start.safetensors"
    encoder = save_random_encoder(file, "patchnet", mesh)
    config = tiny.config(model__init_from=str(file))
    _, _, state = tiny.build(config, mesh)
    started = init_from(state, config, mesh, tmp_path / "new")
    for params, statistics in (
        (started.params, started.batch_stats),
        (started.target_params, started.target_batch_stats),
    ):
        assert_same(params["encoder"], encoder.params["encoder"])
        assert_same(statistics["encoder"], encoder.batch_stats["encoder"])
        assert_same(params["projector"], state.params["projector"])
    assert_same(started.opt_state, state.opt_state)
    assert jax.tree.map(lambda leaf: leaf.sharding, started) == jax.tree.map(
        lambda leaf: leaf.sharding, state
    )


@pytest.mark.parametrize("network", ["online", "target"])
def test_a_run_gives_the_network_that_it_names(tmp_path, mesh_of, network):
    earlier, config = save_run(tmp_path, mesh_of(1), evaluate__network=network)
    params, batch_stats = (earlier.params, earlier.batch_stats)
    if network == "target":
        params, batch_stats = earlier.target_params, earlier.target_batch_stats
    config.model.init_from, config.seed = str(tmp_path), 1
    # What this run evaluates itself does not matter.
    config.evaluate.network = "online"
    _, _, state = tiny.build(config, mesh_of(1))
    started = init_from(state, config, mesh_of(1), tmp_path / "new")
    assert_same(started.params["encoder"], params["encoder"])
    assert_same(started.batch_stats["encoder"], batch_stats["encoder"])


def test_another_network_is_refused(tmp_path, mesh_of):
    file = tmp_path / "start.safetensors"

    def refused(message, name="patchnet", start="patchnet", **fields):
        save_random_encoder(file, start, mesh_of(1))
        config = tiny.config(
            model__name=name, model__init_from=str(file), **SMALL[name] | fields
        )
        _, _, state = tiny.build(config, mesh_of(1))
        with pytest.raises(ValueError, match=message):
            init_from(state, config, mesh_of(1), tmp_path / "new")

    refused("has model.name 'vit_ti', and this run has 'patchnet'", start="vit_ti")
    refused("init_from .* another network .* is .*, not", model__width=48)
    # 12 heads and 3 have the same shapes.
    refused(
        "has model.vit_heads 'mocov3', and this run has 'timm'",
        name="vit_ti",
        start="vit_ti",
        model__vit_heads="timm",
    )


def test_an_encoder_of_other_channels_is_refused(tmp_path, mesh_of):
    file = tmp_path / "start.safetensors"
    save_random_encoder(file, "patchnet", mesh_of(1))
    config = tiny.config(model__init_from=str(file), data__channels=5)
    with pytest.raises(ValueError, match="of 3 channels, and this run's have 5; set"):
        init_from(None, config, mesh_of(1), tmp_path / "new")


def test_a_run_that_has_a_checkpoint_does_not_read_it_again(tmp_path, mesh_of):
    state, config = save_run(tmp_path, mesh_of(1))
    config.model.init_from = str(tmp_path / "lost")
    assert init_from(state, config, mesh_of(1), tmp_path) is state
    with pytest.raises(ValueError, match="lost does not exist"):
        init_from(state, config, mesh_of(1), tmp_path / "new")


@pytest.mark.slow
def test_a_run_reads_it_once_and_measures_it(tmp_path, mesh_of):
    file, workdir = tmp_path / "start.safetensors", str(tmp_path / "run")
    save_random_encoder(file, "patchnet", mesh_of(1))
    fields = dict(data__holdback=200, optim__learning_rate=1e-9, epochs=1)
    lost = tiny.config(model__init_from=str(tmp_path / "lost"), **fields)
    with pytest.raises(ValueError, match="lost does not exist"):
        train(lost, workdir)
    assert not (tmp_path / "run").exists()  # so another one can still be named
    config = tiny.config(model__init_from=str(file), **fields)
    state = train(config, workdir)
    first, *_ = read_metrics(workdir)
    assert first["step"] == 0 and first["knn_initial"] != first["knn_untrained"]
    file.unlink()
    assert_same(train(config, workdir), state)
