"""The card beside an exported encoder: what it is, what it scored, how to load it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from snclr_jax import __version__
from snclr_jax.encoder.stored import Encoder
from snclr_jax.export.hub import front_matter
from snclr_jax.export.load_lines import image_lines, load_lines, stored_as
from snclr_jax.settings.objective import objective_class
from snclr_jax.settings.ranges import get_field
from snclr_jax.step.channels import COLOR, channels_of

# What tells one run from another at a glance; the rest is in the file or the run.
SUMMARY = (
    "model.name",
    "model.stem",
    "model.width",
    "model.depth",
    "model.patch_size",
    "model.vit_heads",
    "data.name",
    "data.tfds_name",
    "data.image_size",
    "augment.size",
    "epochs",
    "batch_size",
    "optim.name",
    "optim.learning_rate",
    "seed",
)
PROGRAMS = ("stablehlo", "onnx")  # formats that prepare images themselves
# Fields that only some networks read.
ONLY = {
    "model.stem": ("resnet",),
    "model.patch_size": ("vit", "patchnet"),
    "model.vit_heads": ("vit",),
}
NETWORK = {
    "online": "The online encoder, pretrained without labels by snclr_jax {version}",
    "target": "The target encoder, the moving average of one that was pretrained "
    "without labels by snclr_jax {version}",
    "imported": "An encoder that snclr_jax {version} imported and did not train",
}
STATISTICS = """ The running variances of its BatchNorm layers are the unbiased ones,
n / (n - 1) times those of a batch, as PyTorch keeps them."""
CARD = """\
# {file}

{origin}.
Network: {name}; format: {format}. It maps an image to {features} features and has no
classifier.{statistics}

| | |
|---|---|
{identity}

## Load it

{load}

## Images

{images}

## Scores

{scores}

## Config

| setting | value |
|---|---|
{settings}

## License

To be stated by whoever passes this file on: it depends on the images that it was
trained on.
"""


def model_card(
    encoder: Encoder, file: str, format: str, records: Sequence[dict[str, Any]]
) -> str:
    """Returns the card of an exported encoder, in Markdown; a hub's has front matter.

    Args:
      encoder: that was exported.
      file: name of the file.
      format: a key of `FORMATS`.
      records: of evaluations; those with the encoder's fingerprint are shown.
    """
    config = encoder.config
    return (front_matter(encoder) if format == "hub" else "") + CARD.format(
        file=html.escape(file),
        origin=NETWORK[encoder.network].format(version=__version__),
        name=config.model.name,
        format=format,
        features=encoder.model.feature_dim,
        identity=_rows(
            [
                ("fingerprint", encoder.fingerprint),
                ("network", encoder.network),
                ("step", encoder.step),
            ]
        ),
        statistics=STATISTICS if encoder.batch_stats else "",
        load=load_lines(encoder, file, format),
        images=_images(encoder, format),
        scores=_scores(encoder, records),
        settings=_rows([*_summary(config), *_of_objective(config)]),
    )


def _summary(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    for field in SUMMARY:
        value = get_field(config, field)
        read = config.model.name.startswith(ONLY.get(field, ""))
        if read and value not in (None, ""):
            yield field, value
    if (channels := channels_of(config.data)) != COLOR:
        yield "data.channels", channels


def _of_objective(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """The objective's name, and its settings that are not its defaults."""
    if "objective" not in config:  # exported by an earlier version
        return
    name = config.objective.name
    defaults = flatten_dict(objective_class(name).section(name).to_dict(), sep=".")
    for field, value in flatten_dict(config.objective.to_dict(), sep=".").items():
        if field == "name" or value != defaults.get(field):
            yield f"objective.{field}", value


def _images(encoder: Encoder, format: str) -> str:
    """Says what the network expects to see, and the code that makes it of a file."""
    config = encoder.config
    size, channels = config.augment.size, channels_of(config.data)
    kind = "RGB" if channels == COLOR else f"{channels} channels"
    view = f"{kind}, float32, (b, {channels}, {size}, {size}): `view` of these lines"
    if format == "detectron2":
        return (
            f"RGB. The network was trained on views of {size} x {size} pixels; "
            "Detectron2 itself subtracts and divides by the numbers above."
        )
    if format == "safetensors":
        text = (
            "Paths, PIL images or arrays, "
            f"{'grey, RGB or RGBA' if channels == COLOR else f'of {kind}'}, of any "
            "sizes. The loader does what these lines do:"
        )
    elif format == "hub":
        text = (
            "`snclr_jax.load_encoder` takes images of any sizes and does what these "
            f"lines do. Other loaders take {view}, its channels first."
        )
    elif format in PROGRAMS:
        text = (
            f"{kind}, {stored_as(config)}: `pixels` of these lines. The "
            f"program itself cuts out the middle {size} x {size} of them and "
            "normalizes them."
        )
    else:
        text = f"{view}, its channels first."
    treated = ""
    if channels == COLOR:
        treated = (
            " Transparent images are laid on white first, and of 16 bits the upper 8 "
            "count."
        )
    return (
        f"{text}\n\n{image_lines(config, view=format not in PROGRAMS)}\n\n"
        "Evaluations saw these pixels, to the last bit; cropping and resizing by other "
        f"code moves some of them by several of 255 levels.{treated}"
    )


def _scores(encoder: Encoder, records: Sequence[dict[str, Any]]) -> str:
    own = [record for record in records if record["fingerprint"] == encoder.fingerprint]
    if not own:
        return (
            "None: `snclr evaluate` with this very encoder, then export it again, and "
            "they stand here."
        )
    rows = _rows(
        (record["what"], record["data"], name, f"{value:.4g}")
        for record in own
        for name, value in record["metrics"].items()
    )
    return (
        'Accuracies in percent, "quality" in units of its own; a balanced accuracy is '
        'the mean over the classes, and "majority" always answers the most frequent '
        'class. The data "own" are those that it was trained on; classes are scored on '
        "their test split, if they have one. The protocols are those of `snclr "
        "evaluate`.\n\n"
        f"| evaluation | data | metric | value |\n|---|---|---|---|\n{rows}"
    )


def _rows(rows: Iterable[Sequence[Any]]) -> str:
    """Returns lines of a table; a cell is text, whatever a name or a path holds."""
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: Any) -> str:
    return html.escape(" ".join(str(value).split())).replace("|", "\\|")
