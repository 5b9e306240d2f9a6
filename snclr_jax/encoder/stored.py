"""An encoder on its own: out of a run, a checkpoint or a file, whole or not at all."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax
import ml_collections
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open

from snclr_jax import __version__
from snclr_jax.devices.mesh import placed_shapes, replicated
from snclr_jax.encoder.tensor_file import write_tensors
from snclr_jax.encoder.torch_names import from_torch, learned
from snclr_jax.models import Model, Variables, build_model, encoder_subset
from snclr_jax.run.checkpoint_reader import (
    check_same_arrays,
    checkpoint_config,
    find_checkpoint,
    read_arrays,
    saved_steps,
)
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.objective import objective_class
from snclr_jax.settings.paths import located
from snclr_jax.step.channels import channels_of

SUFFIX = ".safetensors"
HUB_FILE = f"model{SUFFIX}"  # of a folder for a hub
TORCH = {"format": "pt"}  # of a header: the arrays have PyTorch's names and layouts
TREES = ("params", "batch_stats")  # of a file
# Where a checkpoint's state keeps the parameters and BN statistics of each network.
FIELDS = {
    "online": ("params", "batch_stats"),
    "target": ("target_params", "target_batch_stats"),
}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The encoder of one network of a run, and all that is needed to use it.

    Attributes:
      model: the networks; `model.encode(params, batch_stats, images)` has features.
      params: parameters under the one key "encoder", on every device of a mesh.
      batch_stats: their running BatchNorm statistics.
      config: the run's. `data.image_size`, `augment.size`, `data.mean` and `data.std`
        say how images are prepared, see `prepare`.
      network: "online", "target" (its moving average), "untrained" or "imported".
      step: updates that it was trained for.
      source: path that it was read from.
    """

    model: Model
    params: Variables
    batch_stats: Variables
    config: ml_collections.ConfigDict
    network: str
    step: int
    source: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, types, shapes and values, in hexadecimal digits."""
        digest = hashlib.sha256()
        for name, leaf in sorted(self.tensors().items()):
            digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
            digest.update(leaf.tobytes())
        return digest.hexdigest()

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns every array by Flax's name, such as "params/encoder/conv1/kernel"."""
        trees = dict(zip(TREES, (self.params, self.batch_stats), strict=True))
        flat = flatten_dict(trees, sep="/")
        return {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}

    def describe(self) -> str:
        """Returns one line that says which encoder this is."""
        return (
            f"{self.network} encoder ({self.config.model.name}) of step {self.step} "
            f"from {self.source}, fingerprint {self.fingerprint[:16]}"
        )

    def untrained(self, seed: int) -> Encoder:
        """Returns the same network before any training, its weights from a seed."""
        sharding = jax.tree.leaves(self.params)[0].sharding
        init = jax.jit(_init(self.model, self.config), out_shardings=sharding)
        params, batch_stats = init(jax.random.key(seed))
        return dataclasses.replace(
            self,
            params=params,
            batch_stats=batch_stats,
            network="untrained",
            step=0,
            source=f"seed {seed}",
        )


def open_encoder(
    path: epath.PathLike,
    *,
    network: str | None = None,
    mesh: Mesh,
) -> Encoder:
    """Returns an encoder that was trained, and refuses one that is not whole.

    Args:
      path: a run's workdir (its newest checkpoint), the folder of one checkpoint, a
        file from `save_encoder`, or a folder for a hub.
      network: "online" or "target"; None is what the run's `evaluate.network` says, or
        what a file holds.
      mesh: devices that each get a copy.

    Raises:
      ValueError: where the path holds none or an unfinished one, its arrays are not
        exactly those of its network, or a file's bytes are not what was saved.
    """
    if network is not None and network not in FIELDS:
        raise ValueError(f"network {network!r} is unknown; use one of {tuple(FIELDS)}")
    path = located(path)
    if (path / HUB_FILE).is_file() and not saved_steps(path):
        path = path / HUB_FILE
    if path.is_file():
        return _read_file(path, network, mesh)
    folder = find_checkpoint(path)
    config = checkpoint_config(folder)
    network = network or str(config.evaluate.network)
    if network == "target" and not objective_class(config.objective.name).target:
        raise ValueError(
            f"{folder} is of objective {config.objective.name!r}, which has no target "
            "network; use --network=online"
        )
    model, *expected = _expected(config, mesh)
    fields = [f"{field}/encoder" for field in FIELDS[network]]
    parts = zip(fields, (tree.get("encoder", {}) for tree in expected), strict=True)
    arrays = read_arrays(folder, dict(parts))
    params, batch_stats = (
        {"encoder": arrays[field]} if field in arrays else {} for field in fields
    )
    return Encoder(
        model, params, batch_stats, config, network, int(folder.name), str(folder)
    )


def save_encoder(path: str | Path, encoder: Encoder) -> None:
    """Writes an encoder to one file, in the safetensors format.

    Its header holds the config, the preparation of images and the fingerprint; the
    tensors carry Flax's names, "params/encoder/conv1/kernel".

    Raises:
      ValueError: where the path does not end in ".safetensors".
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} must end in {SUFFIX}")
    write_tensors(path, encoder.tensors(), file_header(encoder))


def file_header(encoder: Encoder) -> dict[str, str]:
    """Returns all that a file says of an encoder beside its arrays."""
    config = encoder.config
    return {
        "snclr_jax": __version__,
        "config": json.dumps(as_json(config)),
        "preprocessing": json.dumps(
            {
                "ImageOps.fit": config.data.image_size,
                "crop_center": config.augment.size,
                "mean": config.data.mean,
                "std": config.data.std,
            }
        ),
        "network": encoder.network,
        "step": str(encoder.step),
        "fingerprint": encoder.fingerprint,
    }


def _read_file(path: epath.Path, network: str | None, mesh: Mesh) -> Encoder:
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole {SUFFIX} file: {error}") from error
    if "snclr_jax" not in header:
        raise ValueError(
            f"{path} is no encoder in this package's own format: its header names no "
            "config. Name a workdir, a checkpoint of one, or a file from snclr export; "
            "snclr import reads the names of torchvision and timm"
        )
    if network not in (None, header["network"]):
        raise ValueError(
            f"{path} holds the {header['network']} network, not the {network} one; "
            "export that one from the run"
        )
    config = ml_collections.ConfigDict(json.loads(header["config"]))
    if header.items() >= TORCH.items():
        channels = channels_of(config.data)
        try:
            arrays = from_torch(learned(arrays), expected_tensors(config), channels)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; export it again") from error
    encoder = assemble_encoder(
        arrays,
        config,
        network=header["network"],
        step=int(header["step"]),
        source=str(path),
        mesh=mesh,
    )
    if encoder.fingerprint != header["fingerprint"]:
        raise ValueError(
            f"{path} is damaged: its arrays have the fingerprint "
            f"{encoder.fingerprint}, and {header['fingerprint']} was saved; export it "
            "again"
        )
    return encoder


def assemble_encoder(
    tensors: dict[str, np.ndarray],
    config: ml_collections.ConfigDict,
    *,
    network: str,
    step: int,
    source: str,
    mesh: Mesh,
) -> Encoder:
    """Returns the encoder that arrays make up; for the arguments see `Encoder`.

    Args:
      tensors: by Flax's names, what `Encoder.tensors` returns.
      mesh: devices that each get a copy.

    Raises:
      ValueError: where they are not exactly those of the config's network.
    """
    model, *expected = _expected(config, mesh)
    arrays = unflatten_dict(tensors, sep="/")
    trees = [arrays.pop(name, {}) for name in TREES]
    check_same_arrays(
        source,
        dict(zip(TREES, trees, strict=True)) | arrays,
        dict(zip(TREES, expected, strict=True)),
    )
    params, batch_stats = jax.device_put(trees, replicated(mesh))
    return Encoder(model, params, batch_stats, config, network, step, source)


def expected_tensors(
    config: ml_collections.ConfigDict,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what `Encoder.tensors` holds for a config, without its values."""
    model = build_model(config.model)
    shapes = jax.eval_shape(_init(model, config), jax.random.key(0))
    tensors = flatten_dict(dict(zip(TREES, shapes, strict=True)), sep="/")
    return cast(dict[str, jax.ShapeDtypeStruct], tensors)


def _expected(
    config: ml_collections.ConfigDict, mesh: Mesh
) -> tuple[Model, Variables, Variables]:
    """Returns a config's model, and what its encoder consists of on every device."""
    model = build_model(config.model)
    shapes = jax.eval_shape(_init(model, config), jax.random.key(0))
    params, batch_stats = placed_shapes(shapes, replicated(mesh))
    return model, params, batch_stats


def _init(
    model: Model, config: ml_collections.ConfigDict
) -> Callable[[Array], tuple[Variables, Variables]]:
    """Returns the function from a key to an encoder's parameters and statistics."""
    size, channels = config.augment.size, channels_of(config.data)

    def init(key: Array) -> tuple[Variables, Variables]:
        params, batch_stats = model.init(key, (size, size, channels))
        return encoder_subset(params), encoder_subset(batch_stats)

    return init
