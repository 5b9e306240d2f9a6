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
from snclr_jax.export.hub import CARD_FILE, check_folder, save_hub
from snclr_jax.export.stablehlo import save_stablehlo
from snclr_jax.export.torch_file import save_detectron2, save_timm, save_torchvision
from snclr_jax.models.resnet import STRUCTURE
from snclr_jax.models.vit import WIDTH
from snclr_jax.run.files import write_whole
from snclr_jax.step.channels import COLOR, channels_of


class Format(NamedTuple):
    """One format.

    Attributes:
      save: writes an encoder to a path.
      suffix: of the path; "" is a folder.
      networks: `model.name` of those that it has names for; None is every one.
      stems: their `model.stem`; None is every one.
      color: whether it knows images in color alone.
    """

    save: Callable[..., None]
    suffix: str = SUFFIX
    networks: Sequence[str] | None = None
    stems: Sequence[str] | None = None
    color: bool = False

    def refuses(self, config: ConfigDict) -> str:
        """Returns the field of a run's config that it has no names for, or ""."""
        model, channels = config.model, channels_of(config.data)
        if self.color and channels != COLOR:
            return f"data.channels {channels}"
        if self.networks is not None and model.name not in self.networks:
            return f"model.name {model.name!r}"
        if self.stems is not None and model.stem not in self.stems:
            return f"model.stem {model.stem!r}"
        return ""


def _save_onnx(path: Path, encoder: Encoder, **settings: int) -> None:
    try:
        from snclr_jax.export.onnx_file import write_onnx
    except ImportError as error:
        raise ValueError(
            "--format=onnx needs the package onnx, which is not installed: "
            "pip install onnx onnxruntime"
        ) from error
    write_onnx(path, encoder, **settings)


FORMATS = {
    "safetensors": Format(save_encoder),
    "torchvision": Format(save_torchvision, networks=tuple(STRUCTURE)),
    "detectron2": Format(
        save_detectron2, networks=tuple(STRUCTURE), stems=("imagenet",), color=True
    ),
    "timm": Format(save_timm, networks=tuple(WIDTH)),
    "stablehlo": Format(save_stablehlo, suffix=".stablehlo"),
    "onnx": Format(_save_onnx, suffix=".onnx"),
    "hub": Format(save_hub, suffix=""),
}


def export(
    path: str | Path,
    out: str | Path,
    *,
    format: str = "safetensors",
    network: str | None = None,
    opset: int | None = None,
    records: Sequence[dict[str, Any]] = (),
) -> str:
    """Writes an encoder to one file, and beside it a card, the file's name with ".md".

    For a hub it is a folder, whose card is its README.md.

    Args:
      path: a workdir, a checkpoint in it, or a file in this package's own format.
      out: file to write; ".stablehlo" and ".onnx" for these formats, else
        ".safetensors"; or the folder for a hub.
      format: "safetensors" is this package's own; "torchvision" and "detectron2" take
        ResNets, "timm" ViTs, and "stablehlo", "onnx" and "hub" every network.
      network: whose encoder, see `open_encoder`.
      opset: of ONNX, see `write_onnx`; None is the oldest that has the operators.
      records: of the run's evaluations; the card shows those of this very encoder.

    Returns:
      A sentence that says what was written.

    Raises:
      ValueError: where the format has no names for the network or no such opset, the
        path has another suffix or holds something else, or the encoder cannot be read.
    """
    if format not in FORMATS:
        raise ValueError(f"--format={format} is unknown; use one of {tuple(FORMATS)}")
    kind, out = FORMATS[format], Path(out)
    if opset is not None and format != "onnx":
        raise ValueError(f"--opset={opset} is of --format=onnx alone; leave it out")
    if not kind.suffix:
        check_folder(out)
    elif out.suffix != kind.suffix:
        raise ValueError(
            f"--out={out} does not end in {kind.suffix}, as --format={format} does"
        )
    mesh = make_mesh(jax.local_devices()[:1])
    encoder = open_encoder(path, network=network, mesh=mesh)
    refused = kind.refuses(encoder.config)
    if refused:
        fit = [name for name in FORMATS if not FORMATS[name].refuses(encoder.config)]
        raise ValueError(
            f"--format={format} has no names for {refused}; use one of {fit}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    kind.save(out, encoder, **({} if opset is None else {"opset": opset}))
    card = out.with_name(f"{out.name}.md") if kind.suffix else out / CARD_FILE
    write_whole(card, model_card(encoder, out.name, format, records))
    return f"{out}: {encoder.describe()}; {card.name} says how to load it"
