"""The interface of an objective: its settings, and pure functions of one batch.

A new objective is a subclass in a file of its own and a line in
`snclr_jax.objectives.OBJECTIVES`; docs/your_objective.md shows one.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


class Seen(NamedTuple):
    """One global batch through the networks: v views, of which the first g are global.

    Rows have length 1, or are as the networks make them where the objective says
    `unit_rows = False`. They lie in the order of the batch, spread over the devices.

    Attributes:
      projection: (v, b, d) of the online network.
      prediction: (v, b, d) of the online network; where the objective has no predictor,
        the projection.
      target: (g, b, d) projections of the target network, without gradient; where the
        objective has no target network, the online network's.
      image_id: (b,) int32, the index of each image in the training set.
    """

    projection: Array
    prediction: Array
    target: Array
    image_id: Array


class Now(NamedTuple):
    """Where and when a step happens.

    Attributes:
      step: () int32, updates made before it.
      steps_per_epoch: of the run.
      mesh: the devices, axis "data".
      seed: of the run; what an objective draws follows from it and from the step.
    """

    step: Array
    steps_per_epoch: int
    mesh: Mesh
    seed: int = 0


class Found(NamedTuple):
    """What each image finds in the memory of an objective, most similar first.

    Attributes:
      similarity: (b, k) cosine.
      row: (b, k) int32 row of the memory.
      image_id: (b, k) int32 of the row's image, -1 where there is none.
      pushed_at: (b, k) int32, the step at which the row was written.
      valid: (b, k) bool, false where fewer than k rows could be found.
      weight: (b, k) what the objective gives each of them.
    """

    similarity: Array
    row: Array
    image_id: Array
    pushed_at: Array
    valid: Array
    weight: Array


class Shown(NamedTuple):
    """A metric that is shown of a run.

    Attributes:
      label: what a newcomer reads.
      metric: its name in metrics.jsonl.
      format: of its number, as in an f-string.
      watched: whether `snclr watch`, whose lines are full, shows it, too.
    """

    label: str
    metric: str
    format: str
    watched: bool = False


# A small plot of curves: a title with its unit, its metrics with their labels, and
# whether its amounts are seen from 0.
Panel = tuple[str, dict[str, str], bool]
# What a change of a field means that the equation of a loss has.
ANOTHER_LOSS = "the loss is another one, and not to be compared with that before"


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimizes. The fields of a subclass are its section of a config.

    A field's comment is its reference; its type says what is allowed: `Literal` names
    the choices, `Annotated[float, Ge(0)]` a range (annotated-types), and a field that
    may be None has None as its default. A field may be such a dataclass itself.

    Methods are traced, but for `check`, `notes`, `choose`, `batch_limits` and
    `savings`. They see whole global arrays: plain `jax.numpy` is exact on any mesh.
    """

    # Whether the step builds and runs a predictor, and a target network with its moving
    # average. One that is not used does not exist.
    predictor: ClassVar[bool] = False
    target: ClassVar[bool] = False
    # Whether the rows that the step hands over have length 1.
    unit_rows: ClassVar[bool] = True
    # What a progress line shows beside the loss, and what a report plots, with a
    # sentence that explains it.
    shown: ClassVar[tuple[Shown, ...]] = ()
    panels: ClassVar[tuple[Panel, ...]] = ()
    explanation: ClassVar[str] = ""
    # Fields that say which arrays there are: no run can change them.
    fixed: ClassVar[tuple[str, ...]] = ()
    # What a change of other fields in a run that is continued means.
    changes: ClassVar[Mapping[str, str]] = {}
    # Fields that a recipe may leave None, for `choose`.
    chosen: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def section(cls, name: str) -> ConfigDict:
        """Returns the section `config.objective` with every default.

        Args:
          name: under which the class is found, see `settings.objective`.
        """
        return ConfigDict({"name": name, **_defaults(cls())})

    @classmethod
    def from_section(cls, section: ConfigDict) -> Self:
        """Returns the objective that a section of a checked config describes."""
        return _filled(cls, section)

    def init(self, key: Array, dim: int) -> tuple[Any, Any]:
        """Returns parameters that the optimizer trains, and state that it does not.

        Args:
          key: of the run's random numbers.
          dim: d, of projections.
        """
        del key, dim
        return {}, ()

    def specs(self, state: Any) -> Any:
        """Returns a PartitionSpec for each array of the state; all replicated."""
        return jax.tree.map(lambda _: P(), state)

    def loss(self, params: Any, state: Any, seen: Seen, now: Now) -> tuple[Array, Any]:
        """Returns the mean loss of the global batch, and what `metrics` reads.

        Args:
          params: as `init` makes them, moved by the optimizer.
          state: as `init` makes it, moved by `update`.
          seen: of this batch.
          now: this step.
        """
        raise NotImplementedError

    def update(self, state: Any, seen: Seen, now: Now) -> Any:
        """Returns the state after this step."""
        del seen, now
        return state

    def metrics(
        self, aux: Any, seen: Seen, labels: Array | None, now: Now
    ) -> dict[str, Array]:
        """Returns numbers about this step by name.

        Args:
          aux: from `loss`.
          seen: of this batch.
          labels: (n,) int32 of the whole training set, below 0 where unknown, or None.
            Nothing else may read labels.
          now: this step.
        """
        del aux, seen, labels, now
        return {}

    @property
    def searches(self) -> bool:
        """Whether images find neighbors, for galleries, reports and evaluations."""
        return False

    def neighbors(self, params: Any, state: Any, seen: Seen, now: Now) -> Found | None:
        """Returns what images find in the state by their first view, or None."""
        del params, state, seen, now
        return None

    def pushed_at(self, state: Any) -> Array | None:
        """Returns the step at which each row that `neighbors` searches was written.

        (q,) int32, -1 for a row that was not written yet; None where `searches` is
        false.
        """
        del state
        return None

    def check(self, config: ConfigDict, devices: int) -> None:
        """Raises ValueError with the fix where settings do not fit each other."""
        del config, devices

    def notes(self, config: ConfigDict, images: int) -> list[str]:
        """Returns what is worth knowing at the start of a run on `images` images."""
        del config, images
        return []

    @property
    def waits(self) -> Mapping[str, str]:
        """By field that names an epoch: what a run that ends before never does."""
        return {}

    @classmethod
    def choose(
        cls, section: ConfigDict, *, images: int, devices: int
    ) -> dict[str, Any]:
        """Returns a value for each field of `chosen`, for a set of `images` images."""
        del section, images, devices
        return {}

    def batch_limits(self) -> tuple[int, int]:
        """Returns what divides a batch, and the largest that suits the settings."""
        return 1, 2**31

    def savings(self) -> dict[str, Any]:
        """Returns fields and values that save memory, where a step does not fit."""
        return {}


def unit(rows: Array) -> Array:
    """Returns rows of length 1, in at least float32; a row of zeros stays zero."""
    rows = widened(rows)
    square = jnp.sum(rows * rows, axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def mean_row(rows: Array) -> Array:
    """Returns the mean of v views' rows, (v, b, d) -> (b, d), with length 1."""
    return unit(jnp.mean(rows, axis=0))


def widened(rows: Array) -> Array:
    """Returns rows in at least float32."""
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def other_views(views: Array, number: int) -> Array:
    """Returns views (v, b, d) without view `number`, (v - 1, b, d)."""
    return jnp.concatenate([views[:number], views[number + 1 :]])


def power_of_two(most: int, unit: int) -> int:
    """The largest power of two up to `most`, as a multiple of `unit`, at least one."""
    power = 1 << max(most, 1).bit_length() - 1
    return max(power // unit * unit, unit)


def _defaults(section: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass of defaults, and of those that are its fields.

    Such a field's default may differ from that dataclass's own.
    """
    defaults, types = {}, typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        default = getattr(section, field.name)
        if dataclasses.is_dataclass(default):
            default = _defaults(default)
        elif default is None:
            default = placeholder(typing.get_args(types[field.name])[0])
        defaults[field.name] = default
    return defaults


def _filled(cls: type, section: ConfigDict) -> Any:
    values = {}
    for field in dataclasses.fields(cls):
        value = section[field.name]
        if dataclasses.is_dataclass(field.default):
            value = _filled(type(field.default), value)
        values[field.name] = value
    return cls(**values)
