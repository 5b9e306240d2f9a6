"""Networks as pure functions: the only folder that knows Flax Linen.

`build_model` turns a checked ``config.model`` into a `Model`, whose methods take and
return plain trees of arrays. One Linen module serves the online and the target network:
the same functions applied to two sets of variables.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.encoders import build_encoder, check_choice
from snclr_jax.models.heads import MLPHead
from snclr_jax.models.layers import MAPS, activation
from snclr_jax.models.vit import last_attention

Variables = dict[str, Any]  # a tree of arrays, parameters or batch statistics

_DTYPES = ("float32", "bfloat16", "float64")


class Outputs(NamedTuple):
    """What the online network returns; float32, not normalized."""

    feature: jax.Array  # b f, or b v f of v views
    projection: jax.Array  # b d, or b v d
    prediction: jax.Array  # b d, or b v d; the projection without a predictor


class _Network(nn.Module):
    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None

    def online(self, images: jax.Array, *keys: jax.Array) -> Outputs:
        feature = self.encoder(images, *keys, train=True)
        projection = self.projector(feature, train=True)
        if self.predictor is None:
            return Outputs(feature, projection, projection)
        return Outputs(feature, projection, self.predictor(projection, train=True))

    def target(self, images: jax.Array) -> jax.Array:
        return self.projector(self.encoder(images, train=True), train=True)

    def encode(self, images: jax.Array) -> jax.Array:
        return self.encoder(images, train=False)

    def tune(self, images: jax.Array, *keys: jax.Array) -> jax.Array:
        return self.encoder(images, *keys, train=True)


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoder, projector and predictor as pure functions.

    Parameters are a dictionary with the keys "encoder", "projector" and, where there is
    one, "predictor"; batch statistics use the same keys and leave out networks that
    have none. Every array in both is float32.

    Attributes:
      network: the Linen module; nothing outside this package touches it.
      feature_dim: f, of the encoder's output.
      embedding_dim: d, of projections and predictions.
      drop_path: rate of stochastic depth at the last block.
      dtype: of the computation.
    """

    network: nn.Module
    feature_dim: int
    embedding_dim: int
    drop_path: float
    dtype: jnp.dtype

    def init(
        self, key: jax.Array, image_shape: tuple[int, int, int]
    ) -> tuple[Variables, Variables]:
        """Returns fresh parameters and batch statistics for (h, w, c) images."""
        images = jnp.zeros((1, 1, *image_shape), jnp.float32)
        variables = self.network.init(key, images, method="online")
        # Only float64 differs from the float32 in which Linen creates them.
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
        return variables["params"], variables.get("batch_stats", {})

    def online(
        self,
        params: Variables,
        batch_stats: Variables,
        images: jax.Array,
        keys: jax.Array | None = None,
    ) -> tuple[Outputs, Variables]:
        """Applies encoder, projector and predictor, on the batch's own statistics.

        The predictor sees the projection before any normalization to unit length.

        Args:
          params, batch_stats: the online network's.
          images: (b, h, w, c), float32, channels already normalized. Or (b, v, h, w, c)
            of v views of each image, in one forward pass: batch statistics are those
            of one view at a time, as in v forward passes.
          keys: (b,) or (b, v), one PRNG key per image, which alone decides the branches
            that stochastic depth drops for it; read where `drop_path` is not 0.

        Returns:
          The outputs, and the batch statistics moved by this batch.

        Raises:
          ValueError: if `drop_path` is not 0 and there are no keys.
        """
        inputs = self._with_keys("online", images, keys)
        return self._train("online", params, batch_stats, *inputs)

    def target(
        self, params: Variables, batch_stats: Variables, images: jax.Array
    ) -> tuple[jax.Array, Variables]:
        """Applies encoder and projector, on the batch's own statistics.

        Args:
          params, batch_stats: the target network's; see `target_subset`.
          images: (b, h, w, c) or (b, v, h, w, c), as in `online`.

        Returns:
          The projection (b, d) or (b, v, d), and the batch statistics moved by this
          batch.
        """
        return self._train("target", params, batch_stats, images)

    def encode(
        self, params: Variables, batch_stats: Variables, images: jax.Array
    ) -> jax.Array:
        """Returns features (b, f) for evaluation, on the running statistics."""
        # Linen's `apply` returns a pair where it is told that variables may change.
        variables = {"params": params, "batch_stats": batch_stats}
        return cast(jax.Array, self.network.apply(variables, images, method="encode"))

    def layers(
        self, params: Variables, batch_stats: Variables, images: jax.Array
    ) -> dict[str, jax.Array]:
        """Returns features of several depths, from one pass on the running statistics.

        Args:
          params, batch_stats: read under the key "encoder" alone.
          images: (b, h, w, c), float32, channels already normalized.

        Returns:
          "features", what `encode` returns, and of a ResNet "stage3", of a ViT "last4",
          of patchnet "fine": (b, f) each, with an f of its own.
        """
        features, sown = self._encode(params, batch_stats, images, "intermediates")
        earlier = {name: rows for name, (rows,) in sown.items()}
        return earlier | {"features": features}

    def maps(
        self, params: Variables, batch_stats: Variables, images: jax.Array
    ) -> dict[str, jax.Array]:
        """Returns where an encoder looks, from one pass on the running statistics.

        Args:
          params, batch_stats: read under the key "encoder" alone.
          images: (b, s, s, c), float32, channels already normalized.

        Returns:
          Of a ViT "attention", (b, heads, side, side), what the class token of the last
          block attends to: see `class_attention`. Of other encoders "activation",
          (b, side, side): the length of the last features at each position.
        """
        _, maps = self._encode(params, batch_stats, images, MAPS)
        (dense,) = maps.pop("dense")
        if maps:
            return {"attention": last_attention(maps)}
        return {"activation": activation(dense)}

    def dense(
        self, params: Variables, batch_stats: Variables, images: jax.Array
    ) -> jax.Array:
        """Returns features of every place, from one pass on the running statistics.

        Args:
          params, batch_stats: read under the key "encoder" alone.
          images: (b, h, w, c), float32, channels already normalized.

        Returns:
          float32 (b, rows, columns, f). Of a ResNet or patchnet the last features
          before the pool, whose mean over rows and columns is what `encode` returns. Of
          a ViT the tokens of the patches after the last normalization, without the
          class token: that one is what `encode` returns, and no mean of the others.
        """
        _, maps = self._encode(params, batch_stats, images, MAPS)
        (dense,) = maps["dense"]
        return dense.astype(jnp.promote_types(self.dtype, jnp.float32))

    def _encode(self, params, batch_stats, images, kind: str) -> tuple[Any, Any]:
        """Returns features, and what the encoder sows of a kind: a tuple by name."""
        variables = {"params": params, "batch_stats": batch_stats}
        features, sown = self.network.apply(
            variables, images, method="encode", mutable=[kind]
        )
        return features, cast(Any, sown)[kind]["encoder"]

    def tune(
        self,
        params: Variables,
        batch_stats: Variables,
        images: jax.Array,
        keys: jax.Array | None = None,
    ) -> tuple[jax.Array, Variables]:
        """Applies the encoder on the batch's own statistics, to fine-tune it.

        Args:
          params, batch_stats: read under the key "encoder" alone.
          images: (b, h, w, c), float32, channels already normalized.
          keys: as in `online`.

        Returns:
          The features (b, f), and the batch statistics moved by this batch.

        Raises:
          ValueError: if `drop_path` is not 0 and there are no keys.
        """
        inputs = self._with_keys("tune", images, keys)
        return self._train("tune", params, batch_stats, *inputs)

    def _with_keys(
        self, method: str, images: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        """Returns the inputs of the encoder: keys too, where they are read."""
        if not self.drop_path:
            return (images,)
        if keys is None:
            raise ValueError(
                f"model.drop_path {self.drop_path} needs a key for each image; pass "
                f"keys to Model.{method}, or use model.drop_path=0"
            )
        return images, keys

    def _train(
        self,
        method: str,
        params: Variables,
        batch_stats: Variables,
        *inputs: jax.Array,
    ) -> tuple[Any, Variables]:
        # The networks know images by their views.
        one_view = inputs[0].ndim == 4
        if one_view:
            inputs = tuple(array[:, None] for array in inputs)
        outputs, updates = self.network.apply(
            {"params": params, "batch_stats": batch_stats},
            *inputs,
            method=method,
            mutable=["batch_stats"],
        )
        if one_view:
            outputs = jax.tree.map(lambda output: output.squeeze(1), outputs)
        return outputs, cast(Variables, updates).get("batch_stats", {})


def encoder_subset(tree: Variables) -> Variables:
    """Returns the encoder's part of parameters or batch statistics."""
    return {name: tree[name] for name in ("encoder",) if name in tree}


def target_subset(tree: Variables) -> Variables:
    """Returns the parts that the target network has: encoder and projector.

    Args:
      tree: parameters or batch statistics of the online network.
    """
    return {name: tree[name] for name in ("encoder", "projector") if name in tree}


def build_model(
    config: Any, *, predictor: bool = False, fused_attention: bool = False
) -> Model:
    """Builds the network that a config describes.

    Args:
      config: ``config.model``.
      predictor: whether there is one behind the projector.
      fused_attention: whether a ViT may use cuDNN's kernel (`self_attention`), which
        the devices have to have (`has_cudnn_attention`).

    Returns:
      The model; nothing is allocated before `Model.init`.

    Raises:
      ValueError: if a field has an unknown name or a size that does not fit.
    """
    check_choice("model.dtype", config.dtype, _DTYPES)
    if jax.dtypes.canonicalize_dtype(config.dtype) != jnp.dtype(config.dtype):
        raise ValueError("model.dtype 'float64' needs JAX_ENABLE_X64=1")
    if not 0 <= config.drop_path < 1:
        raise ValueError(
            f"model.drop_path {config.drop_path} must be at least 0 and below 1"
        )
    dtype = jnp.dtype(config.dtype)
    encoder, feature_dim = build_encoder(config, dtype, fused_attention=fused_attention)
    head = functools.partial(
        MLPHead, features=config.embedding_dim, bn_scope=config.bn_scope, dtype=dtype
    )
    network = _Network(
        encoder=encoder,
        projector=head(
            tuple(config.projector_hidden), last_bn=config.projector_last_bn
        ),
        predictor=head(tuple(config.predictor_hidden), last_bn=config.predictor_last_bn)
        if predictor
        else None,
    )
    return Model(network, feature_dim, config.embedding_dim, config.drop_path, dtype)
