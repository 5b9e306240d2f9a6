"""SNCLR in JAX: contrastive pretraining with soft neighbors as positive supporters.

`snclr_jax.step.train_step` is the file to read first; `snclr_jax.train.train` runs a
config, and `load_encoder` opens what a run has learned.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snclr_jax.encoder.loaded import LoadedEncoder

__version__ = "0.1.0"

# Without it XLA, since jaxlib 0.10.2, leaves products, sums and convolutions on CPUs to
# YNNPACK: one thread computes those of 32 and 64 channels, and in jaxlib 0.11.2 its
# sums make NaN of a ResNet's bfloat16 features. XLA reads it with the first program.
_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
if _YNNPACK not in (_flags := os.environ.get("XLA_FLAGS", "")):
    os.environ["XLA_FLAGS"] = f"{_flags} {_YNNPACK}=".lstrip()

_HERE = Path(__file__).parent
if not (_HERE / "configs").is_dir():
    # A checkout's recipes lie beside its package. The finder of an editable install
    # knows one checkout alone, also where another one is imported by PYTHONPATH.
    __path__.append(str(_HERE.parent))


def load_encoder(path: str | Path, *, network: str | None = None) -> LoadedEncoder:
    """Returns a trained encoder as a function of images.

        encoder = snclr_jax.load_encoder("runs/digits")
        features = encoder(["a.jpg", "b.png"])  # of any sizes -> float32 (b, f)
        one = encoder("a.jpg")  # -> float32 (f,)

    An image is a path, a PIL image or an array, grey, RGB or RGBA, or of the
    channels of the run (`data.channels`).

    Args:
      path: a run's workdir (its newest checkpoint), a checkpoint in it, a file from
        `snclr export` in this package's own format or from `snclr import`, or a folder
        from `snclr export --format=hub`.
      network: "online", or "target", its moving average; None is what the run's
        `evaluate.network` says, or what a file holds.

    Raises:
      ValueError: where the path holds no whole encoder.
    """
    # What prepares images on worker processes imports this package without JAX.
    from snclr_jax.encoder.loaded import load

    return load(path, network=network)
