"""Both networks of a run and its objective's state, and what images find in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from etils import epath
from flax.traverse_util import unflatten_dict
from jax import Array
from ml_collections import FrozenConfigDict

from snclr_jax.encoder.stored import Encoder
from snclr_jax.models import Variables, build_model
from snclr_jax.run.checkpoint_reader import read_arrays
from snclr_jax.run.digest import by_path
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.forward import Forward
from snclr_jax.step.objective import Found, Now, Objective, Seen
from snclr_jax.step.state import OBJECTIVE, train_state_shapes


class Networks(NamedTuple):
    """What a step reads of a run; fields are named as in `TrainState`."""

    step: Any
    params: Variables
    batch_stats: Variables
    target_params: Variables
    target_batch_stats: Variables
    objective: Any


class Search(NamedTuple):
    """How images of a run search its objective's state: all that is not an array."""

    forward: Forward
    objective: Objective

    @classmethod
    def of(cls, config, mesh) -> Search:
        """Returns that of a run's config."""
        objective = build_objective(config)
        model = build_model(config.model, predictor=objective.predictor)
        frozen = FrozenConfigDict(config)
        return cls(Forward(model, frozen, mesh, objective.unit_rows), objective)

    def neighbors(
        self, networks: Networks, view: Array, image_id: Array
    ) -> Found | None:
        """Returns what images find, as in the next step; traced.

        Args:
          networks: of the run.
          view: (b, s, s, c) of each image, for both networks.
          image_id: (b,) int32 index of each in the training set.
        """
        forward, objective = self.forward, self.objective
        online, _ = forward.online(
            networks.params, networks.batch_stats, (view,), networks.step
        )
        target = online.projection
        if objective.target:
            target, _ = forward.target(
                networks.target_params, networks.target_batch_stats, (view,)
            )
        return objective.neighbors(
            networks.params.get(OBJECTIVE, {}),
            networks.objective,
            Seen(online.projection, online.prediction, target, image_id),
            Now(networks.step, 1, forward.mesh, forward.config.seed),
        )


def open_networks(encoder: Encoder, search: Search) -> Networks:
    """Returns the networks and the objective's state beside an encoder.

    Args:
      encoder: one whose `source` is a checkpoint's folder.
      search: of its config, on the devices to read them to.

    Raises:
      ValueError: where the devices do not suit the objective, or the checkpoint holds
        something else.
    """
    config, (forward, objective) = encoder.config, search
    try:
        objective.check(config, forward.mesh.size)
    except ValueError as error:
        raise ValueError(
            f"the run does not fit the {forward.mesh.size} devices here: {error} in a "
            "new run; look at this one on a number of devices that suits it"
        ) from error
    state = train_state_shapes(
        forward.model, objective, optax.identity(), config, forward.mesh
    )
    expected = {name: getattr(state, name) for name in Networks._fields[1:]}
    parts = {
        name: unflatten_dict(by_path(part), sep="/") for name, part in expected.items()
    }
    read = by_path(read_arrays(epath.Path(encoder.source), parts))
    arrays = {
        name: jax.tree.unflatten(
            jax.tree.structure(part), [read[f"{name}/{path}"] for path in by_path(part)]
        )
        for name, part in expected.items()
    }
    return Networks(step=encoder.step, **arrays)
