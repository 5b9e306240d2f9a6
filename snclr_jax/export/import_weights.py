"""`snclr import`: an encoder that another tool trained, in the package's own format."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data.choose import choose_from_data
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import assemble_encoder, expected_tensors, save_encoder
from snclr_jax.encoder.torch_names import BATCHES, POSITIONS, Tensors, from_torch
from snclr_jax.export.read_weights import read_weights
from snclr_jax.export.torch_file import attention_heads, positions
from snclr_jax.models.resnet import STRUCTURE
from snclr_jax.models.vit import WIDTH
from snclr_jax.step.channels import channels_of

# MoCo v3's checkpoints hold both networks.
MOCO = {"online": "module.base_encoder.", "target": "module.momentum_encoder."}
# Classifiers, and the heads that MoCo v3 puts in their place.
CLASSIFIERS = ("fc.", "head.")
_TOLERANCE = 1e-3  # of positions, which lie in [-1, 1]; float16 rounds by 2.4e-4


def import_weights(
    weights: str | Path,
    out: str | Path,
    config: ConfigDict,
    *,
    network: str | None = None,
) -> str:
    """Writes weights under torchvision's or timm's names as an encoder of a config.

    Classifiers are left out. The positions of a ViT, which are fixed here, have to be
    these; what timm adds to the class token for its position goes into the token.

    Args:
      weights: a file, see `read_weights`; of a ResNet under torchvision's names or a
        ViT under timm's, in a MoCo v3 checkpoint or alone.
      out: file to write; opens like any exported encoder, and starts a run as
        `model.init_from`.
      config: a recipe; says the network, and how its images are prepared.
      network: of a MoCo v3 checkpoint, "online" or "target"; None is what the config's
        `evaluate.network` says.

    Returns:
      A sentence that says what was written.

    Raises:
      ValueError: where the weights are not exactly those of the config's encoder.
    """
    config, _ = choose_from_data(config, devices=1)
    model = config.model
    if model.name not in (*STRUCTURE, *WIDTH):
        raise ValueError(
            f"model.name {model.name!r} is known to no other tool; import ResNets and "
            "ViTs"
        )
    theirs, header = read_weights(weights)
    theirs = _of_network(theirs, network, config.evaluate.network, str(weights))
    theirs = {
        name: array
        for name, array in theirs.items()
        if not name.startswith(CLASSIFIERS) and not name.endswith(f".{BATCHES}")
    }
    try:
        if model.name in WIDTH:
            _check_heads(header, model)
            theirs = _without_positions(theirs)
        channels = channels_of(config.data)
        tensors = from_torch(theirs, expected_tensors(config), channels)
    except ValueError as error:
        raise ValueError(
            f"--weights={weights} does not fit {model.name} as the config says: "
            f"{error}. Nothing was written"
        ) from error
    encoder = assemble_encoder(
        tensors,
        config,
        network="imported",
        step=0,
        source=str(weights),
        mesh=make_mesh(jax.local_devices()[:1]),
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_encoder(out, encoder)
    said = f"{out}: {encoder.describe()}"
    if model.name in WIDTH and "num_heads" not in header:
        said += (
            f"; {attention_heads(model)} attention heads, as model.vit_heads "
            f"{model.vit_heads!r} says: the weights do not tell"
        )
    return said


def _of_network(
    tensors: Tensors, network: str | None, default: str, weights: str
) -> Tensors:
    """Returns the tensors of one network, without MoCo v3's prefix."""
    if not any(name.startswith(tuple(MOCO.values())) for name in tensors):
        if network is not None:
            raise ValueError(
                f"--network={network}, but --weights={weights} is no MoCo v3 "
                "checkpoint: it holds one network; leave the flag out"
            )
        return tensors
    network = network or default
    if network not in MOCO:
        raise ValueError(f"network {network!r} is unknown; use one of {tuple(MOCO)}")
    prefix = MOCO[network]
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _check_heads(header: dict[str, str], model: ConfigDict) -> None:
    heads = attention_heads(model)
    stated = header.get("num_heads", str(heads))
    if stated != str(heads):
        raise ValueError(
            f"it has {stated} attention heads, and model.vit_heads "
            f"{model.vit_heads!r} means {heads}"
        )


def _without_positions(tensors: Tensors) -> Tensors:
    """Returns a ViT's tensors without "pos_embed", which has to be the fixed one."""
    if not {POSITIONS, "cls_token"} <= tensors.keys():
        return tensors  # a missing class token is reported with all that is missing
    tensors = dict(tensors)
    embedding, token = tensors.pop(POSITIONS), tensors["cls_token"]
    side = round((embedding.shape[1] - 1) ** 0.5) if embedding.ndim == 3 else 0
    if side < 1 or embedding.shape != (1, side**2 + 1, token.shape[-1]):
        raise ValueError(
            f"pos_embed is {embedding.shape}, not (1, side^2 + 1, {token.shape[-1]}): "
            "one position for each patch of a square image and one for the class token"
        )
    difference = np.abs(embedding - positions(side, embedding.shape[2]))[:, 1:].max()
    if difference > _TOLERANCE:
        raise ValueError(
            "pos_embed is not the fixed sine-cosine embedding of MoCo v3 (it is off by "
            f"{difference:.2g}), and the positions of ViTs are fixed here"
        )
    # The network adds both to the same token.
    tensors["cls_token"] = token + embedding[:, :1]
    return tensors
