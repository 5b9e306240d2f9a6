"""What is evaluated: a trained encoder, or one of the baselines printed beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.encoder.encode import Encode, make_encode
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.features import extract_features, make_raw_pixels


class Subject:
    """One encoder, or raw pixels, and the features that it has of image sets.

    Args:
      name: "trained", "untrained" or "pixels".
      encoder: None for raw pixels.
      encode: from `make_encode` of `Model.layers`, or from `make_raw_pixels`.
      batch_size: images per call.
      mesh: the devices.
    """

    def __init__(
        self,
        name: str,
        encoder: Encoder | None,
        encode: Encode,
        *,
        batch_size: int,
        mesh: Mesh,
    ) -> None:
        self.name = name
        # Any, not None: who needs one is not given raw pixels.
        self.encoder: Encoder | Any = encoder
        self._encode, self._batch_size, self._mesh = encode, batch_size, mesh
        self._layers: dict[int, tuple[Split, dict[str, np.ndarray]]] = {}

    def layers(self, split: Split) -> dict[str, np.ndarray]:
        """Returns float32 (n, f) by layer, the last one "features"; extracted once."""
        # The split is kept as well: its id stays its own.
        if id(split) not in self._layers:
            encoder = self.encoder
            features = extract_features(
                self._encode,
                encoder and encoder.params,
                encoder and encoder.batch_stats,
                split,
                batch_size=self._batch_size,
                mesh=self._mesh,
                description=f"features of {self.name}",
            )
            if not isinstance(features, dict):
                features = {"features": features}
            self._layers[id(split)] = split, features
        return self._layers[id(split)][1]

    def features(self, split: Split) -> np.ndarray:
        """Returns float32 (n, f), what the encoder ends in."""
        return self.layers(split)["features"]


def make_subjects(
    encoder: Encoder, *, layers: bool, baselines: bool, settings, mesh: Mesh
) -> list[Subject]:
    """Returns the encoder, and with `baselines` an untrained one and raw pixels.

    Args:
      encoder: that was trained.
      layers: whether features of several depths are asked for.
      baselines: whether they are.
      settings: `configs/evaluate.py`; reads `seed` (of the untrained weights) and
        `batch_size`.
      mesh: the devices.
    """
    batch_size = settings.batch_size
    model, config = encoder.model, encoder.config
    encode = make_encode(model.layers if layers else model.encode, config, mesh)
    subjects = [Subject("trained", encoder, encode, batch_size=batch_size, mesh=mesh)]
    if baselines:
        untrained = encoder.untrained(settings.seed)
        pixels = make_raw_pixels(config, mesh)
        subjects += [
            Subject("untrained", untrained, encode, batch_size=batch_size, mesh=mesh),
            Subject("pixels", None, pixels, batch_size=batch_size, mesh=mesh),
        ]
    return subjects
