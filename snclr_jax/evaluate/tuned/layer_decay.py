"""Learning rates that fall from the head of a vision transformer to its input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from snclr_jax.models.vit import STACKED

# Before the first block.
_INPUT = ("patch_embed", "cls_token")


def layer_multipliers(params: Any, decay: float) -> Any:
    """Returns what the learning rate of each parameter of a ViT is multiplied by.

        decay ** (L + 1 - l),   l = 0 input, 1 .. L blocks, L + 1 final norm and head

    (Clark et al., 2020, "ELECTRA", section 3; He et al., 2022, "Masked autoencoders",
    Table 9.)

    Args:
      params: with the keys "encoder", a ViT's parameters, and "head".
      decay: in (0, 1]; 1 is the same rate everywhere.

    Returns:
      A tree like `params` of numbers, or, for blocks that `model.scan` stacks, of
      arrays (L, 1, ...) that broadcast over the parameter.

    Example:
      >>> block = {"bias": jnp.zeros(2)}
      >>> encoder = {"cls_token": jnp.zeros(2), "blocks_0": block, "blocks_1": block}
      >>> layer_multipliers({"encoder": encoder, "head": jnp.zeros(2)}, 0.5)
      {'encoder': {'blocks_0': {'bias': 0.25}, 'blocks_1': {'bias': 0.5}, \
'cls_token': 0.125}, 'head': 1.0}
    """
    encoder = params["encoder"]
    depth = sum(name.startswith(f"{STACKED}_") for name in encoder)
    if STACKED in encoder:
        depth = len(jax.tree.leaves(encoder[STACKED])[0])

    def multiplier(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        name = path[1].key if path[0].key == "encoder" else ""
        if name in _INPUT:
            return decay ** (depth + 1)
        if name == STACKED:
            by_layer = decay ** jnp.arange(depth, 0.0, -1.0)
            return by_layer.reshape(depth, *(1,) * (leaf.ndim - 1))
        if name.startswith(f"{STACKED}_"):
            return decay ** (depth - int(name.removeprefix(f"{STACKED}_")))
        return 1.0

    return jax.tree.map_with_path(multiplier, params)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Returns the last link of an optimizer: multiplies updates, decay included."""

    def scale(updates: Any, params: Any) -> Any:
        del params
        multipliers = layer_multipliers(updates, decay)
        return jax.tree.map(jnp.multiply, updates, multipliers)

    return optax.stateless(scale)
