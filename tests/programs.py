"""What a traced program consists of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax


def jaxprs(jaxpr: Any) -> Iterator[Any]:
    """Yields a jaxpr and all jaxprs inside of its equations."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(value, "eqns"):
                yield from jaxprs(getattr(value, "jaxpr", value))
