"""What has to be the same in all processes of a run, in one place.

Everything else may differ: names of machines, the number of cores, and what process 0
alone reads and writes (the lock and the config of the workdir, metrics, reports).
"""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from snclr_jax.run.workdir import as_json
from snclr_jax.settings.objective import objective_class

PACKAGE = Path(__file__).parents[1]
# Those that read, draw and compute; the last come with an accelerator.
LIBRARIES = (
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "grain",
    "orbax-checkpoint",
    "pillow",
    "opencv-python-headless",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "libtpu",
)
# What changes the compiled program, from the environment of each process.
JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


def common_facts(
    config: ConfigDict, images: Mapping[str, str], **arguments: Any
) -> dict[str, Any]:
    """Returns what processes that compute together have in common, by name.

    Args:
      config: the run's, with every field chosen.
      images: which these are, see `Data.evidence`.
      arguments: what else the command was given, as JSON can hold it.
    """
    return {
        **arguments,
        "config": as_json(config),
        "images": dict(images),
        "devices": f"{jax.local_device_count()} x {jax.default_backend()}",
        "settings": {name: str(getattr(jax.config, name)) for name in JAX_SETTINGS},
        "packages": {"python": platform.python_version(), **_versions()},
        "code": code_digest(PACKAGE, objective_class(config.objective.name)),
    }


def code_digest(package: Path, objective: type) -> str:
    """Returns eight hexadecimal digits of a package's code and an objective's file."""
    crc = 0
    for path in [*sorted(package.rglob("*.py")), Path(inspect.getfile(objective))]:
        crc = zlib.crc32(path.name.encode() + path.read_bytes(), crc)
    return f"{crc:08x}"


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
