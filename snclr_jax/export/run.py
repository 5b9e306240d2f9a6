"""`snclr export`: an encoder in another tool's format, with a card that explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import SUFFIX, Encoder, open_encoder, save_encoder
from snclr_jax.export.card import model_card
from snclr_jax.export.stablehlo import save_stablehlo
from snclr_jax.export.torch_file import save_detectron2, save_timm, save_torchvision
from snclr_jax.models.resnet import STRUCTURE
from snclr_jax.models.vit import WIDTH
from snclr_jax.run.files import write_whole


class Format(NamedTuple):
    """One format.

    Attributes:
      save: writes an encoder to a path.
      suffix: of the path.
      networks: `model.name` of those that it has names for; None is every one.
      stems: their `model.stem`; None is every one.
    """

    save: Callable[[Path, Encoder], None]
    suffix: str = SUFFIX
    networks: Sequence[str] | None = None
    stems: Sequence[str] | None = None

    def refuses(self, model: ConfigDict) -> str:
        """Returns the field of `config.model` that it has no names for, or ""."""
        if self.networks is not None and model.name not in self.networks:
            return f"model.name {model.name!r}"
        if self.stems is not None and model.stem not in self.stems:
            return f"model.stem {model.stem!r}"
        return ""


FORMATS = {
    "safetensors": Format(save_encoder),
    "torchvision": Format(save_torchvision, networks=tuple(STRUCTURE)),
    "detectron2": Format(
        save_detectron2, networks=tuple(STRUCTURE), stems=("imagenet",)
    ),
    "timm": Format(save_timm, networks=tuple(WIDTH)),
    "stablehlo": Format(save_stablehlo, suffix=".stablehlo"),
}


def export(
    path: str | Path,
    out: str | Path,
    *,
    format: str = "safetensors",
    network: str | None = None,
    records: Sequence[dict[str, Any]] = (),
) -> str:
    """Writes an encoder to one file, and beside it a card, the file's name with ".md".

    Args:
      path: a workdir, a checkpoint in it, or a file in this package's own format.
      out: file to write; ".stablehlo" for that format, else ".safetensors".
      format: "safetensors" is this package's own; "torchvision" and "detectron2" take
        ResNets, "timm" ViTs and "stablehlo" every network.
      network: whose encoder, see `open_encoder`.
      records: of the run's evaluations; the card shows those of this very encoder.

    Returns:
      A sentence that says what was written.

    Raises:
      ValueError: where the format has no names for the network, the path has another
        suffix, or the encoder cannot be read.
    """
    if format not in FORMATS:
        raise ValueError(f"--format={format} is unknown; use one of {tuple(FORMATS)}")
    kind, out = FORMATS[format], Path(out)
    if out.suffix != kind.suffix:
        raise ValueError(
            f"--out={out} does not end in {kind.suffix}, as --format={format} does"
        )
    mesh = make_mesh(jax.local_devices()[:1])
    encoder = open_encoder(path, network=network, mesh=mesh)
    model = encoder.config.model
    refused = kind.refuses(model)
    if refused:
        fit = [name for name in FORMATS if not FORMATS[name].refuses(model)]
        raise ValueError(
            f"--format={format} has no names for {refused}; use one of {fit}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    kind.save(out, encoder)
    card = out.with_name(f"{out.name}.md")
    write_whole(card, model_card(encoder, out.name, format, records))
    return f"{out}: {encoder.describe()}; {card.name} says how to load it"
