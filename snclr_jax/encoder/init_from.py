"""The start of a run from an encoder that was trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from snclr_jax.encoder.stored import open_encoder
from snclr_jax.models import encoder_subset
from snclr_jax.run.checkpoint_reader import check_same_arrays, saved_steps
from snclr_jax.step.channels import channels_of
from snclr_jax.step.state import TrainState

# Fields of the network that may differ without any shape being another.
_UNSEEN = ("name", "stem", "patch_size", "vit_heads")


def init_from(
    state: TrainState, config: Any, mesh: Mesh, workdir: str | Path
) -> TrainState:
    """Returns a state whose online and target encoder are those of `model.init_from`.

    Heads, optimizer and queue stay as they are. The state itself is returned where the
    field is "", or the run has a checkpoint that it is going to continue from.

    Args:
      state: at step 0.
      config: the run's.
      mesh: the devices.
      workdir: the run's folder.

    Raises:
      ValueError: where the encoder cannot be read or is of another network.
    """
    path, model = config.model.init_from, config.model
    if not path or saved_steps(workdir):
        return state
    encoder = open_encoder(path, mesh=mesh)
    source = f"model.init_from {path!r}"
    given, ours = (channels_of(each.data) for each in (encoder.config, config))
    if given != ours:
        raise ValueError(
            f"{source} is of images of {given} channels, and this run's have {ours}; "
            f"set --config.data.channels={given}, or start from another encoder"
        )
    for field in _UNSEEN:
        theirs = encoder.config.model[field]
        if theirs != model[field]:
            raise ValueError(
                f"{source} has model.{field} {theirs!r}, and this run has "
                f"{model[field]!r}; set --config.model.{field}={theirs}, or start from "
                "another encoder"
            )
    check_same_arrays(
        source,
        {"params": encoder.params, "batch_stats": encoder.batch_stats},
        {
            "params": encoder_subset(state.params),
            "batch_stats": encoder_subset(state.batch_stats),
        },
    )
    # The step gives the memory of its state away, so no two parts may share any.
    copies = jax.jit(lambda tree: jax.tree.map(jnp.copy, (tree, tree)))
    params, target_params = copies(encoder.params)
    batch_stats, target_batch_stats = copies(encoder.batch_stats)
    return state.replace(
        params=state.params | params,
        batch_stats=state.batch_stats | batch_stats,
        target_params=state.target_params | target_params,
        target_batch_stats=state.target_batch_stats | target_batch_stats,
    )
