"""The objective that a config names."""

from __future__ import annotations

import difflib
import pkgutil

from ml_collections import ConfigDict

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.step.objective import Objective


def objective_class(name: str) -> type[Objective]:
    """Returns the class of an objective.

    Args:
      name: one of `OBJECTIVES`, or "module:Class" of one from outside the package.

    Raises:
      ValueError: where there is none.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if ":" in name:
        try:
            resolved = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"objective.name {name!r} cannot be imported: {error}"
            ) from error
        if isinstance(resolved, type) and issubclass(resolved, Objective):
            return resolved
        raise ValueError(f"objective.name {name!r} is not a subclass of Objective")
    nearest = difflib.get_close_matches(name, OBJECTIVES, n=1)
    meant = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(
        f"objective.name {name!r} is unknown; {meant}use one of {tuple(OBJECTIVES)}, "
        "or 'module:Class' for one of your own"
    )


def build_objective(config: ConfigDict) -> Objective:
    """Returns the objective of a checked config."""
    return objective_class(config.objective.name).from_section(config.objective)
